/** Frames into a pipe: those of one turn of the event loop go out together. */
import type { Socket } from 'node:net'
import { type FrameKind, header } from './frames.ts'

/** Payloads below this are copied behind their header. */
const JOINED_MAX = 16 << 10

const EMPTY = Buffer.alloc(0)

/** A connection, and a call of it where the frame is about one. */
export interface FrameAbout {
  readonly connection: number
  readonly call?: number
}

export class FrameWriter {
  readonly #socket: Socket
  #isCorked = false

  constructor(socket: Socket) {
    this.#socket = socket
  }

  /** Bytes that the other end has not taken. */
  get backlog(): number {
    return this.#socket.writableLength
  }

  /**
   * Writes a frame; `sent` is called when the bytes of the payload may be used again. Answers false where
   * the pipe is closed: nothing is called then.
   */
  write(kind: FrameKind, about: FrameAbout, payload: Buffer = EMPTY, sent?: () => void): boolean {
    const socket = this.#socket
    if (socket.destroyed) return false
    if (!this.#isCorked) {
      this.#isCorked = true
      socket.cork()
      process.nextTick(() => {
        this.#isCorked = false
        socket.uncork()
      })
    }
    const head = header(kind, about, payload.length)
    // Of a socket that fails the callback comes with the error.
    if (payload.length < JOINED_MAX) socket.write(Buffer.concat([head, payload]), sent)
    else {
      socket.write(head)
      socket.write(payload, sent)
    }
    return true
  }
}
