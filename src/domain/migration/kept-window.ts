/**
 * The last bytes that were read from a saving device, kept for a reader that lost them in transit.
 *
 * One ring of memory. Each read of the device goes into the room behind the last chunk, with
 * HEAD_ROOM bytes in front, so chunks are sent from where they were read and the framing of one never
 * touches another. Invariant: the kept chunks are contiguous and end where the device was read to.
 */

import { Chunk, HEAD_ROOM } from '../../base/chunk.ts'
import { LIMITS } from '../../base/limits.ts'

/** The memory of a window that is no longer needed: fresh memory costs a page fault for each page. */
let spare: Buffer | undefined

const takeRing = (bytes: number): Buffer => {
  const ring = spare
  if (ring?.length !== bytes) return Buffer.allocUnsafeSlow(bytes)
  spare = undefined
  return ring
}

export class KeptWindow {
  /** Bytes read from the device. */
  end = 0n
  #ring: Buffer
  readonly #chunkBytes: number
  /** From the oldest on; those before `#oldest` are gone. */
  readonly #chunks: Chunk[] = []
  #oldest = 0
  /** Where in the ring the head room of the next chunk starts. */
  #next = 0

  /** Memory is taken as it is first used: a short session takes little. */
  constructor(bytes: number = LIMITS.sessionWindowBytes, chunkBytes: number = LIMITS.chunkBytes) {
    this.#ring = takeRing(bytes)
    this.#chunkBytes = chunkBytes
  }

  /** The first byte that is kept; `end` where none is. */
  get start(): bigint {
    return this.#chunks[this.#oldest]?.offset ?? this.end
  }

  /** Where the next read of the device goes; the chunks that lie there are no longer kept. */
  room(): Buffer {
    const needed = HEAD_ROOM + this.#chunkBytes
    if (this.#next + needed > this.#ring.length) {
      // What lies between here and the end of the ring is older than all that lies before.
      this.#drop(({ headRoom }) => headRoom > this.#next)
      this.#next = 0
    }
    const [from, to] = [this.#next, this.#next + needed]
    this.#drop(({ headRoom, length }) => headRoom + length > from && headRoom - HEAD_ROOM < to)
    return this.#ring.subarray(from + HEAD_ROOM, to)
  }

  /** Keep what the device put into the first bytes of the room. */
  keep(length: number): Chunk {
    const headRoom = this.#next + HEAD_ROOM
    const chunk = new Chunk({ buffer: this.#ring, headRoom, length, offset: this.end })
    this.#chunks.push(chunk)
    this.#next = headRoom + length
    this.end = chunk.end
    return chunk
  }

  /** The kept chunks from an offset on. They are valid until `room` is called. */
  *from(offset: bigint): Generator<Chunk, void> {
    for (let n = this.#oldest; n < this.#chunks.length; n += 1) {
      const chunk = this.#chunks[n] as Chunk
      if (chunk.end <= offset) continue
      yield chunk.offset >= offset ? chunk : tailOf(chunk, Number(offset - chunk.offset))
    }
  }

  /** Keep nothing any more. No transport may hold a chunk, for its memory is used again. */
  free(): void {
    if (this.#ring.length > 0) spare = this.#ring
    this.#ring = Buffer.alloc(0)
    this.#chunks.length = 0
    this.#oldest = 0
  }

  #drop(isGone: (chunk: Chunk) => boolean): void {
    let oldest = this.#chunks[this.#oldest]
    while (oldest !== undefined && isGone(oldest)) {
      this.#oldest += 1
      oldest = this.#chunks[this.#oldest]
    }
    if (this.#oldest < 1024) return
    this.#chunks.splice(0, this.#oldest)
    this.#oldest = 0
  }
}

/** The rest of a chunk, copied: framing it in place would overwrite bytes that are kept. */
function tailOf({ data, length, offset }: Chunk, skipped: number): Chunk {
  const buffer = Buffer.allocUnsafe(HEAD_ROOM + length - skipped)
  data.copy(buffer, HEAD_ROOM, skipped)
  return new Chunk({
    buffer,
    headRoom: HEAD_ROOM,
    length: length - skipped,
    offset: offset + BigInt(skipped),
  })
}
