/**
 * Connections: accepted and identified here, by the kernel's word, and then given to a front, which is
 * what reads from them. Calls find their client through the connection they came by.
 */
import {
  connect as connectSocket,
  createServer,
  type Server as NetServer,
  type Socket,
} from 'node:net'
import { VfiodError } from '../../base/error.ts'
import { LinkError } from '../../link/frames.ts'
import { Deadline } from '../../os/deadline.ts'
import { POLLHUP, POLLRDHUP, pendingEvents, sys } from '../../os/libc.ts'
import type { CallRules, Served } from '../call/call.ts'
import type { Pipeline } from '../call/pipeline.ts'
import type { ConnectionPeer, Payer } from '../identity/connection-peer.ts'
import type { Log } from '../identity/log.ts'
import type { Peers } from '../identity/peers.ts'
import { type Admission, REFUSED_MS } from './admission.ts'
import { Disposal } from './disposal.ts'
import { Fronts, type GivenTo, REMOTE } from './fronts.ts'
import { statusPayload } from './link-call.ts'
import type { StartFront } from './running-front.ts'
import type { Binder } from './socket-file.ts'

/** Connections that wait to be accepted: as many as the kernel allows by default (somaxconn). */
const BACKLOG = 4096

/** How the socket of the server is bound: net's own, so that Node reads it. */
export const serverBinder = (listening: NetServer): Binder<NetServer> => ({
  bind: (path) =>
    new Promise((resolve, reject) => {
      listening.once('error', reject)
      listening.listen({ path, backlog: BACKLOG }, () => {
        listening.off('error', reject)
        resolve(listening)
      })
    }),
  answers: (path) =>
    new Promise((resolve) => {
      const socket = connectSocket(path)
      socket.once('connect', () => {
        socket.destroy()
        resolve(true)
      })
      // A full queue belongs to a process that listens.
      socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'EAGAIN'))
    }),
})

/** The number of a socket's fd: undocumented, unchanged in every Node there is, checked at start. */
const fdOf = (socket: Socket | NetServer): number => {
  const { fd } = (socket as unknown as { readonly _handle: { readonly fd: number } })._handle
  if (!Number.isInteger(fd) || fd < 0) throw new Error('this Node does not tell the fd of a socket')
  return fd
}

/** A server that reads nothing of what it accepts: the fd of each connection is the callback's to close. */
export const accepting = (accept: (fd: number, socket: Socket) => void): NetServer =>
  createServer({ pauseOnConnect: true }, (socket) => {
    const fd = sys.dup(fdOf(socket))
    if (fd >= 0) accept(fd, socket)
    socket.destroy()
  })

const isHungUp = (fd: number): boolean => pendingEvents(fd, POLLRDHUP | POLLHUP) > 0

interface Connection {
  /** Undefined where the connection is refused, or has no name yet. */
  peer: ConnectionPeer | undefined
  /** What every call is answered with. */
  refusal: VfiodError | undefined
}

export class Connections {
  readonly listening: NetServer
  readonly fronts: Fronts
  readonly disposal: Disposal
  readonly #peers: Peers
  readonly #admission: Admission
  /** By the name that calls have for it. */
  readonly #connections = new Map<string, Connection>()

  constructor(parts: {
    readonly peers: Peers
    readonly admission: Admission
    readonly pipeline: Pipeline
    readonly served: ReadonlyMap<string, Served>
    readonly unknown: (path: string) => Served
    readonly startFront: StartFront
    readonly log: Log
  }) {
    const { peers, admission, log, startFront: start, ...rules } = parts
    this.#admission = admission
    this.#peers = peers
    this.disposal = new Disposal(start, log)
    this.fronts = new Fronts({ start, disposal: this.disposal, rules: { ...rules, log }, log })
    this.listening = accepting((fd) =>
      this.#serve(fd, this.#peers.payerOf(fd), () => this.#peers.at(fd)),
    )
  }

  /** Connections that are open. */
  get size(): number {
    return this.#connections.size
  }

  /** The peer behind the name of a connection. */
  readonly peerOf: CallRules['peerOf'] = (name) => {
    const peer = this.#connections.get(name)?.peer
    if (peer !== undefined) return peer
    throw new VfiodError(
      'UNKNOWN_PEER',
      'Cannot identify the caller: the connection is closed; connect again',
    )
  }

  /** Takes no new connections; those there are go on. */
  stopAccepting(): void {
    if (this.listening.listening) this.disposal.listening(fdOf(this.listening))
    this.listening.close()
  }

  /** Closes every connection: gracefully if the client closes its side in time, by force otherwise. */
  async close(): Promise<void> {
    this.stopAccepting()
    await this.fronts.close()
    this.disposal.close()
  }

  /**
   * Serve a connection of this identity, if it may have one more; only then is its peer looked up.
   * Nothing is read from a connection whose peer has hung up.
   */
  #serve(fd: number, payer: Payer, peerAt: () => ConnectionPeer | undefined): void {
    if (isHungUp(fd)) {
      this.#admission.logHungUp(payer)
      this.disposal.stream(fd)
      return
    }
    const admitted = this.#admission.admit(payer)
    // One that is closed unheard is not looked up: nothing would give back the pidfd of its process.
    const peer = admitted !== undefined && !admitted.refusal ? peerAt() : undefined
    if (admitted === undefined || (peer === undefined && admitted.refusal === undefined)) {
      admitted?.leave()
      this.disposal.stream(fd)
      return
    }
    const { refusal, leave } = admitted
    const key = this.fronts.keyOf(payer)
    const { id, name } = this.#add({ peer, refusal })
    let giveUp: Deadline | undefined
    const given = {
      ...{ connection: id, account: payer.account, speaks: 'grpc' as const },
      ...(refusal && { refusal: statusPayload(refusal).toString('base64') }),
    }
    const owned = {
      token: name,
      state: () => this.#connections.get(name),
      closed: () => {
        giveUp?.cancel()
        this.#connections.delete(name)
        leave()
        peer?.disconnected()
      },
      named: () => {
        throw new LinkError('a local connection was given a name')
      },
      ticket: noTicket,
    }
    const served = this.fronts.give(key, given, owned, fd)
    if (refusal === undefined) return
    giveUp = new Deadline(REFUSED_MS, () => served.close(true))
  }

  /**
   * Serve a connection from another host. Who it is, and whether it may have one more connection, is
   * known when its certificate is; `named` is called then.
   */
  serveRemote(
    fd: number,
    address: string,
    how: {
      readonly peerAt: (name: string) => ConnectionPeer
      readonly named: () => void
      readonly closed: () => void
    },
  ): { readonly close: () => void } {
    const { id, name } = this.#add({ peer: undefined, refusal: undefined })
    let leave = (): void => {}
    const given = { connection: id, account: REMOTE, speaks: 'tls' as const }
    let served: GivenTo | undefined
    const close = () => served?.close(true)
    const owned = {
      token: name,
      address,
      state: () => this.#connections.get(name),
      closed: () => {
        this.#connections.delete(name)
        leave()
        how.closed()
      },
      named: (claimed: string) => {
        const connection = this.#connections.get(name)
        if (connection === undefined || connection.peer !== undefined)
          throw new LinkError('a connection was given a second name')
        how.named()
        const peer = how.peerAt(claimed)
        const admitted = this.#admission.admit(peer)
        if (admitted === undefined) return close()
        leave = admitted.leave
        connection.refusal = admitted.refusal
        if (admitted.refusal === undefined) connection.peer = peer
        else served?.refuse(admitted.refusal)
      },
      ticket: noTicket,
    }
    served = this.fronts.give(REMOTE, given, owned, fd)
    return { close }
  }

  #add(connection: Connection): { readonly id: number; readonly name: string } {
    const id = this.fronts.nextId()
    const name = `connection:${id}`
    this.#connections.set(name, connection)
    return { id, name }
  }
}

const noTicket = (): void => {
  throw new LinkError('a ticket came on a connection that speaks gRPC')
}
