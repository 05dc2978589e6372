/**
 * A gRPC call in the pipeline: its request, its cancellation, its answer, by the
 * kind of its streams. A handler is what is left: `async (request, { client }) => response`.
 */
import type {
  handleClientStreamingCall,
  handleServerStreamingCall,
  handleUnaryCall,
} from '@grpc/grpc-js'
import type { MethodDefinition } from '@grpc/proto-loader'
import type { Chunk } from '../../base/chunk.ts'
import { VfiodError } from '../../base/error.ts'
import { LIMITS } from '../../base/limits.ts'
import { methodsOf, type ServiceName, type Services } from '../../wire/protos.ts'
import { toVfiodError } from '../../wire/status.ts'
import { sendable, TEXT_MAX } from '../../wire/status-details.ts'
import type { ConnectionPeer } from '../identity/connection-peer.ts'
import { objectOf, outcomeOf } from './audit.ts'
import { decoderOf, encoderOf } from './decode.ts'
import type { IncomingCall } from './incoming-call.ts'
import { type MethodPolicy, methodPolicyOf } from './method-policy.ts'
import type { Method } from './outcome.ts'
import { abortReason, type CallContext, type Pipeline } from './pipeline.ts'

/** The handlers of a service, as its generated `Handlers` type demands them. */
export type Handlers<Generated> = {
  readonly [Name in keyof Generated as string extends Name
    ? never
    : number extends Name
      ? never
      : Name]: Handler<Generated[Name]>
}

type Handler<Generated> =
  Generated extends handleUnaryCall<infer Request, infer Response>
    ? (request: Request, context: CallContext) => Response | Promise<Response>
    : Generated extends handleServerStreamingCall<infer Request, infer Response>
      ? (request: Request, context: CallContext) => AsyncIterable<Response | Chunk>
      : Generated extends handleClientStreamingCall<infer Request, infer Response>
        ? (requests: AsyncIterable<Request>, context: CallContext) => Promise<Response>
        : never

type AnyHandler = (request: object, context: CallContext) => unknown

export interface CallRules {
  /** The peer behind the name of a connection; throws UNKNOWN_PEER. */
  readonly peerOf: (connection: string) => ConnectionPeer
  readonly pipeline: Pipeline
}

/** A method of the API as it is served. */
export interface Served {
  /** `/vfiod.v1.MemoryService/ListMemory`. */
  readonly path: string
  readonly method: Method
  /** Whether its client sends a stream, and not one request. */
  readonly isClientStream: boolean
  /** It is answered at its head, whatever is sent behind it. */
  readonly ignoresRest?: true
  /** Serves a call that the pipeline has admitted; never throws. */
  readonly serve: (call: IncomingCall) => void
}

interface Parts {
  readonly rules: CallRules
  readonly method: Method
  readonly handler: AnyHandler
  readonly decode: (bytes: Buffer) => object
  readonly encode: (response: object) => Buffer
}

const CANCELLED = 'the client has cancelled the call'

/** Runs the work of one call; what it is about is known once its first message is decoded. */
const runCall = <Result>(
  { rules: { peerOf, pipeline }, method }: Parts,
  call: IncomingCall,
  how: {
    readonly object: () => Readonly<Record<string, unknown>>
    readonly holdsLease: boolean
  },
  work: (context: CallContext) => Promise<Result>,
): Promise<Result> => {
  const abort = new AbortController()
  call.onCancelled(() => abort.abort(CANCELLED))
  const { connection } = call
  const peer = () => peerOf(connection)
  return pipeline.run({ method, peer, connection, abort, ...how }, work)
}

const respond = async (call: IncomingCall, response: Promise<Buffer>): Promise<void> => {
  try {
    call.reply(await response)
  } catch (error) {
    call.refuse(toVfiodError(error))
  }
}

const unary =
  (parts: Parts) =>
  (call: IncomingCall): void => {
    let request: object = {}
    let response: object | undefined
    const work = async (context: CallContext) => {
      request = parts.decode(call.request)
      response = (await parts.handler(request, context)) as object
      return parts.encode(response)
    }
    const how = { object: () => outcomeOf(request, response), holdsLease: true }
    void respond(call, runCall(parts, call, how, work))
  }

/** The requests of a client stream. The daemon's own reasons end it as well as the client's. */
async function* received(
  { decode }: Parts,
  call: IncomingCall,
  { client, signal }: CallContext,
): AsyncGenerator<object, void> {
  for await (const bytes of call.requests(signal)) {
    const letGo = client.lease.hold()
    try {
      yield decode(bytes)
    } finally {
      letGo()
    }
  }
  if (signal.aborted) throw abortReason(signal)
}

const clientStream =
  (parts: Parts) =>
  (call: IncomingCall): void => {
    // The first message names what the call is about.
    let first: object | undefined
    const requests = async function* (context: CallContext) {
      for await (const request of received(parts, call, context)) {
        first ??= request
        yield request
      }
    }
    const work = async (context: CallContext) =>
      parts.encode((await parts.handler(requests(context), context)) as object)
    const how = { object: () => objectOf(first ?? {}), holdsLease: false }
    void respond(call, runCall(parts, call, how, work))
  }

/** Rejects when the call is aborted before. */
const unlessAborted = <Result>(signal: AbortSignal, waited: Promise<Result>): Promise<Result> =>
  new Promise((resolve, reject) => {
    const aborted = () => reject(abortReason(signal))
    if (signal.aborted) return aborted()
    signal.addEventListener('abort', aborted, { once: true })
    waited.finally(() => signal.removeEventListener('abort', aborted)).then(resolve, reject)
  })

const serverStream =
  (parts: Parts) =>
  (call: IncomingCall): void => {
    const { method, handler, decode, encode } = parts
    let request: object = {}
    const work = async (context: CallContext): Promise<void> => {
      const { signal, client } = context
      request = decode(call.request)
      // Watch messages fit into socket buffers, so a message that was taken does not show that the client lives.
      const taken = () => {
        if (!method.isEndless) client.lease.renew()
      }
      // A client that does not read stops the source, and fills no memory.
      for await (const message of handler(request, context) as AsyncIterable<object>)
        await unlessAborted(signal, call.send(encode(message), taken))
      if (signal.aborted) throw abortReason(signal)
    }
    const how = { object: () => objectOf(request), holdsLease: false }
    runCall(parts, call, how, work).then(
      () => call.done(),
      (error: unknown) => call.refuse(toVfiodError(error)),
    )
  }

const serving = (
  { requestStream, responseStream }: MethodDefinition<object, object>,
  parts: Parts,
): ((call: IncomingCall) => void) => {
  if (responseStream) return serverStream(parts)
  return requestStream ? clientStream(parts) : unary(parts)
}

/** The methods of a service, each with its handler. */
export const implementation = <Name extends ServiceName>(
  rules: CallRules,
  service: Name,
  handlers: { readonly [Method in keyof Services[Name]]?: unknown },
): readonly Served[] =>
  methodsOf(service).map(([name, definition]) => {
    const { path, requestStream: isClientStream } = definition
    const handler = (handlers as Readonly<Record<string, AnyHandler>>)[name]
    if (handler === undefined) throw new Error(`${path} has no handler`)
    const policy = methodPolicyOf(service, name)
    const method = { name: path.slice(1), isEndless: name.startsWith('Watch'), policy }
    const [decode, encode] = [decoderOf(definition), encoderOf(definition)]
    const serve = serving(definition, { rules, method, handler, decode, encode })
    return { path, method, isClientStream, serve }
  })

/** What a call of a method that does not exist is answered with. */
export const unknownMethod = (rules: CallRules, wanted: string): Served => {
  const path = sendable(wanted, TEXT_MAX)
  const handler = () => {
    throw new VfiodError(
      'UNSUPPORTED',
      `Cannot call ${path}: this daemon has no such method; reflection lists those that it has`,
      { resource: { type: 'rpc', name: path.slice(1) } },
    )
  }
  const policy: MethodPolicy = { role: 'none', isAudited: false, maxBytes: LIMITS.requestBytes }
  const method: Method = { name: path.slice(1), isEndless: false, policy }
  const nothing = { decode: () => ({}), encode: () => Buffer.alloc(0) }
  const serve = unary({ rules, method, handler, ...nothing })
  return { path, method, isClientStream: true, ignoresRest: true, serve }
}
