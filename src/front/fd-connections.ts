/**
 * Connections of the fd channel, as far as a client's bytes and fds go: packets are taken here, a ticket is
 * told to the owner, and the fds that came with it wait here until the owner asks for them. What a client
 * sends may be of a file system that it serves itself, and closing it may take as long as that client
 * likes: it is closed here, and the owner never sees it.
 */
import { setImmediate } from 'node:timers/promises'
import { ERRNO } from '../base/errno.ts'
import { FROM_FRONT } from '../link/frames.ts'
import { encodeTicket, LOST_A_PART } from '../link/ticket-payload.ts'
import { sortFds } from '../os/client-fds.ts'
import { type Packet, SeqpacketConnection } from '../os/fd-passing.ts'
import { closeAll } from '../os/unix-socket.ts'
import type { OwnerLink } from './owner-link.ts'

interface Waiting {
  readonly packet: number
  readonly fds: readonly number[]
  /** The next packet of the connection is taken when this one is answered. */
  answered(reply: Uint8Array | undefined, fds: readonly number[]): void
}

interface FdConnection {
  readonly connection: SeqpacketConnection
  waiting?: Waiting
}

export class FdConnections {
  readonly #link: OwnerLink
  /** Where the owner takes fds. */
  readonly #uplink: SeqpacketConnection
  readonly #connections = new Map<number, FdConnection>()

  constructor(link: OwnerLink, uplink: SeqpacketConnection) {
    this.#link = link
    this.#uplink = uplink
  }

  /** Serves a connection until it ends; resolves then. */
  async serve(id: number, fd: number): Promise<void> {
    const open: FdConnection = { connection: new SeqpacketConnection(fd) }
    this.#connections.set(id, open)
    try {
      for (let packet = 1; ; packet += 1) {
        // One packet in a turn of the event loop: a peer that never stops sending is not alone.
        await setImmediate()
        const received = await open.connection.receive()
        if (received !== -ERRNO.EMSGSIZE) {
          if (typeof received === 'number') return
          if (received.bytes.length === 0) return await closeAll(received.fds)
        }
        if (!(await this.#ask(id, open, packet, received))) return
      }
    } finally {
      this.close(id)
    }
  }

  /** The owner wants the fds of a packet. */
  want(id: number, packet: number): void {
    const waiting = this.#waitingOf(id, packet)
    if (waiting === undefined) return
    const { kinds, taken } = sortFds(waiting.fds)
    const names = new Uint8Array(new Uint32Array([id, packet]).buffer)
    this.#uplink.send(Buffer.concat([names, kinds]), taken)
  }

  /** The owner's answer to a packet; the fds stay the caller's. */
  answer(id: number, packet: number, reply: Uint8Array, fds: readonly number[] = []): void {
    this.#waitingOf(id, packet)?.answered(reply, fds)
  }

  close(id: number): void {
    const open = this.#connections.get(id)
    this.#connections.delete(id)
    open?.connection.close()
    open?.waiting?.answered(undefined, [])
  }

  #waitingOf(id: number, packet: number): Waiting | undefined {
    const waiting = this.#connections.get(id)?.waiting
    return waiting?.packet === packet ? waiting : undefined
  }

  /** Tells the owner of a packet and sends its answer on; false where the peer does not take it. */
  async #ask(
    id: number,
    open: FdConnection,
    packet: number,
    received: Packet | number,
  ): Promise<boolean> {
    const { bytes, fds } = typeof received === 'number' ? NOTHING : received
    const answered = new Promise<boolean>((resolve) => {
      open.waiting = {
        packet,
        fds,
        answered: (reply, sent) => {
          delete open.waiting
          resolve(reply !== undefined && open.connection.send(reply, sent) >= 0)
        },
      }
    })
    const count = typeof received === 'number' ? LOST_A_PART : fds.length
    this.#link.send(FROM_FRONT.ticket, { connection: id, call: packet }, encodeTicket(count, bytes))
    const isTaken = await answered
    await closeAll(fds)
    return isTaken
  }
}

const NOTHING = { bytes: new Uint8Array(), fds: [] } as const
