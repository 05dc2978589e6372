/**
 * The fd channel: file descriptors for what gRPC can only talk about. A packet is the text of a
 * ticket, with fds where the ticket is for sending; the answer is one packet of JSON, with fds where
 * it is for receiving. Who sends must be the client that the ticket was given to.
 *
 * Nothing a peer sends can do more than be refused: every fd of a refused packet is closed, and a
 * peer that does not take its answer loses its connection.
 */
import { status } from '@grpc/grpc-js'
import { ERRNO, errnoName } from '../../base/errno.ts'
import { badArgument, VfiodError } from '../../base/error.ts'
import { LIMITS } from '../../base/limits.ts'
import type { Client } from '../../domain/identity/clients.ts'
import type { Redeemed, TicketPurpose } from '../../domain/identity/tickets.ts'
import { ownerText } from '../../domain/state/owner.ts'
import { LinkError } from '../../link/frames.ts'
import { TICKET_LENGTH_MAX } from '../../link/ticket-payload.ts'
import { Deadline } from '../../os/deadline.ts'
import { connectSeqpacket, SeqpacketListener } from '../../os/fd-passing.ts'
import { POLLHUP, pendingEvents } from '../../os/libc.ts'
import { closeAll, listenUnix, SOCK_SEQPACKET } from '../../os/unix-socket.ts'
import { STATUS, toVfiodError } from '../../wire/status.ts'
import { MESSAGE_MAX, sendable } from '../../wire/status-details.ts'
import type { Method } from '../call/outcome.ts'
import type { Pipeline } from '../call/pipeline.ts'
import type { LocalPeer } from '../identity/local-peer.ts'
import type { Log } from '../identity/log.ts'
import type { Peers } from '../identity/peers.ts'
import { type Admission, REFUSED_MS } from './admission.ts'
import type { Disposal } from './disposal.ts'
import type { PacketHead } from './front-fds.ts'
import type { Fronts, GivenTo } from './fronts.ts'
import type { Binder } from './socket-file.ts'

/** Open connections of one client, beside the quota of its identity; each is for one ticket. */
const CONNECTIONS_PER_CLIENT = 32n

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
  readonly fronts: Fronts
  readonly disposal: Disposal
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
  readonly #peers = new Set<FdPeer>()
  #isClosed = false

  constructor(listener: SeqpacketListener, parts: FdChannelParts) {
    this.#listener = listener
    this.#parts = parts
    const answer = listener.onConnection((connection) => void this.#accept(connection.fd))
    if (answer < 0) throw new Error(`Cannot accept fd channel connections: ${errnoName(-answer)}`)
  }

  /** Takes no new connections; those there are go on. */
  stopAccepting(): void {
    this.#isClosed = true
    this.#parts.disposal.listening(this.#listener.fd)
    this.#listener.close()
  }

  async #accept(fd: number): Promise<void> {
    const { peers, admission, log, fronts, disposal } = this.#parts
    const payer = peers.payerOf(fd)
    const admitted = admission.admit(payer)
    const peer = admitted && (admitted.refusal ?? (await this.#peerAt(fd)))
    if (admitted === undefined || peer === undefined || this.#isClosed) {
      if (peer !== undefined && !(peer instanceof VfiodError)) peer.disconnected()
      admitted?.leave()
      disposal.socket(fd)
      return
    }
    if (peer instanceof VfiodError)
      log.warn({ refusal: peer.message }, 'fd channel connection refused')
    this.#peers.add(peer)
    const [id, key] = [fronts.nextId(), fronts.keyOf(payer)]
    const isRefused = peer instanceof VfiodError
    let served: GivenTo | undefined
    const close = () => served?.close(true)
    // A connection is for a ticket that is there; one that sends nothing is closed when none can be.
    const idleMs = isRefused ? REFUSED_MS : LIMITS.ticketMs
    const idle = new Deadline(idleMs, close)
    let refused = 0
    const given = { connection: id, account: payer.account } as const
    const owned = {
      token: `fd channel:${id}`,
      state: () => ({ peer: isRefused ? undefined : peer, refusal: undefined }),
      closed: () => {
        idle.cancel()
        this.#peers.delete(peer)
        admitted.leave()
        if (!isRefused) peer.disconnected()
      },
      named: () => {
        throw new LinkError('a connection of the fd channel was given a name')
      },
      ticket: (head: PacketHead) => {
        idle.renew(idleMs)
        void this.#answer(peer, head).then((isDone) => {
          refused += isDone ? 0 : 1
          if (isRefused || refused === REFUSALS_PER_CONNECTION) close()
        })
      },
    }
    served = fronts.give(key, { ...given, speaks: 'packets' }, owned, fd)
  }

  /** The other end, or why it is served its refusal only; undefined where it has hung up. */
  async #peerAt(fd: number): Promise<FdPeer | undefined> {
    if (pendingEvents(fd, POLLHUP) > 0) return undefined
    const peer = this.#parts.peers.at(fd)
    await peer?.settled()
    const client = peer?.client
    if (client === undefined) return peer
    let open = 0n
    for (const other of this.#peers)
      if (!(other instanceof VfiodError) && other.client?.id === client.id) open += 1n
    return open < CONNECTIONS_PER_CLIENT ? peer : tooManyOf(client, open)
  }

  /** Answers one packet; false where it was refused. */
  async #answer(peer: FdPeer, head: PacketHead): Promise<boolean> {
    const outcome = await this.#redeem(peer, head)
    if (outcome instanceof VfiodError) {
      const { reason, message } = outcome
      const refusal = { ok: false, status: status[STATUS[reason]], reason }
      head.answer(json({ ...refusal, message: sendable(message, MESSAGE_MAX) }), [])
      return false
    }
    head.answer(json({ ok: true, ...outcome.reply }), outcome.fds)
    await closeAll(outcome.fds)
    return true
  }

  /** What the domain made of the packet: it has taken over the fds unless it refused. */
  async #redeem(peer: FdPeer, head: PacketHead): Promise<Redeemed | VfiodError> {
    const { pipeline, redeem, purposeOf } = this.#parts
    if (peer instanceof VfiodError) return peer
    let about: object = {}
    const asked = {
      method: REDEEM,
      peer: () => peer,
      connection: REDEEM.name,
      abort: new AbortController(),
      object: () => ({ ...about, fds: head.fds ?? 0 }),
      holdsLease: true,
    }
    let fds: readonly number[] = []
    try {
      pipeline.admit(REDEEM, asked.peer)
      return await pipeline.run(asked, async ({ client }) => {
        if (head.fds === undefined)
          throw badArgument('fd', `Cannot accept the packet: ${TOO_LARGE}; send less`)
        const purpose = purposeOf(client, head.ticket)
        if (purpose !== undefined) about = { act: purpose.act, ...purpose.object }
        // Fds are taken only with a ticket.
        if (purpose !== undefined && head.fds > 0) fds = await head.want()
        return redeem(client, head.ticket, fds)
      })
    } catch (error) {
      // Of kinds that tickets are for, or stand-ins for others: their close does not sleep.
      await closeAll(fds)
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

const json = (value: object): Buffer => Buffer.from(JSON.stringify(value))
