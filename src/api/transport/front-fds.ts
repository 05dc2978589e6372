/**
 * Fds of clients, by way of their front: the front says that a packet came with a ticket, and sends its
 * fds when they are asked for. What it sends besides is closed, and ends it.
 */
import { setImmediate } from 'node:timers/promises'
import { ERRNO } from '../../base/errno.ts'
import { VfiodError } from '../../base/error.ts'
import type { FrameWriter } from '../../link/frame-writer.ts'
import { FROM_OWNER, LinkError } from '../../link/frames.ts'
import type { Answered } from '../../link/records.ts'
import { decodeTicket, LOST_A_PART } from '../../link/ticket-payload.ts'
import type { Channels } from '../../os/channels.ts'
import { wholePacket } from '../../os/client-fds.ts'
import type { SeqpacketConnection } from '../../os/fd-passing.ts'
import type { Disposal } from './disposal.ts'

/** A packet of the fd channel, as far as the owner knows it before it asks for its fds. */
export interface PacketHead {
  readonly ticket: string
  /** How many came with it; undefined where the packet lost a part. */
  readonly fds: number | undefined
  /** Takes the fds: the caller's to close. Rejects where the connection is closed before they come. */
  readonly want: () => Promise<readonly number[]>
  /** Sends the answer; the fds stay the caller's. */
  readonly answer: (reply: Buffer, fds: readonly number[]) => void
}

/** The packet of a connection that is not answered yet: there is one at a time. */
interface OpenPacket {
  readonly packet: number
  /** Set while its fds are asked for. */
  take: ((fds: readonly number[] | undefined) => void) | undefined
}

/** What names a packet beside its fds: its connection and its number, u32 each; a byte for each fd follows. */
const NAME_BYTES = 8

const closed = (): VfiodError =>
  new VfiodError('CANCELLED', 'Cannot take the fds: the connection is closed; connect again')

export class FrontFds {
  readonly #frames: FrameWriter
  readonly #packets: SeqpacketConnection
  readonly #uplink: SeqpacketConnection
  readonly #disposal: Disposal
  readonly #onLie: (why: string) => void
  /** By connection. */
  readonly #open = new Map<number, OpenPacket>()

  constructor(parts: {
    readonly frames: FrameWriter
    /** Answers that have fds go by one of its sockets, and fds come by the other. */
    readonly channels: Pick<Channels, 'packets' | 'uplink'>
    readonly disposal: Disposal
    /** Called where the front does not keep to the protocol. */
    readonly onLie: (why: string) => void
  }) {
    this.#frames = parts.frames
    this.#packets = parts.channels.packets
    this.#uplink = parts.channels.uplink
    this.#disposal = parts.disposal
    this.#uplink.closeFds = (fds) => this.#disposal.fds(fds)
    this.#onLie = parts.onLie
    void this.#receive()
  }

  /** A packet came; throws LinkError where it is malformed, or the last one is not answered. */
  head(connection: number, packet: number, payload: Buffer): PacketHead {
    const decoded = decodeTicket(payload)
    if (decoded === undefined) throw new LinkError('a ticket is malformed')
    if (this.#open.has(connection))
      throw new LinkError('a packet came before the last was answered')
    const open: OpenPacket = { packet, take: undefined }
    this.#open.set(connection, open)
    const about = { connection, call: packet }
    return {
      ticket: decoded.ticket,
      fds: decoded.fds === LOST_A_PART ? undefined : decoded.fds,
      want: () =>
        new Promise((resolve, reject) => {
          open.take = (fds) => {
            open.take = undefined
            if (fds === undefined) reject(closed())
            else resolve(fds)
          }
          const isAsked = this.#open.get(connection) === open
          if (!isAsked || !this.#frames.write(FROM_OWNER.want, about)) open.take(undefined)
        }),
      answer: (reply, fds) => {
        if (this.#open.get(connection) === open) this.#open.delete(connection)
        if (fds.length === 0) this.#frames.write(FROM_OWNER.answer, about, reply)
        else this.#answerWithFds({ connection, packet }, reply, fds)
      },
    }
  }

  /** The connection is closed. */
  forget(connection: number): void {
    const open = this.#open.get(connection)
    this.#open.delete(connection)
    open?.take?.(undefined)
  }

  close(): void {
    for (const socket of [this.#packets, this.#uplink]) this.#disposal.socket(socket.detach())
    for (const connection of [...this.#open.keys()]) this.forget(connection)
  }

  #answerWithFds(answerTo: Answered['answerTo'], reply: Buffer, fds: readonly number[]): void {
    const answered: Answered = { answerTo, reply: JSON.parse(reply.toString()) }
    const sent = this.#packets.send(Buffer.from(JSON.stringify(answered)), fds)
    if (sent < 0) this.#onLie('it does not take answers')
  }

  async #receive(): Promise<void> {
    for (;;) {
      // One packet in a turn of the event loop: others have theirs.
      await setImmediate()
      const packet = await this.#uplink.receive()
      if (packet === -ERRNO.EMSGSIZE) return this.#onLie('it sent more fds than a packet has')
      if (typeof packet === 'number' || packet.bytes.length === 0) return
      const { bytes, fds } = packet
      const take = this.#takerOf(bytes)
      const all = take && wholePacket(bytes.subarray(NAME_BYTES), fds)
      if (take !== undefined && all !== undefined) take(all)
      else {
        this.#disposal.fds(fds)
        this.#onLie('it broke the protocol: it sent fds that were not asked for, or are not wanted')
        return
      }
    }
  }

  #takerOf(bytes: Uint8Array): OpenPacket['take'] {
    if (bytes.length < NAME_BYTES) return undefined
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    const open = this.#open.get(view.getUint32(0, true))
    return open?.packet === view.getUint32(4, true) ? open.take : undefined
  }
}
