/** Device state in transit through the daemon: bytes in a buffer, with free space in front for framing. */

/**
 * Free bytes before the data of a chunk, for the transport to frame it in place: at most
 * 1 + 10 (offset) + 1 + 5 (length) are used.
 */
export const HEAD_ROOM = 32

/** Bytes of device state in a buffer, to be sent without a copy. */
export class Chunk {
  readonly buffer: Buffer
  /** Where the data starts. Invariant: at least HEAD_ROOM; the bytes before it are free to use. */
  readonly headRoom: number
  /** Bytes of data. */
  readonly length: number
  /** Where in the session the data starts. */
  readonly offset: bigint

  constructor(chunk: {
    readonly buffer: Buffer
    readonly headRoom: number
    readonly length: number
    readonly offset: bigint
  }) {
    this.buffer = chunk.buffer
    this.headRoom = chunk.headRoom
    this.length = chunk.length
    this.offset = chunk.offset
  }

  /** The data; valid until the buffer is used again. */
  get data(): Buffer {
    return this.buffer.subarray(this.headRoom, this.headRoom + this.length)
  }

  /** Where in the session the next chunk starts. */
  get end(): bigint {
    return this.offset + BigInt(this.length)
  }
}
