/**
 * The state of a device as chunks to send, from any byte that may not have arrived: the last ones are
 * kept, for a pipe cannot be read twice.
 */
import { Chunk, HEAD_ROOM } from '../base/chunk.ts'
import { LIMITS } from '../base/limits.ts'
import { CliError } from './failure.ts'

/** As many chunks as can be in flight: 16 MiB. */
const KEPT = 16

export class KeptInput {
  readonly #read: (into: Buffer) => Promise<number>
  readonly #onRead: (data: Buffer) => void
  /** Contiguous, the last that was read at the end. */
  readonly #chunks: Chunk[] = []
  #end = 0n
  #reading: Promise<boolean> | undefined

  /**
   * @param read fills the start of a buffer; answers how many bytes, and 0 at the end
   * @param onRead is given all bytes once, in order
   */
  constructor(read: (into: Buffer) => Promise<number>, onRead: (data: Buffer) => void) {
    this.#read = read
    this.#onRead = onRead
  }

  /** Chunks from an offset on. A chunk has been sent when the next one is asked for. */
  async *from(offset: bigint): AsyncGenerator<Chunk, void> {
    const kept = this.#chunks[0]?.offset ?? this.#end
    if (offset < kept) {
      throw new CliError(
        `Cannot continue writing the state from byte ${offset}: the bytes up to ${kept} are no longer available`,
      )
    }
    for (let at = offset; ; ) {
      const chunk = this.#chunks.find(({ end }) => end > at)
      if (chunk !== undefined) {
        yield restOf(chunk, Number(at - chunk.offset))
        at = chunk.end
      } else if (!(await this.#more())) return
    }
  }

  /** One read at a time: the sender of a call that is over may wait for it still. */
  #more(): Promise<boolean> {
    this.#reading ??= this.#take().finally(() => {
      this.#reading = undefined
    })
    return this.#reading
  }

  async #take(): Promise<boolean> {
    const oldest = this.#chunks.length === KEPT ? this.#chunks.shift() : undefined
    const buffer = oldest?.buffer ?? Buffer.allocUnsafeSlow(HEAD_ROOM + LIMITS.chunkBytes)
    const length = await this.#read(buffer.subarray(HEAD_ROOM))
    if (length === 0) return false
    const chunk = new Chunk({ buffer, headRoom: HEAD_ROOM, length, offset: this.#end })
    this.#onRead(chunk.data)
    this.#chunks.push(chunk)
    this.#end = chunk.end
    return true
  }
}

/** The rest of a chunk. It is framed over the bytes before it, which have arrived. */
const restOf = ({ buffer, headRoom, length, offset }: Chunk, skipped: number): Chunk =>
  new Chunk({
    buffer,
    headRoom: headRoom + skipped,
    length: length - skipped,
    offset: offset + BigInt(skipped),
  })
