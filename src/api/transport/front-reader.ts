/**
 * Reads the frames of a front: for a few milliseconds in each turn of the event loop, so that others have
 * theirs, and not at all while the front does not take what it is sent.
 */

import type { FrameWriter } from '../../link/frame-writer.ts'
import { FROM_FRONT, type Frame, FrameReader, LinkError } from '../../link/frames.ts'
import type { Channels } from '../../os/channels.ts'
import { Deadline } from '../../os/deadline.ts'

/** Bytes that the front has not taken; beyond them no frame of it is read. */
const BACKLOG = 32 << 20

/** How long a front may leave them untaken. */
const STUCK_MS = 30_000

/** How long its frames may take in one turn; the clock is asked for every few of them. */
const TURN_MS = 5
const FRAMES_UNTIMED = 16

const EMPTY = Buffer.alloc(0)

export class FrontReader {
  readonly #incoming: Channels['incoming']
  readonly #writer: FrameWriter
  readonly #end: (why: string) => void
  readonly #frames: FrameReader
  #stuck: Deadline | undefined
  /** Frames that were read wait for the next turn. */
  #isBehind = false
  #hasEnded = false

  /** `end` is called where the front breaks the protocol, or takes nothing; it is to call `close`. */
  constructor(
    { incoming, outgoing }: Pick<Channels, 'incoming' | 'outgoing'>,
    parts: {
      readonly writer: FrameWriter
      readonly take: (frame: Frame) => void
      readonly end: (why: string) => void
    },
  ) {
    this.#incoming = incoming
    this.#writer = parts.writer
    this.#end = parts.end
    this.#frames = new FrameReader(FROM_FRONT, parts.take)
    incoming.on('data', (bytes) => this.#push(bytes))
    outgoing.on('drain', () => this.#drained())
  }

  close(): void {
    this.#hasEnded = true
    this.#stuck?.cancel()
  }

  #push(bytes: Buffer): void {
    if (this.#hasEnded) return
    const over = performance.now() + TURN_MS
    let frames = 0
    const goesOn = () => {
      frames += 1
      return frames % FRAMES_UNTIMED !== 0 || performance.now() < over
    }
    try {
      this.#isBehind = !this.#frames.push(bytes, goesOn)
    } catch (error) {
      if (!(error instanceof LinkError)) throw error
      this.#end(`it broke the protocol: ${error.message}`)
      return
    }
    if (this.#isBehind) {
      this.#incoming.pause()
      setImmediate(() => this.#push(EMPTY))
    } else if (this.#stuck === undefined) this.#readOn()
  }

  #readOn(): void {
    if (this.#writer.backlog < BACKLOG) {
      this.#incoming.resume()
      return
    }
    this.#incoming.pause()
    this.#stuck = new Deadline(STUCK_MS, () => this.#end('it does not take answers'))
  }

  #drained(): void {
    if (this.#hasEnded) return
    this.#stuck?.cancel()
    this.#stuck = undefined
    if (!this.#isBehind) this.#readOn()
  }
}
