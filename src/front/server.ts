/**
 * The gRPC server of a front: its methods take and give messages in bytes, and what they do is the
 * owner's. Connections are given to it, each under the name that the owner has for it.
 */
import type { EventEmitter } from 'node:events'
import { constants } from 'node:http2'
import type { Socket } from 'node:net'
import {
  type ConnectionInjector,
  Server as GrpcServer,
  ServerCredentials,
  type ServerInterceptor,
  type ServerOptions,
  type UntypedHandleCall,
} from '@grpc/grpc-js'
import { LIMITS } from '../base/limits.ts'
import { keepBehind, keepOpen, type NativeOwner } from './native-session.ts'

/** What a client may have sent and the daemon not yet taken, per call and per connection. */
const UPLOAD_WINDOW = 4 << 20

/** ForwardedCalls of one connection at a time; the client's library holds back the others. */
const CALLS_PER_CONNECTION = 128

/** What of an HTTP/2 session is used here; grpc-js hands none of them out. */
export interface HttpSession extends NativeOwner {
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

export interface ServerHooks {
  readonly onSession: (session: HttpSession) => void
  /** Whether one more stream of the session is served; the session ends where not. */
  readonly isServed: (session: HttpSession) => boolean
}

const asIs = (bytes: Buffer): Buffer => bytes

/** The methods of the server, and for every other path the one handler that refuses it. */
class Methods extends Map<string, object> {
  readonly #refuse: (path: string) => UntypedHandleCall

  constructor(refuse: (path: string) => UntypedHandleCall) {
    super()
    this.#refuse = refuse
  }

  override get(path: string): object {
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
export class WideServer extends GrpcServer {
  readonly #hooks: ServerHooks
  readonly #injector: ConnectionInjector
  /** Sessions that are ended because their streams came too fast. */
  readonly #tooFast = new WeakSet<HttpSession>()

  constructor(
    hooks: ServerHooks,
    refuseOthers: (path: string) => UntypedHandleCall,
    interceptors: ServerInterceptor[],
  ) {
    const options: ServerOptions = {
      'grpc.max_receive_message_length': LIMITS.messageBytes,
      'grpc.max_send_message_length': LIMITS.messageBytes,
      'grpc.max_concurrent_streams': CALLS_PER_CONNECTION,
      'grpc.enable_channelz': 0,
      interceptors,
    }
    super(options)
    this.#hooks = hooks
    // biome-ignore lint/complexity/useLiteralKeys: private in the types of grpc-js.
    const http2Options = this['commonServerOptions']
    http2Options.settings = { ...http2Options.settings, initialWindowSize: UPLOAD_WINDOW }
    // biome-ignore lint/complexity/useLiteralKeys: private in the types of grpc-js.
    this['handlers'] = new Methods(refuseOthers) as unknown as WideServer['handlers']
    this.#injector = this.createConnectionInjector(ServerCredentials.createInsecure())
  }

  /** Of every method that was added. */
  get paths(): readonly string[] {
    // biome-ignore lint/complexity/useLiteralKeys: private in the types of grpc-js.
    return [...(this['handlers'] as ReadonlyMap<string, unknown>).keys()]
  }

  /** Serve a connection; calls of it have this name as their peer. */
  inject(socket: Socket, name: string): void {
    // The address of a Unix peer is undefined, for every one; grpc-js hands on what it finds here.
    Object.defineProperty(socket, 'remoteAddress', { value: name })
    // Of a TCP peer it would hand on the port as well.
    Object.defineProperty(socket, 'remotePort', { value: undefined })
    this.#injector.injectConnection(socket)
  }

  /** ForwardedCalls that are under way may end within the time; connections end then. */
  drainAll(graceMs: number): void {
    this.#injector.drain(graceMs)
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
   * Whether a stream is served is asked before grpc-js makes a call of it.
   */
  #guardStreams(http2Server: EventEmitter): void {
    const serve = http2Server.listeners('stream') as ((...args: unknown[]) => void)[]
    http2Server.removeAllListeners('stream')
    http2Server.on('stream', (stream: HttpStream, ...rest) => {
      const { session } = stream
      if (session !== undefined) keepBehind(stream, session)
      if (session === undefined || (!this.#tooFast.has(session) && this.#hooks.isServed(session))) {
        for (const listener of serve) listener(stream, ...rest)
        return
      }
      stream.on('error', () => {})
      this.endTooFast(session)
    })
  }

  /**
   * GOAWAY with ENHANCE_YOUR_CALM and the end, in a later turn: Node aborts when a session is destroyed
   * while frames for its streams are being read (nodejs/node issue 64850).
   */
  endTooFast(session: HttpSession): void {
    if (this.#tooFast.has(session)) return
    this.#tooFast.add(session)
    setImmediate(() => session.destroy(constants.NGHTTP2_ENHANCE_YOUR_CALM))
  }
}
