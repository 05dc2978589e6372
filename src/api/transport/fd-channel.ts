/**
 * The fd channel: file descriptors for what gRPC can only talk about. A packet is the text of a
 * ticket, with fds where the ticket is for sending; the answer is one packet of JSON, with fds where
 * it is for receiving. Who sends must be the client that the ticket was given to.
 *
 * Nothing a peer sends can do more than be refused: every fd of a refused packet is closed, and a
 * peer that does not take its answer loses its connection.
 */
import { setImmediate } from 'node:timers/promises'
import { status } from '@grpc/grpc-js'
import { ERRNO, errnoName } from '../../base/errno.ts'
import { badArgument, VfiodError } from '../../base/error.ts'
import { LIMITS } from '../../base/limits.ts'
import type { Client } from '../../domain/identity/clients.ts'
import type { Redeemed, TicketPurpose } from '../../domain/identity/tickets.ts'
import { ownerText } from '../../domain/state/owner.ts'
import {
  connectSeqpacket,
  type Packet,
  type SeqpacketConnection,
  SeqpacketListener,
} from '../../os/fd-passing.ts'
import { POLLHUP, pendingEvents } from '../../os/libc.ts'
import { closeAll, listenUnix, SOCK_SEQPACKET } from '../../os/unix-socket.ts'
import { MESSAGE_MAX, sendable } from '../../wire/status-details.ts'
import type { Method } from '../call/outcome.ts'
import type { Pipeline } from '../call/pipeline.ts'
import { STATUS, toVfiodError } from '../call/status.ts'
import type { Log } from '../identity/log.ts'
import type { LocalPeer, Peers } from '../identity/peers.ts'
import { type Admission, REFUSED_MS } from './admission.ts'
import type { Binder } from './socket-file.ts'

/** Open connections of one client, beside the quota of its identity; each is for one ticket. */
const CONNECTIONS_PER_CLIENT = 32n

/** Longer than any ticket: what is longer cannot be one. */
const TICKET_LENGTH_MAX = 256

/** Every packet is this: what it does is said by its ticket. */
const REDEEM: Method = {
  name: 'fd-channel/redeem',
  isEndless: false,
  policy: { role: 'operate', isAudited: true, maxBytes: TICKET_LENGTH_MAX },
}

/** A client uses the tickets that it was given; who guesses loses the connection. */
const REFUSALS_PER_CONNECTION = 4

export const fdChannelBinder: Binder<SeqpacketListener> = {
  bind: async (path) => {
    const fd = listenUnix(SOCK_SEQPACKET, path)
    if (fd < 0) throw new Error(`Cannot listen on ${path}: ${errnoName(-fd)}`)
    return new SeqpacketListener(fd)
  },
  answers: async (path) => {
    const connection = connectSeqpacket(path)
    if (typeof connection === 'number') return connection === -ERRNO.EAGAIN
    connection.close()
    return true
  },
}

/** The other end of a connection, or why it is served its refusal only. */
type FdPeer = LocalPeer | VfiodError

export interface FdChannelParts {
  readonly peers: Peers
  readonly admission: Admission
  readonly pipeline: Pipeline
  /** What a ticket of the client is for. */
  readonly purposeOf: (client: Client, ticket: string) => TicketPurpose | undefined
  readonly redeem: (client: Client, ticket: string, fds: readonly number[]) => Promise<Redeemed>
  readonly log: Log
}

export class FdChannel {
  readonly #parts: FdChannelParts
  readonly #listener: SeqpacketListener
  readonly #connections = new Map<SeqpacketConnection, FdPeer>()

  constructor(listener: SeqpacketListener, parts: FdChannelParts) {
    this.#listener = listener
    this.#parts = parts
    const answer = listener.onConnection((connection) => this.#accept(connection))
    if (answer < 0) throw new Error(`Cannot accept fd channel connections: ${errnoName(-answer)}`)
  }

  /** Takes no new connections; those there are go on. */
  stopAccepting(): void {
    this.#listener.close()
  }

  close(): void {
    this.#listener.close()
    for (const connection of this.#connections.keys()) connection.close()
  }

  #accept(connection: SeqpacketConnection): void {
    const { peers, admission, log } = this.#parts
    const admitted = admission.admit(peers.payerOf(connection.fd))
    if (admitted === undefined) {
      connection.close()
      return
    }
    const peer = admitted.refusal ?? this.#peerAt(connection)
    if (peer === undefined) {
      admitted.leave()
      connection.close()
      return
    }
    if (peer instanceof VfiodError)
      log.warn({ refusal: peer.message }, 'fd channel connection refused')
    this.#connections.set(connection, peer)
    void this.#serve(connection, peer).finally(admitted.leave)
  }

  /** The other end, or why it is served its refusal only; undefined where it has hung up. */
  #peerAt(connection: SeqpacketConnection): FdPeer | undefined {
    if (pendingEvents(connection.fd, POLLHUP) > 0) return undefined
    const peer = this.#parts.peers.at(connection.fd)
    const client = peer?.client
    if (client === undefined) return peer
    let open = 0n
    for (const other of this.#connections.values())
      if (!(other instanceof VfiodError) && other.client?.id === client.id) open += 1n
    return open < CONNECTIONS_PER_CLIENT ? peer : tooManyOf(client, open)
  }

  async #serve(connection: SeqpacketConnection, peer: FdPeer): Promise<void> {
    const isRefused = peer instanceof VfiodError
    // A connection is for a ticket that is there; one that sends nothing is closed when none can be.
    const idle = setTimeout(() => connection.close(), isRefused ? REFUSED_MS : LIMITS.ticketMs)
    idle.unref()
    let refused = 0
    try {
      for (;;) {
        // One packet in a turn of the event loop: a peer that never stops sending is not alone.
        await setImmediate()
        const packet = await connection.receive()
        if (packet !== -ERRNO.EMSGSIZE) {
          if (typeof packet === 'number') return
          if (packet.bytes.length === 0) return await closeAll(packet.fds)
        }
        idle.refresh()
        const answered = await this.#answer(connection, peer, packet)
        if (answered === 'not taken' || isRefused) return
        refused += answered === 'refused' ? 1 : 0
        if (refused === REFUSALS_PER_CONNECTION) return
      }
    } catch (error) {
      this.#parts.log.error({ err: error }, 'fd channel connection failed by a mistake')
    } finally {
      clearTimeout(idle)
      this.#connections.delete(connection)
      connection.close()
      if (!isRefused) peer.disconnected()
    }
  }

  /** Answers one packet. */
  async #answer(
    connection: SeqpacketConnection,
    peer: FdPeer,
    packet: Packet | number,
  ): Promise<'done' | 'refused' | 'not taken'> {
    const outcome = await this.#redeem(peer, packet)
    if (outcome instanceof VfiodError) {
      const received = typeof packet === 'number' ? [] : packet.fds
      await closeAll(received)
      const { reason, message } = outcome
      const refusal = { ok: false, status: status[STATUS[reason]], reason }
      const text = sendable(message, MESSAGE_MAX)
      const sent = connection.send(json({ ...refusal, message: text }))
      return sent < 0 ? 'not taken' : 'refused'
    }
    const answer = connection.send(json({ ok: true, ...outcome.reply }), outcome.fds)
    await closeAll(outcome.fds)
    return answer < 0 ? 'not taken' : 'done'
  }

  /** What the domain made of the packet: it has taken over the fds unless it refused. */
  async #redeem(peer: FdPeer, packet: Packet | number): Promise<Redeemed | VfiodError> {
    const { pipeline, redeem, purposeOf } = this.#parts
    if (peer instanceof VfiodError) return peer
    let about: object = {}
    const asked = {
      method: REDEEM,
      peer: () => peer,
      connection: REDEEM.name,
      abort: new AbortController(),
      object: () => ({ ...about, fds: typeof packet === 'number' ? 0 : packet.fds.length }),
      holdsLease: true,
    }
    try {
      pipeline.admit(REDEEM, asked.peer)
      return await pipeline.run(asked, ({ client }) => {
        if (typeof packet === 'number')
          throw badArgument('fd', `Cannot accept the packet: ${TOO_LARGE}; send less`)
        const ticket = Buffer.from(packet.bytes).toString('latin1', 0, TICKET_LENGTH_MAX)
        const purpose = purposeOf(client, ticket)
        if (purpose !== undefined) about = { act: purpose.act, ...purpose.object }
        return redeem(client, ticket, packet.fds)
      })
    } catch (error) {
      return toVfiodError(error)
    }
  }
}

const tooManyOf = (client: Client, current: bigint): VfiodError =>
  new VfiodError(
    'LIMIT_REACHED',
    `Cannot accept the packet: ${ownerText(client)} has ${current} connections to the fd channel and may have ${CONNECTIONS_PER_CLIENT}; close some`,
    {
      quota: {
        limit: 'fd channel connections of one client',
        max: CONNECTIONS_PER_CLIENT,
        current,
        needed: 1n,
      },
    },
  )

const TOO_LARGE = `it is longer than a packet may be or has more than ${LIMITS.fdsPerPacket} fds`

const json = (value: object): Uint8Array => Buffer.from(JSON.stringify(value))
