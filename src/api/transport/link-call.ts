/** A call whose messages come and go as frames of a link. */

import type { VfiodError } from '../../base/error.ts'
import { FROM_OWNER, type FrameKind } from '../../link/frames.ts'
import { encodeStatusFrame } from '../../link/status-frame.ts'
import { toStatusObject } from '../../wire/status.ts'
import { DETAILS_KEY } from '../../wire/status-details.ts'
import type { IncomingCall } from '../call/incoming-call.ts'

/** Messages of a client stream that may come before one is taken. */
export const UPLOAD_MESSAGES = 2

/** Messages of a server stream that the client may be behind. */
const DOWNLOAD_MESSAGES = 2

/** What a call does to its link. */
export interface CallLink {
  write(kind: FrameKind, payload?: Buffer): void
  /** One message of a server stream; resolves when its bytes may be used again. */
  sendMessage(message: Buffer): Promise<void>
  /** No more frames of the call go out. */
  ended(): void
}

const EMPTY = Buffer.alloc(0)

/** What a front answers a call with that was refused. */
export const statusPayload = (error: VfiodError): Buffer => {
  const { code, details: message, metadata } = toStatusObject(error)
  const [details = ''] = metadata.get(DETAILS_KEY)
  return encodeStatusFrame(code, message, Buffer.from(details))
}

export class LinkCall implements IncomingCall {
  readonly connection: string
  #request: Buffer | undefined
  readonly #link: CallLink
  readonly #received: Buffer[] = []
  readonly #untaken: (() => void)[] = []
  #hasEnded = false
  #isCancelled = false
  #isAnswered = false
  #onCancelled: (() => void) | undefined
  /** Wakes what waits for a message, or for one to be taken. */
  #wake: () => void = () => {}
  #wakeSender: () => void = () => {}

  constructor(link: CallLink, connection: string) {
    this.#link = link
    this.connection = connection
  }

  get request(): Buffer {
    return this.#request ?? EMPTY
  }

  /** The one request of the call has come; answers false for a second one. */
  requested(request: Buffer): boolean {
    const isFirst = this.#request === undefined
    this.#request ??= request
    return isFirst
  }

  async *requests(signal: AbortSignal): AsyncGenerator<Buffer, void> {
    const wake = () => this.#wake()
    signal.addEventListener('abort', wake)
    try {
      while (!signal.aborted) {
        const bytes = this.#received.shift()
        if (bytes !== undefined) {
          yield bytes
          if (!this.#isAnswered) this.#link.write(FROM_OWNER.credit)
        } else if (this.#hasEnded) return
        else await new Promise<void>((resolve) => (this.#wake = resolve))
      }
    } finally {
      signal.removeEventListener('abort', wake)
    }
  }

  onCancelled(listener: () => void): void {
    this.#onCancelled = listener
    if (this.#isCancelled) listener()
  }

  reply(response: Buffer): void {
    this.#answer(FROM_OWNER.reply, response)
  }

  async send(message: Buffer, taken: () => void): Promise<void> {
    if (this.#isAnswered || this.#isCancelled) return
    this.#untaken.push(taken)
    await this.#link.sendMessage(message)
    while (this.#untaken.length >= DOWNLOAD_MESSAGES && !this.#isCancelled)
      await new Promise<void>((resolve) => (this.#wakeSender = resolve))
  }

  done(): void {
    this.#answer(FROM_OWNER.done, EMPTY)
  }

  refuse(error: VfiodError): void {
    this.#answer(FROM_OWNER.status, statusPayload(error))
  }

  /** One more message of the client stream; answers false where it may not come yet, or not at all. */
  received(message: Buffer): boolean {
    if (this.#hasEnded || this.#received.length >= UPLOAD_MESSAGES) return false
    this.#received.push(message)
    this.#wake()
    return true
  }

  /** The client stream has ended. */
  end(): void {
    this.#hasEnded = true
    this.#wake()
  }

  /** The client has taken a message; answers false where there was none. */
  taken(): boolean {
    const taken = this.#untaken.shift()
    taken?.()
    this.#wakeSender()
    return taken !== undefined
  }

  cancel(): void {
    if (this.#isAnswered || this.#isCancelled) return
    this.#isCancelled = true
    // One that waits for its request is served by no handler.
    if (this.#onCancelled === undefined) this.#link.ended()
    else this.#onCancelled()
    this.#wake()
    this.#wakeSender()
  }

  #answer(kind: FrameKind, payload: Buffer): void {
    if (this.#isAnswered) return
    this.#isAnswered = true
    if (!this.#isCancelled) this.#link.write(kind, payload)
    this.#link.ended()
  }
}
