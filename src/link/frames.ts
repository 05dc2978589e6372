/**
 * What a front and the owner say to each other: frames on a stream socket, each about one connection
 * and mostly about one call of it. Both ends are of one version, started together.
 *
 *     | length u32 | kind u8 | connection u32 | call u32 | payload ... |
 *
 * Little endian; the length counts what follows it. The owner believes nothing of it: a frame that is
 * longer than its kind allows, or of a kind that only the other side sends, ends the front.
 */
import { LIMITS } from '../base/limits.ts'

/** From a front to the owner. */
export const FROM_FRONT = {
  /** The head of a call: its method, u16, by its place in the list of methods. */
  open: 1,
  /** The head of a call of a method that does not exist: the path. */
  openUnknown: 2,
  /** The one request of a call whose client sends no stream. */
  request: 10,
  /** One more message of a client stream. */
  message: 3,
  /** The same, where the message lies in a slot (slots.ts). */
  messageAt: 12,
  /** A slot of the owner is free: u8. */
  slotFree: 13,
  /** The answer to a ping. */
  pong: 14,
  /** The client stream ended. */
  end: 4,
  /** The client no longer wants the call. */
  cancel: 5,
  /** The client has taken one message of a server stream. */
  taken: 6,
  /** The connection is closed. */
  closed: 7,
  /** The client has shown a certificate: its name. */
  named: 8,
  /** A packet came on the fd channel: how many fds are with it, u16, and its ticket. */
  ticket: 11,
  /** A call that the front refused by itself, for the log: JSON of a `RefusedCall`. */
  refused: 9,
} as const

/** From the owner to a front. */
export const FROM_OWNER = {
  /** The one response of a call, which ends it. */
  reply: 65,
  /** One message of a server stream. */
  message: 66,
  /** The same, where the message lies in a slot (slots.ts). */
  messageAt: 77,
  /** A slot of the front is free: u8. */
  slotFree: 78,
  /** Whether the front still runs. */
  ping: 79,
  /** A server stream ended well. */
  done: 67,
  /** The call failed: a `Status`. */
  status: 68,
  /** One more message of the client stream is welcome. */
  credit: 69,
  /** Close the connection, as one of `HOW_TO_CLOSE` says: u8. */
  close: 70,
  /** Whether health checks answer SERVING: u8. */
  serving: 71,
  /** Every call of the connection is refused: a `Status`. */
  refuse: 74,
  /** The fds of a packet are to be sent, with the number of its connection and its own. */
  want: 75,
  /** The answer to a packet, where no fds go with it: JSON. */
  answer: 76,
  /** JSON of the certificates to serve remote clients with. */
  certificates: 72,
  /** Close every connection, in order, and end. */
  end: 73,
} as const

export const HOW_TO_CLOSE = {
  /** Calls that are under way are answered before. */
  afterAnswers: 0,
  atOnce: 1,
  /** Its calls come too fast: HTTP/2's ENHANCE_YOUR_CALM. */
  tooFast: 2,
} as const

export type HowToClose = (typeof HOW_TO_CLOSE)[keyof typeof HOW_TO_CLOSE]

export type FrameKind =
  | (typeof FROM_FRONT)[keyof typeof FROM_FRONT]
  | (typeof FROM_OWNER)[keyof typeof FROM_OWNER]

/** Bytes of a frame before its payload, the length included. */
export const HEADER = 13

/** Bytes of a payload that is not a message: a path, a status with its details, certificates. */
const SMALL = 64 << 10
const LARGE_KINDS: ReadonlySet<number> = new Set([
  FROM_FRONT.request,
  FROM_FRONT.message,
  FROM_OWNER.reply,
  FROM_OWNER.message,
])

/** Bytes that the payload of a frame may have; of a kind that does not exist, none. */
const payloadMax = (kind: number): number => (LARGE_KINDS.has(kind) ? LIMITS.messageBytes : SMALL)

export interface Frame {
  readonly kind: number
  readonly connection: number
  readonly call: number
  /** A view of bytes that belong to the frame. */
  readonly payload: Buffer
}

/** The bytes of a frame that stand before its payload. */
export const header = (
  kind: FrameKind,
  { connection, call = 0 }: { readonly connection: number; readonly call?: number },
  payloadLength: number,
): Buffer => {
  const bytes = Buffer.allocUnsafe(HEADER)
  bytes.writeUInt32LE(HEADER - 4 + payloadLength, 0)
  bytes.writeUInt8(kind, 4)
  bytes.writeUInt32LE(connection, 5)
  bytes.writeUInt32LE(call, 9)
  return bytes
}

/** The other end does not keep to this file. */
export class LinkError extends Error {}

const always = (): boolean => true

/** Takes a stream of bytes apart. Each frame is given as soon as it is whole. */
export class FrameReader {
  readonly #kinds: ReadonlySet<number>
  readonly #give: (frame: Frame) => void
  /** What of the next frame is there. */
  #parts: Buffer[] = []
  #length = 0

  /** Of the kinds that the other end may send. */
  constructor(kinds: Readonly<Record<string, number>>, give: (frame: Frame) => void) {
    this.#kinds = new Set(Object.values(kinds))
    this.#give = give
  }

  /** Bytes that wait for the rest of their frame. */
  get pending(): number {
    return this.#length
  }

  /**
   * Gives the frames that are whole with these bytes, while `goesOn` says so before each; answers whether it
   * gave all of them. Throws LinkError.
   */
  push(bytes: Buffer, goesOn: () => boolean = always): boolean {
    if (bytes.length > 0) this.#parts.push(bytes)
    this.#length += bytes.length
    while (this.#length >= HEADER) {
      const head = this.#gather(HEADER)
      const length = this.#check(head)
      if (this.#length < length + 4) return true
      if (!goesOn()) return false
      const whole = this.#gather(length + 4)
      this.#skip(length + 4)
      this.#give({
        kind: whole.readUInt8(4),
        connection: whole.readUInt32LE(5),
        call: whole.readUInt32LE(9),
        payload: whole.subarray(HEADER, length + 4),
      })
    }
    return true
  }

  /** The length that the head says, when a frame of its kind may have it. */
  #check(head: Buffer): number {
    const length = head.readUInt32LE(0)
    const kind = head.readUInt8(4)
    if (!this.#kinds.has(kind)) throw new LinkError(`a frame of kind ${kind} was sent`)
    const payload = length - (HEADER - 4)
    if (payload < 0 || payload > payloadMax(kind))
      throw new LinkError(`a frame of kind ${kind} has a payload of ${payload} bytes`)
    return length
  }

  /** The first bytes of what is there, in one piece; copied only where they lie in several. */
  #gather(length: number): Buffer {
    const [first] = this.#parts
    if (first !== undefined && first.length >= length) return first
    let size = 0
    let count = 0
    for (const part of this.#parts) {
      size += part.length
      count += 1
      if (size >= length) break
    }
    const joined = Buffer.concat(this.#parts.slice(0, count), size)
    this.#parts.splice(0, count, joined)
    return joined
  }

  #skip(length: number): void {
    const first = this.#parts[0] as Buffer
    this.#length -= length
    if (first.length === length) this.#parts.shift()
    else this.#parts[0] = first.subarray(length)
  }
}
