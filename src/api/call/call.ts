/**
 * A gRPC call in the pipeline: its request, its cancellation, its answer, by the
 * kind of its streams. A handler is what is left: `async (request, { client }) => response`.
 */
import { setImmediate } from 'node:timers/promises'
import {
  type handleClientStreamingCall,
  type handleServerStreamingCall,
  type handleUnaryCall,
  Metadata,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  type UntypedHandleCall,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js'
import type { Chunk } from '../../base/chunk.ts'
import { VfiodError } from '../../base/error.ts'
import { LIMITS } from '../../base/limits.ts'
import { methodsOf, type ServiceName, type Services } from '../../wire/protos.ts'
import { sendable, TEXT_MAX } from '../../wire/status-details.ts'
import type { ConnectionPeer } from '../identity/connection-peer.ts'
import { objectOf, outcomeOf } from './audit.ts'
import { decoded } from './decode.ts'
import { type MethodPolicy, methodPolicyOf } from './method-policy.ts'
import type { Method } from './outcome.ts'
import { abortReason, type CallContext, type Pipeline } from './pipeline.ts'
import { toStatusObject, toVfiodError } from './status.ts'

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

/** What every kind of call has. */
interface AnyCall {
  getPeer(): string
  on(event: 'cancelled', listener: () => void): unknown
}

export interface CallRules {
  /** The peer behind `call.getPeer()`; throws UNKNOWN_PEER. */
  readonly peerOf: (token: string) => ConnectionPeer
  readonly pipeline: Pipeline
}

/** Runs the work of one call, which the interceptor has admitted. */
const CANCELLED = 'the client has cancelled the call'

const runCall = <Result>(
  { peerOf, pipeline }: CallRules,
  method: Method,
  call: AnyCall,
  how: {
    /** What the call is about; a client stream names it in its first message. */
    readonly object: () => Readonly<Record<string, unknown>>
    readonly holdsLease: boolean
  },
  work: (context: CallContext) => Promise<Result>,
): Promise<Result> => {
  const abort = new AbortController()
  // Comes at the end of every call; without a reason the platform would make an exception each time.
  call.on('cancelled', () => abort.abort(CANCELLED))
  const connection = call.getPeer()
  const peer = () => peerOf(connection)
  return pipeline.run({ method, peer, connection, abort, ...how }, work)
}

type Reply = sendUnaryData<object>

const respond = async (response: Promise<object>, reply: Reply): Promise<void> => {
  try {
    const message = await response
    reply(null, message)
  } catch (error) {
    reply(toStatusObject(toVfiodError(error)))
  }
}

const unary =
  (rules: CallRules, method: Method, handler: AnyHandler) =>
  (call: ServerUnaryCall<object, object>, reply: Reply): void => {
    let response: object | undefined
    const work = async (context: CallContext) => {
      response = (await handler(decoded(call.request), context)) as object
      return response
    }
    const how = { object: () => outcomeOf(call.request, response), holdsLease: true }
    void respond(runCall(rules, method, call, how, work), reply)
  }

/**
 * The requests of a client stream. A client on grpc-js that cancels sends the end of its stream and
 * then the reset, so a stream that has ended may be one that was cancelled. The call is asked before
 * its end is believed; sending headers is what makes grpc-js look. A reset that comes later still is
 * not seen, which is why WriteSession answers with a number of bytes to compare.
 */
async function* received(
  call: ServerReadableStream<object, object>,
  { client, signal }: CallContext,
): AsyncGenerator<object, void> {
  // A client that is gone sends neither a message nor an end: the daemon's own reasons end the wait.
  const giveUp = () => call.destroy(abortReason(signal))
  if (signal.aborted) giveUp()
  signal.addEventListener('abort', giveUp, { once: true })
  for await (const request of call) {
    const letGo = client.lease.hold()
    try {
      yield decoded(request)
    } finally {
      letGo()
    }
  }
  call.sendMetadata(new Metadata())
  await setImmediate()
  if (signal.aborted) throw abortReason(signal)
}

const clientStream =
  (rules: CallRules, method: Method, handler: AnyHandler) =>
  (call: ServerReadableStream<object, object>, reply: Reply): void => {
    // The first message names what the call is about.
    let first: object | undefined
    const requests = async function* (context: CallContext) {
      for await (const request of received(call, context)) {
        first ??= request
        yield request
      }
    }
    const work = async (context: CallContext) =>
      (await handler(requests(context), context)) as object
    const how = { object: () => objectOf(first ?? {}), holdsLease: false }
    void respond(runCall(rules, method, call, how, work), reply)
  }

/** Resolves when the message has been sent: its buffer may be used again. Rejects when it never will be. */
const written = (
  call: ServerWritableStream<object, object>,
  message: object,
  signal: AbortSignal,
): Promise<void> =>
  new Promise((resolve, reject) => {
    // grpc-js forgets the callback of a message that it drops because the call is cancelled.
    const aborted = () => reject(abortReason(signal))
    if (signal.aborted) return aborted()
    signal.addEventListener('abort', aborted, { once: true })
    call.write(message, (error: Error | null | undefined) => {
      signal.removeEventListener('abort', aborted)
      if (error) reject(error)
      else resolve()
    })
  })

const serverStream =
  (rules: CallRules, method: Method, handler: AnyHandler) =>
  (call: ServerWritableStream<object, object>): void => {
    const work = async (context: CallContext): Promise<void> => {
      const messages = handler(decoded(call.request), context) as AsyncIterable<object>
      // One message at a time: a client that does not read stops the source, and fills no memory.
      for await (const message of messages) {
        await written(call, message, context.signal)
        // Watch messages fit into socket buffers, so a completed write does not show that the client lives.
        if (!method.isEndless) context.client.lease.renew()
      }
      if (context.signal.aborted) throw abortReason(context.signal)
    }
    const how = { object: () => objectOf(call.request), holdsLease: false }
    runCall(rules, method, call, how, work).then(
      () => call.end(),
      (error: unknown) => {
        if (!call.cancelled) call.emit('error', toStatusObject(toVfiodError(error)))
      },
    )
  }

const serve = (
  rules: CallRules,
  kind: { readonly requestStream: boolean; readonly responseStream: boolean },
  method: Method,
  handler: AnyHandler,
): UntypedHandleCall => {
  if (kind.responseStream) return serverStream(rules, method, handler) as UntypedHandleCall
  if (kind.requestStream) return clientStream(rules, method, handler) as UntypedHandleCall
  return unary(rules, method, handler) as UntypedHandleCall
}

/** The handlers of a service as grpc-js takes them. */
export const implementation = <Name extends ServiceName>(
  rules: CallRules,
  service: Name,
  handlers: { readonly [Method in keyof Services[Name]]?: unknown },
): UntypedServiceImplementation =>
  Object.fromEntries(
    methodsOf(service).map(([name, definition]) => {
      const handler = (handlers as Readonly<Record<string, AnyHandler>>)[name]
      if (handler === undefined) throw new Error(`${definition.path} has no handler`)
      const policy = methodPolicyOf(service, name)
      const isEndless = name.startsWith('Watch')
      const method = { name: definition.path.slice(1), isEndless, policy }
      return [name, serve(rules, definition, method, handler)]
    }),
  )

/** What calls of a method that no service has are answered with. */
export const unknownMethod = (rules: CallRules, wanted: string): UntypedHandleCall => {
  const path = sendable(wanted, TEXT_MAX)
  const refuse = () => {
    throw new VfiodError(
      'UNSUPPORTED',
      `Cannot call ${path}: this daemon has no such method; reflection lists those that it has`,
      { resource: { type: 'rpc', name: path.slice(1) } },
    )
  }
  const policy: MethodPolicy = { role: 'none', isAudited: false, maxBytes: LIMITS.requestBytes }
  const method: Method = { name: path.slice(1), isEndless: false, policy }
  return clientStream(rules, method, refuse) as UntypedHandleCall
}
