/**
 * A front: it speaks TLS, HTTP/2 and gRPC with clients, on connections that the owner accepted and gave
 * to it, and hands their calls on. It holds nothing of value: when it ends, its connections end, and
 * clients connect again.
 */
import type { Socket } from 'node:net'
import { Socket as NetSocket } from 'node:net'
import type { StatusObject } from '@grpc/grpc-js'
import { Buckets } from '../base/bucket.ts'
import { LIMITS } from '../base/limits.ts'
import {
  FROM_FRONT,
  FROM_OWNER,
  type Frame,
  HOW_TO_CLOSE,
  type HowToClose,
} from '../link/frames.ts'
import type { Answered, Certificates, GivenConnection } from '../link/records.ts'
import type { Channels } from '../os/channels.ts'
import type { SeqpacketConnection } from '../os/fd-passing.ts'
import { POLLHUP, POLLRDHUP, pendingEvents, sys } from '../os/libc.ts'
import { closeAll } from '../os/unix-socket.ts'
import { METHODS } from '../wire/methods.ts'
import { FdConnections } from './fd-connections.ts'
import { type CallTable, ForwardedCalls, type OpenCall, statusOf } from './forwarded-calls.ts'
import { HealthAndReflection } from './health-and-reflection.ts'
import { OwnerLink } from './owner-link.ts'
import { type HttpSession, WideServer } from './server.ts'
import { TlsHandshakes } from './tls-handshakes.ts'
import { transportRefusals } from './transport-refusal.ts'

/** Interval between sweeps for connections whose peer has hung up. */
const SWEEP_MS = 1000

/** How long clients get to close their connections once every call has been answered. */
const CLOSE_MS = 500

/** How long a connection that is to be closed has for the answers that are under way. */
const CLOSING_MS = 1000

interface Connection {
  readonly given: GivenConnection
  readonly socket: Socket
  readonly calls: Map<number, OpenCall>
  last: number
  /** What every call is answered with; the connection is closed behind the first answer. */
  refusal?: StatusObject
  /** Set as soon as HTTP/2 is spoken on it. */
  session?: HttpSession
}

const fdOf = (socket: Socket): number =>
  (socket as unknown as { readonly _handle: { readonly fd: number } | null })._handle?.fd ?? -1

const isHungUp = (socket: Socket): boolean => {
  const fd = fdOf(socket)
  return !socket.destroyed && fd >= 0 && pendingEvents(fd, POLLRDHUP | POLLHUP) > 0
}

export interface FrontParts extends Channels {
  /** Memory for large messages, which the owner has mapped as well. */
  readonly memory: Buffer
  /** Called once everything is closed. */
  readonly onEnd: () => void
}

export class Front {
  readonly #packets: SeqpacketConnection
  readonly #onEnd: () => void
  readonly #link: OwnerLink
  readonly #grpc: WideServer
  readonly #healthAndReflection: HealthAndReflection
  readonly #tls: TlsHandshakes
  readonly #uplink: SeqpacketConnection
  readonly #fdConnections: FdConnections
  /** Numbers of the open connections of the fd channel. */
  readonly #speakPackets = new Set<number>()
  /** Paths of the methods that the front answers by itself. */
  readonly #own: ReadonlySet<string>
  /** Connections that are to be closed before they have come. */
  readonly #closedBefore = new Set<number>()
  /** By number; the name for grpc-js is the number as text. */
  readonly #connections = new Map<number, Connection>()
  readonly #streamRate = new Buckets()
  readonly #sweeper = setInterval(() => this.#sweep(), SWEEP_MS)
  /** Sockets that the last sweep found without a peer. */
  #abandoned = new Set<Socket>()
  /** Fds that are closed by the end of this process, however long each takes. */
  readonly #unserved: number[] = []
  #lastGiven = 0
  #isEnding = false
  #hasEnded = false

  constructor({ incoming, outgoing, packets, uplink, memory, onEnd }: FrontParts) {
    this.#packets = packets
    this.#onEnd = onEnd
    this.#link = new OwnerLink(
      { incoming, outgoing },
      {
        memory,
        take: (frame) => this.#take(frame),
        isOpen: (id) => this.#connections.has(id) || this.#speakPackets.has(id),
        onEnd: () => this.end(),
      },
    )
    this.#uplink = uplink
    this.#fdConnections = new FdConnections(this.#link, uplink)
    const calls = new ForwardedCalls(this.#link, this.#table())
    this.#tls = new TlsHandshakes({
      named: (connection, name) => {
        const payload = Buffer.from(name)
        this.#link.send(FROM_FRONT.named, { connection, call: 0 }, payload)
      },
      refused: (connection, refusal) => this.#refusedConnection(connection, refusal),
    })
    const refused = (peer: string, call: { method: string; reason: string; refusal: string }) => {
      const payload = Buffer.from(JSON.stringify(call))
      this.#link.send(FROM_FRONT.refused, { connection: Number(peer), call: 0 }, payload)
    }
    this.#grpc = new WideServer(
      {
        onSession: (session) => {
          const connection = this.#connectionOf(session)
          if (connection !== undefined) connection.session = session
        },
        isServed: (session) => this.#mayOpenStream(this.#connectionOf(session)),
      },
      () => calls.unknown(),
      [
        transportRefusals({
          refused,
          refusalOf: (peer) => this.#refusalOf(Number(peer)),
          isOwners: (path) => !this.#own.has(path),
          head: (path, call, refuse) => calls.head(path, call, refuse),
          cancelled: (call) => calls.cancelled(call),
        }),
      ],
    )
    for (const [definition, handlers] of calls.services())
      this.#grpc.addService(definition, handlers)
    this.#healthAndReflection = new HealthAndReflection(this.#grpc)
    const ofOwner = new Set(METHODS.map(({ path }) => path))
    this.#own = new Set(this.#grpc.paths.filter((path) => !ofOwner.has(path)))
    this.#sweeper.unref()
    void this.#receive()
  }

  /** Of the connections that are open. */
  get sockets(): readonly Socket[] {
    return [...this.#connections.values()].map(({ socket }) => socket)
  }

  /** Closes every connection: gracefully if the client closes its side in time, by force otherwise. */
  async drain(): Promise<void> {
    if (this.#isEnding) return
    this.#isEnding = true
    this.#grpc.drainAll(CLOSE_MS)
    const until = performance.now() + CLOSE_MS
    while (this.#connections.size > 0 && performance.now() < until)
      await new Promise((resolve) => setTimeout(resolve, 10))
    this.end()
  }

  /** Everything is closed at once. */
  end(): void {
    if (this.#hasEnded) return
    this.#hasEnded = true
    this.#isEnding = true
    clearInterval(this.#sweeper)
    void closeAll(this.#unserved)
    for (const { socket } of this.#connections.values()) socket.destroy()
    for (const id of this.#speakPackets) this.#fdConnections.close(id)
    this.#uplink.close()
    this.#grpc.forceShutdown()
    this.#tls.close()
    this.#packets.close()
    this.#link.close()
    this.#onEnd()
  }

  async #receive(): Promise<void> {
    for (;;) {
      const packet = await this.#packets.receive()
      if (typeof packet === 'number' || packet.bytes.length === 0) return
      const record = JSON.parse(Buffer.from(packet.bytes).toString()) as GivenConnection | Answered
      const [fd] = packet.fds
      if ('answerTo' in record) {
        const { answerTo, reply } = record
        const text = Buffer.from(JSON.stringify(reply))
        this.#fdConnections.answer(answerTo.connection, answerTo.packet, text, packet.fds)
        for (const sent of packet.fds) sys.closeSync(sent)
      } else if (record.speaks === 'nothing') this.#unserved.push(...packet.fds)
      else if (fd === undefined) continue
      else if (record.speaks === 'packets') void this.#servePackets(record, fd)
      else this.#serve(record, new NetSocket({ fd, readable: true, writable: true }))
    }
  }

  async #servePackets({ connection: id }: GivenConnection, fd: number): Promise<void> {
    this.#lastGiven = id
    this.#speakPackets.add(id)
    const served = this.#fdConnections.serve(id, fd)
    if (this.#closedBefore.delete(id)) this.#fdConnections.close(id)
    await served
    this.#link.send(FROM_FRONT.closed, { connection: id, call: 0 })
    this.#speakPackets.delete(id)
  }

  #serve(given: GivenConnection, socket: Socket): void {
    const id = given.connection
    this.#lastGiven = id
    if (this.#closedBefore.delete(id)) socket.destroy()
    const connection: Connection = { given, socket, calls: new Map(), last: 0 }
    if (given.refusal !== undefined)
      connection.refusal = statusOf(Buffer.from(given.refusal, 'base64'))
    this.#connections.set(id, connection)
    socket.on('error', () => {})
    socket.once('close', () => {
      this.#link.send(FROM_FRONT.closed, { connection: id, call: 0 })
      this.#connections.delete(id)
    })
    if (given.speaks === 'tls')
      this.#tls.shakeHands(id, socket, (secure) => this.#grpc.inject(secure, String(id)))
    else this.#grpc.inject(socket, String(id))
  }

  #table(): CallTable {
    return {
      open: (peer, call) => {
        const connection = Number(peer)
        const known = this.#connections.get(connection)
        if (known === undefined) return { connection, call: 0 }
        known.last = (known.last + 1) >>> 0
        known.calls.set(known.last, call)
        return { connection, call: known.last }
      },
      close: ({ connection, call }) =>
        this.#connections.get(connection)?.calls.delete(call) ?? false,
      isOpen: ({ connection, call }) => this.#connections.get(connection)?.calls.has(call) ?? false,
    }
  }

  #take({ kind, connection: id, call: number, payload }: Frame): void {
    const connection = this.#connections.get(id)
    switch (kind) {
      case FROM_OWNER.serving:
        if (payload[0] === 0) this.#healthAndReflection.notServing()
        break
      case FROM_OWNER.certificates:
        this.#tls.setCertificates(JSON.parse(payload.toString()) as Certificates)
        break
      case FROM_OWNER.end:
        void this.drain()
        break
      case FROM_OWNER.close:
        if (connection !== undefined) this.#close(connection, payload[0] as HowToClose)
        else if (this.#speakPackets.has(id)) this.#fdConnections.close(id)
        else if (id > this.#lastGiven) this.#closedBefore.add(id)
        break
      case FROM_OWNER.want:
        this.#fdConnections.want(id, number)
        break
      case FROM_OWNER.answer:
        this.#fdConnections.answer(id, number, payload)
        break
      case FROM_OWNER.refuse:
        if (connection !== undefined) connection.refusal = statusOf(payload)
        break
      case FROM_OWNER.messageAt: {
        const { bytes, free } = this.#link.messageAt(payload)
        const call = connection?.calls.get(number)
        if (call === undefined) free()
        else call.message(bytes, free)
        break
      }
      default:
        if (connection !== undefined) takeInCall(connection.calls, { kind, call: number, payload })
    }
  }

  #refusalOf(id: number): StatusObject | undefined {
    const connection = this.#connections.get(id)
    if (connection?.refusal !== undefined) this.#close(connection, HOW_TO_CLOSE.afterAnswers)
    return connection?.refusal
  }

  /** GOAWAY behind the answers that are under way: the next call comes by another connection. */
  #close({ session, socket }: Connection, how: HowToClose): void {
    if (how === HOW_TO_CLOSE.atOnce || session === undefined) {
      socket.destroy()
      return
    }
    if (how === HOW_TO_CLOSE.tooFast) this.#grpc.endTooFast(session)
    else setImmediate(() => session.close())
    setTimeout(() => socket.destroy(), CLOSING_MS).unref()
  }

  /**
   * After an error of the protocol Node sends GOAWAY and reads no more, tells no one, and so
   * never learns that the client has hung up: its fd would stay for good. The kernel is asked
   * instead. What hung up just now is left to Node until the next time.
   */
  #sweep(): void {
    const sockets = [...this.#connections.values()].map(({ socket }) => socket)
    const hungUp = sockets.filter((socket) => isHungUp(socket))
    for (const socket of hungUp) if (this.#abandoned.has(socket)) socket.destroy()
    this.#abandoned = new Set(hungUp)
  }

  #connectionOf({ socket }: HttpSession): Connection | undefined {
    return this.#connections.get(Number(socket.remoteAddress ?? -1))
  }

  /** Streams cost something before they are calls: those of an account come at a rate; see the owner's. */
  #mayOpenStream(connection: Connection | undefined): boolean {
    if (connection === undefined) return true
    const { account, connection: id } = connection.given
    const perSecond = LIMITS.streamsPerSecond
    if (this.#streamRate.take(account, { perSecond, burst: perSecond * 2 }) === 0) return true
    this.#refusedConnection(id, `more than ${perSecond} calls in a second`)
    return false
  }

  #refusedConnection(connection: number, refusal: string): void {
    const payload = Buffer.from(JSON.stringify({ method: '', reason: '', refusal }))
    this.#link.send(FROM_FRONT.refused, { connection, call: 0 }, payload)
  }
}

/** What the owner says about a call; it may be cancelled by now. */
const takeInCall = (
  calls: Map<number, OpenCall>,
  { kind, call: number, payload }: Omit<Frame, 'connection'>,
): void => {
  const call = calls.get(number)
  if (kind === FROM_OWNER.credit) call?.credit()
  else if (kind === FROM_OWNER.message) call?.message(payload)
  else {
    calls.delete(number)
    if (kind === FROM_OWNER.reply) call?.message(payload)
    else if (kind === FROM_OWNER.done) call?.done()
    else call?.fail(statusOf(payload))
  }
}
