/**
 * What happens around every call, in one place: who calls, is it cancelled, what does an error
 * become, one log line. A handler is what is left: `async (request, { client }) => response`.
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
import type { Client } from '../../domain/identity/clients.ts'
import { methodsOf, type ServiceName, type Services } from '../../wire/protos.ts'
import { sendable, TEXT_MAX } from '../../wire/status-details.ts'
import type { ConnectionPeer } from '../identity/connection-peer.ts'
import type { Log } from '../identity/log.ts'
import { heardFrom, holdLease } from '../identity/remote.ts'
import { decoded } from './decode.ts'
import type { Running } from './in-flight.ts'
import { type Access, accessOf, objectOf } from './method-policy.ts'
import { logOutcome, type Method } from './outcome.ts'
import { toStatusObject, toVfiodError } from './status.ts'

/** What a handler knows besides the request. */
export interface Caller {
  readonly client: Client
  /** Names the connection that the call came on. */
  readonly connection: string
  /** Aborted when the call is cancelled, its deadline passes, or the client is gone. */
  readonly signal: AbortSignal
}

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
    ? (request: Request, caller: Caller) => Response | Promise<Response>
    : Generated extends handleServerStreamingCall<infer Request, infer Response>
      ? (request: Request, caller: Caller) => AsyncIterable<Response | Chunk>
      : Generated extends handleClientStreamingCall<infer Request, infer Response>
        ? (requests: AsyncIterable<Request>, caller: Caller) => Promise<Response>
        : never

type AnyHandler = (request: object, caller: Caller) => unknown

/** What every kind of call has. */
interface AnyCall {
  getPeer(): string
  on(event: 'cancelled', listener: () => void): unknown
}

export interface CallRules {
  /** The peer behind `call.getPeer()`; throws UNKNOWN_PEER. */
  readonly peerOf: (token: string) => ConnectionPeer
  readonly running: Running
  readonly log: Log
}

const cancelled = (): VfiodError => new VfiodError('CANCELLED', 'The call was cancelled')

/** Why the signal was aborted: the daemon has its reasons (DRAINING), a client has none. */
const abortReason = ({ reason }: AbortSignal): VfiodError =>
  reason instanceof VfiodError ? reason : cancelled()

/** Runs the work of one call; what it throws is always a VfiodError. */
const runCall = async <Result>(
  { peerOf, running, log }: CallRules,
  method: Method,
  call: AnyCall,
  /** What the call is about, for the audit; a client stream names it in its first message. */
  object: () => Readonly<Record<string, unknown>>,
  work: (caller: Caller) => Promise<Result>,
): Promise<Result> => {
  const started = performance.now()
  const abort = new AbortController()
  call.on('cancelled', () => abort.abort())
  let peer: ConnectionPeer | undefined
  let client: Client | undefined
  let failure: VfiodError | undefined
  try {
    peer = peerOf(call.getPeer())
    client = peer.current()
    const leave = running.enter({ client, abort, isEndless: method.isEndless })
    try {
      return await work({ client, connection: call.getPeer(), signal: abort.signal })
    } finally {
      leave()
    }
  } catch (error) {
    failure = abort.signal.aborted ? abortReason(abort.signal) : toVfiodError(error)
    throw failure
  } finally {
    const ms = Math.round(performance.now() - started)
    const who = { client: client?.id, identity: peer?.identity }
    logOutcome(log, method, { ...who, object: object(), ms, failure })
  }
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
    const work = async (caller: Caller) => {
      const letGo = holdLease(caller.client)
      try {
        return (await handler(decoded(call.request), caller)) as object
      } finally {
        letGo()
      }
    }
    void respond(
      runCall(rules, method, call, () => objectOf(call.request), work),
      reply,
    )
  }

/**
 * The requests of a client stream. A client on grpc-js that cancels sends the end of its stream and
 * then the reset, so a stream that has ended may be one that was cancelled. The call is asked before
 * its end is believed; sending headers is what makes grpc-js look. A reset that comes later still is
 * not seen, which is why WriteSession answers with a number of bytes to compare.
 */
async function* received(
  call: ServerReadableStream<object, object>,
  { client, signal }: Caller,
): AsyncGenerator<object, void> {
  // A client that is gone sends neither a message nor an end: the daemon's own reasons end the wait.
  const giveUp = () => call.destroy(abortReason(signal))
  if (signal.aborted) giveUp()
  signal.addEventListener('abort', giveUp, { once: true })
  for await (const request of call) {
    const letGo = holdLease(client)
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
    const requests = async function* (caller: Caller) {
      for await (const request of received(call, caller)) {
        first ??= request
        yield request
      }
    }
    const work = async (caller: Caller) => (await handler(requests(caller), caller)) as object
    void respond(
      runCall(rules, method, call, () => objectOf(first ?? {}), work),
      reply,
    )
  }

/** Resolves when the message is on its way: its buffer may be used again. Rejects when it never will. */
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
    const work = async (caller: Caller): Promise<void> => {
      const messages = handler(decoded(call.request), caller) as AsyncIterable<object>
      // One message at a time: a client that does not read stops the source, and fills no memory.
      for await (const message of messages) {
        await written(call, message, caller.signal)
        // What a watch sends fits the buffers on the way: that it left tells nothing of the client.
        if (!method.isEndless) heardFrom(caller.client)
      }
      if (caller.signal.aborted) throw abortReason(caller.signal)
    }
    runCall(rules, method, call, () => objectOf(call.request), work).then(
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
      const access = accessOf(service, name)
      const isEndless = name.startsWith('Watch')
      const method = { name: definition.path.slice(1), isEndless, access }
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
  const access: Access = { role: 'none', isAudited: false, maxBytes: LIMITS.requestBytes }
  const method: Method = { name: path.slice(1), isEndless: false, access }
  return clientStream(rules, method, refuse) as UntypedHandleCall
}
