/**
 * The gRPC server, on a socket made here, because grpc-js does not say who connects. Each
 * connection is identified by the kernel when it is accepted, and calls find their client through
 * the connection they came by.
 */
import type { EventEmitter } from 'node:events'
import { constants } from 'node:http2'
import {
  connect as connectSocket,
  createServer,
  type Server as NetServer,
  type Socket,
} from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import {
  type ConnectionInjector,
  Server as GrpcServer,
  ServerCredentials,
  type ServerOptions,
  type UntypedHandleCall,
} from '@grpc/grpc-js'
import { VfiodError } from '../../base/error.ts'
import { LIMITS } from '../../base/limits.ts'
import { POLLHUP, POLLRDHUP, pendingEvents } from '../../os/libc.ts'
import { Buckets } from '../call/bucket.ts'
import type { Pipeline } from '../call/pipeline.ts'
import type { ConnectionPeer, Payer } from '../identity/connection-peer.ts'
import type { Log } from '../identity/log.ts'
import type { Peers } from '../identity/peers.ts'
import { type Admission, REFUSED_MS } from './admission.ts'
import { keepBehind, keepOpen, type NativeOwner } from './native-session.ts'
import type { Binder } from './socket-file.ts'
import { transportRefusals } from './transport-refusal.ts'

/** What a client may have sent and the daemon not yet taken, per call and per connection. */
const UPLOAD_WINDOW = 4 << 20

/** Calls of one connection at a time; the client's library holds back the others. */
const CALLS_PER_CONNECTION = 128

/** Interval between sweeps for connections whose peer has hung up. */
const SWEEP_MS = 1000

const OPTIONS: ServerOptions = {
  'grpc.max_receive_message_length': LIMITS.messageBytes,
  'grpc.max_send_message_length': LIMITS.messageBytes,
  'grpc.max_concurrent_streams': CALLS_PER_CONNECTION,
  'grpc.enable_channelz': 0,
}

/** What of an HTTP/2 session is used here; grpc-js hands none of them out. */
interface HttpSession extends NativeOwner {
  readonly socket: { readonly remoteAddress?: string }
  setLocalWindowSize(bytes: number): void
  /** GOAWAY; the calls that are under way are still answered. */
  close(): void
  /** GOAWAY with this code, and the end. */
  destroy(code: number): void
}

interface HttpStream extends NativeOwner {
  /** Undefined once the session is destroyed. */
  readonly session: HttpSession | undefined
  on(event: 'error', listener: () => void): void
}

interface ServerHooks {
  readonly onSession: (session: HttpSession) => void
  /** Whether one more stream of the session is served; the session ends where not. */
  readonly isServed: (session: HttpSession) => boolean
}

/** The methods of the server, and for every other path the one handler that refuses it. */
class Methods extends Map<string, object> {
  readonly #refuse: (path: string) => UntypedHandleCall

  constructor(refuse: (path: string) => UntypedHandleCall) {
    super()
    this.#refuse = refuse
  }

  override get(path: string): object {
    const asIs = (bytes: Buffer): Buffer => bytes
    // As a client stream it is answered at once, whatever is sent.
    const refused = () => ({
      type: 'clientStream',
      path,
      func: this.#refuse(path),
      serialize: asIs,
      deserialize: asIs,
    })
    return super.get(path) ?? refused()
  }
}

/**
 * grpc-js leaves the window for uploads at the protocol's 64 KiB, so that a client waits for the
 * daemon's turn sixteen times in each mebibyte (docs/benchmarks.md has what that costs); it has an
 * option for clients only (grpc-node pull request 3058). So the settings it gives to its HTTP/2
 * server are amended here. A test reads the window of a live session.
 */
class WideServer extends GrpcServer {
  readonly #hooks: ServerHooks

  constructor(options: ServerOptions, hooks: ServerHooks) {
    super(options)
    this.#hooks = hooks
    // biome-ignore lint/complexity/useLiteralKeys: private in the types of grpc-js.
    const http2Options = this['commonServerOptions']
    http2Options.settings = { ...http2Options.settings, initialWindowSize: UPLOAD_WINDOW }
  }

  override createConnectionInjector(credentials: ServerCredentials): ConnectionInjector {
    const injector = super.createConnectionInjector(credentials)
    // biome-ignore lint/complexity/useLiteralKeys: private in the types of grpc-js.
    for (const http2Server of this['http2Servers'].keys()) {
      http2Server.on('session', (session: HttpSession) => {
        keepOpen(session)
        session.setLocalWindowSize(UPLOAD_WINDOW)
        this.#hooks.onSession(session)
      })
      this.#guardStreams(http2Server)
    }
    return injector
  }

  /**
   * Whether a stream is served is asked before grpc-js makes a call of it. A session ends in a later
   * turn: Node aborts when it is destroyed while frames for its streams are being read (nodejs/node
   * issue 64850).
   */
  #guardStreams(http2Server: EventEmitter): void {
    const serve = http2Server.listeners('stream') as ((...args: unknown[]) => void)[]
    const ending = new WeakSet<HttpSession>()
    http2Server.removeAllListeners('stream')
    http2Server.on('stream', (stream: HttpStream, ...rest) => {
      const { session } = stream
      if (session !== undefined) keepBehind(stream, session)
      if (session === undefined || (!ending.has(session) && this.#hooks.isServed(session))) {
        for (const listener of serve) listener(stream, ...rest)
        return
      }
      stream.on('error', () => {})
      if (ending.has(session)) return
      ending.add(session)
      setImmediate(() => session.destroy(constants.NGHTTP2_ENHANCE_YOUR_CALM))
    })
  }

  /** Answer calls of methods that no service has with this; before any service is added. */
  refuseOthersWith(refuse: (path: string) => UntypedHandleCall): void {
    // biome-ignore lint/complexity/useLiteralKeys: private in the types of grpc-js.
    this['handlers'] = new Methods(refuse) as unknown as WideServer['handlers']
  }
}

/** How the socket of the server is bound: net's own, so that Node reads it. */
export const serverBinder = (listening: NetServer): Binder<NetServer> => ({
  bind: (path) =>
    new Promise((resolve, reject) => {
      listening.once('error', reject)
      listening.listen(path, () => {
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
const fdOf = (socket: Socket): number => {
  const { fd } = (socket as unknown as { readonly _handle: { readonly fd: number } })._handle
  if (!Number.isInteger(fd) || fd < 0) throw new Error('this Node does not tell the fd of a socket')
  return fd
}

const isHungUp = (socket: Socket): boolean =>
  !socket.destroyed && pendingEvents(fdOf(socket), POLLRDHUP | POLLHUP) > 0

interface Connection {
  /** Undefined where the connection is refused: no call gets to its client. */
  readonly peer: ConnectionPeer | undefined
  readonly refusal: VfiodError | undefined
  /** Set as soon as HTTP/2 is spoken on it. */
  session?: HttpSession
}

export class Connections {
  readonly grpc: WideServer
  readonly listening: NetServer
  readonly #injector: ConnectionInjector
  readonly #peers: Peers
  readonly #log: Log
  /** Who calls, by the token that stands for the address of the peer; see `#inject`. */
  readonly #connections = new Map<string, Connection>()
  readonly #admission: Admission
  readonly sockets: ReadonlySet<Socket>
  readonly #sockets = new Set<Socket>()
  #accepted = 0
  readonly #streamRate = new Buckets()
  readonly #sweeper = setInterval(() => this.#sweep(), SWEEP_MS)
  /** Sockets that the last sweep found without a peer. */
  #abandoned = new Set<Socket>()

  constructor({
    peers,
    admission,
    pipeline,
    log,
  }: {
    readonly peers: Peers
    readonly admission: Admission
    readonly pipeline: Pipeline
    readonly log: Log
  }) {
    this.sockets = this.#sockets
    this.#admission = admission
    const refusalOf = (token: string) => this.#refusalOf(token)
    const peerOf = (token: string) => this.peerOf(token)
    const interceptors = [transportRefusals({ refusalOf, peerOf, pipeline, log })]
    const options = { ...OPTIONS, interceptors }
    const connectionOf = ({ socket }: HttpSession) =>
      this.#connections.get(socket.remoteAddress ?? '')
    this.grpc = new WideServer(options, {
      onSession: (session) => {
        const connection = connectionOf(session)
        if (connection !== undefined) connection.session = session
      },
      isServed: (session) => this.#mayOpenStream(connectionOf(session)),
    })
    this.#peers = peers
    this.#log = log
    this.#sweeper.unref()
    this.#injector = this.grpc.createConnectionInjector(ServerCredentials.createInsecure())
    this.listening = createServer((socket) => this.#accept(socket))
  }

  /** The peer behind `call.getPeer()`, which is the token of its connection. */
  peerOf(token: string): ConnectionPeer {
    const peer = this.#connections.get(token)?.peer
    if (peer !== undefined) return peer
    throw new VfiodError(
      'UNKNOWN_PEER',
      'Cannot identify the caller: the connection is closed; connect again',
    )
  }

  /** Takes no new connections; those there are go on. */
  stopAccepting(): void {
    this.listening.close()
  }

  /** Closes every connection: gracefully if the client closes its side in time, by force otherwise. */
  async close(graceMs: number): Promise<void> {
    this.stopAccepting()
    clearInterval(this.#sweeper)
    this.#injector.drain(graceMs)
    await Promise.race([this.#allClosed(), delay(graceMs, undefined, { ref: false })])
    for (const socket of this.#sockets) socket.destroy()
    this.grpc.forceShutdown()
  }

  /**
   * After an error of the protocol Node sends GOAWAY and reads no more, tells no one, and so
   * never learns that the client has hung up: its fd would stay for good. The kernel is asked
   * instead. What hung up just now is left to Node until the next time.
   */
  #sweep(): void {
    const hungUp = [...this.#sockets].filter((socket) => isHungUp(socket))
    for (const socket of hungUp) if (this.#abandoned.has(socket)) socket.destroy()
    this.#abandoned = new Set(hungUp)
  }

  async #allClosed(): Promise<void> {
    // Not events.once: it rejects for a socket that fails before it closes, as resets do.
    const closed = (socket: Socket) => new Promise((resolve) => socket.once('close', resolve))
    await Promise.all([...this.#sockets].map(closed))
  }

  #accept(socket: Socket): void {
    this.serve(socket, this.#peers.payerOf(fdOf(socket)), () => this.#peers.at(fdOf(socket)))
  }

  /**
   * Serve a connection of this identity, if it may have one more; only then is its peer looked up.
   * Nothing is read from a connection whose peer has hung up.
   */
  serve(socket: Socket, payer: Payer, peerAt: () => ConnectionPeer | undefined): void {
    if (isHungUp(socket)) {
      this.#log.info({ identity: payer.identity }, 'connection closed: its client has hung up')
      socket.destroy()
      return
    }
    const admitted = this.#admission.admit(payer)
    if (admitted === undefined) {
      socket.destroy()
      return
    }
    const { refusal, leave } = admitted
    socket.once('close', leave)
    if (refusal === undefined) {
      const peer = peerAt()
      if (peer === undefined) socket.destroy()
      else this.#inject(socket, { peer, refusal })
      return
    }
    const giveUp = setTimeout(() => socket.destroy(), REFUSED_MS)
    giveUp.unref()
    socket.once('close', () => clearTimeout(giveUp))
    this.#inject(socket, { peer: undefined, refusal })
  }

  #inject(socket: Socket, connection: Connection): void {
    this.#accepted += 1
    // The address of a Unix peer is undefined, for every one; grpc-js hands on what it finds here.
    const token = `connection:${this.#accepted}`
    Object.defineProperty(socket, 'remoteAddress', { value: token })
    // Of a TCP peer it would hand on the port as well.
    Object.defineProperty(socket, 'remotePort', { value: undefined })
    this.#connections.set(token, connection)
    this.#sockets.add(socket)
    socket.once('close', () => {
      this.#connections.delete(token)
      this.#sockets.delete(socket)
      connection.peer?.disconnected()
    })
    this.#injector.injectConnection(socket)
  }

  /** Streams cost something before they are calls: those of an identity come at a rate. */
  #mayOpenStream(connection: Connection | undefined): boolean {
    const peer = connection?.peer
    if (peer === undefined) return true
    const isGranted = peer.grant.role !== 'none'
    const perSecond = isGranted ? LIMITS.streamsPerSecond : LIMITS.streamsPerSecondUngranted
    if (this.#streamRate.take(peer.account, { perSecond, burst: perSecond * 2 }) === 0) return true
    const { identity } = peer
    this.#log.warn({ identity, perSecond }, 'connection closed: too many calls in a short time')
    return false
  }

  /** Why a call of this connection is refused, whatever it is; the connection ends with the answer. */
  #refusalOf(token: string): VfiodError | undefined {
    const connection = this.#connections.get(token)
    // GOAWAY behind the answer: the next call comes by another connection.
    if (connection?.refusal !== undefined) setImmediate(() => connection.session?.close())
    return connection?.refusal
  }
}
