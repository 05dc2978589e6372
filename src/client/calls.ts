/**
 * One method of a service as a function: promises and async iterables instead of callbacks and
 * emitters. The types come from the generated clients, so a new RPC is here once it is generated.
 */
import { setTimeout as pause } from 'node:timers/promises'
import type {
  Client,
  ClientReadableStream,
  ClientUnaryCall,
  ClientWritableStream,
  CallOptions as GrpcCallOptions,
  requestCallback,
} from '@grpc/grpc-js'
import { Metadata } from '@grpc/grpc-js'
import type { MethodDefinition } from '@grpc/proto-loader'
import type { Chunk } from '../base/chunk.ts'
import { deadlineExceeded, RpcError, toRpcError } from './rpc-error.ts'

export interface CallOptions {
  /** Cancels the call; it then rejects with status CANCELLED. */
  readonly signal?: AbortSignal
  /** How long the call may take. */
  readonly timeoutMs?: number
  /** Headers, for tests: the daemon reads none. */
  readonly headers?: Readonly<Record<string, string>>
}

/** How long calls wait for the daemon where their options do not say. */
export interface Patience {
  /**
   * Milliseconds until the answer to a call, or until the first message of its stream; undefined for
   * no limit. An upload is not limited: it takes as long as it has bytes.
   */
  answerMs(): number | undefined
  /** Called for each answer and each first message. */
  answered(): void
}

/** Waits as long as it takes. */
export const ENDLESS: Patience = { answerMs: () => undefined, answered: () => {} }

/** The messages of a server stream. Leaving the loop cancels the call. */
export interface Messages<Message> extends AsyncIterable<Message> {
  cancel(): void
}

/** `Client` here is a generated one, whose last overload of each method tells what kind it is. */
export type Calls<GeneratedClient> = {
  readonly [Name in LowerMethods<GeneratedClient>]: Call<GeneratedClient[Name]>
}

/** The generated client has each method as in the proto and in lower camel case; the latter here. */
type LowerMethods<GeneratedClient> = Extract<
  Exclude<keyof GeneratedClient, keyof Client>,
  Uncapitalize<Extract<keyof GeneratedClient, string>>
>

/** Client streams first: a writable stream can pass for a unary call, not the other way round. */
type Call<Method> = Method extends (
  callback: requestCallback<infer Response>,
) => ClientWritableStream<infer Request>
  ? (requests: Requests<Request | Chunk>, options?: CallOptions) => Promise<Response>
  : Method extends (
        request: infer Request,
        callback: requestCallback<infer Response>,
      ) => ClientUnaryCall
    ? (request?: Request, options?: CallOptions) => Promise<Response>
    : Method extends (
          request: infer Request,
          options?: GrpcCallOptions,
        ) => ClientReadableStream<infer Response>
      ? (request?: Request, options?: CallOptions) => Messages<Response>
      : never

export type Requests<Request> = AsyncIterable<Request> | Iterable<Request>

type Definition = MethodDefinition<object, object>

const metadataOf = ({ headers = {} }: CallOptions): Metadata => {
  const metadata = new Metadata()
  for (const [key, value] of Object.entries(headers)) metadata.set(key, value)
  return metadata
}

const grpcOptions = (timeoutMs: number | undefined): GrpcCallOptions =>
  timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs }

/** Cancels with the signal, and leaves the signal without a listener once the call is over. */
const cancelWith = (
  signal: AbortSignal | undefined,
  call: { cancel(): void; once(event: 'status', listener: () => void): unknown },
): void => {
  if (signal === undefined) return
  const cancel = () => call.cancel()
  signal.addEventListener('abort', cancel, { once: true })
  call.once('status', () => signal.removeEventListener('abort', cancel))
  if (signal.aborted) cancel()
}

/** How long a client waits for a place among the connections that the daemon has yet to accept. */
const FULL_QUEUE_MS = 10_000
const TRY_AGAIN_MS = 100

/** No call was sent: connect(2) of a Unix socket does not wait where many connect at the same time. */
const isQueueFull = (error: unknown): boolean =>
  error instanceof RpcError &&
  error.status === 'UNAVAILABLE' &&
  error.message.includes('connect EAGAIN')

/** The answer of a call, which is tried again for as long as the queue of the socket is full. */
const whenQueued = async (
  call: () => Promise<object>,
  { timeoutMs, signal }: { readonly timeoutMs: number; readonly signal: AbortSignal | undefined },
): Promise<object> => {
  const until = performance.now() + timeoutMs
  for (;;) {
    try {
      return await call()
    } catch (error) {
      const isOver = signal?.aborted === true || performance.now() + TRY_AGAIN_MS > until
      if (!isQueueFull(error) || isOver) throw error
    }
    await pause(TRY_AGAIN_MS)
  }
}

export const unaryCall =
  (client: Client, method: Definition, patience = ENDLESS) =>
  (request: object = {}, options: CallOptions = {}): Promise<object> =>
    whenQueued(() => oneCall(client, method, { request, options, patience }), {
      timeoutMs: options.timeoutMs ?? patience.answerMs() ?? FULL_QUEUE_MS,
      signal: options.signal,
    })

const oneCall = (
  client: Client,
  method: Definition,
  {
    request,
    options,
    patience,
  }: { readonly request: object; readonly options: CallOptions; readonly patience: Patience },
): Promise<object> =>
  new Promise((resolve, reject) => {
    const call = client.makeUnaryRequest<object, object>(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      request,
      metadataOf(options),
      grpcOptions(options.timeoutMs ?? patience.answerMs()),
      (error, response) => {
        if (!error) patience.answered()
        if (error) reject(toRpcError(method.path.slice(1), error))
        else resolve(response as object)
      },
    )
    cancelWith(options.signal, call)
  })

/** The messages of a call, which is cancelled when the first one takes too long. */
async function* firstInTime(
  call: ClientReadableStream<object>,
  method: string,
  patience: Patience,
): AsyncGenerator<object, void> {
  const ms = patience.answerMs()
  let late: RpcError | undefined
  const tooLate = () => {
    late = deadlineExceeded(method, ms ?? 0)
    call.cancel()
  }
  const timer = ms === undefined ? undefined : setTimeout(tooLate, ms)
  try {
    for await (const message of call as AsyncIterable<object>) {
      clearTimeout(timer)
      patience.answered()
      yield message
    }
  } catch (error) {
    throw late ?? error
  } finally {
    clearTimeout(timer)
  }
  if (late !== undefined) throw late
}

export const serverStreamCall =
  (client: Client, method: Definition, patience = ENDLESS) =>
  (request: object = {}, options: CallOptions = {}): Messages<object> => {
    const call = client.makeServerStreamRequest<object, object>(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      request,
      metadataOf(options),
      grpcOptions(options.timeoutMs),
    )
    const name = method.path.slice(1)
    // Until it is first read, grpc-js takes in whatever arrives; from then on it holds the sender back.
    call.read(0)
    // The call may fail before anyone iterates, and an unheard 'error' would end the process.
    let failure: unknown
    call.on('error', (error) => {
      failure ??= error
    })
    cancelWith(options.signal, call)
    return {
      cancel: () => call.cancel(),
      async *[Symbol.asyncIterator]() {
        try {
          yield* firstInTime(call, name, patience)
          if (failure !== undefined) throw failure
        } catch (error) {
          throw toRpcError(name, error)
        } finally {
          call.cancel()
        }
      },
    }
  }

/** Each request waits until the one before it has been sent, so its buffer may be used again then. */
const sendAll = async (
  call: ClientWritableStream<object>,
  requests: Requests<object>,
  over: AbortSignal,
): Promise<void> => {
  // A message of a call that has ended is never written, so a sender that waits for one continues.
  let goOn = () => {}
  over.addEventListener('abort', () => goOn(), { once: true })
  for await (const request of requests) {
    if (over.aborted) return
    await new Promise<void>((resolve) => {
      goOn = resolve
      call.write(request, () => resolve())
    })
  }
  call.end()
}

export const clientStreamCall =
  (client: Client, method: Definition) =>
  (requests: Requests<object>, options: CallOptions = {}): Promise<object> =>
    new Promise((resolve, reject) => {
      const over = new AbortController()
      const call = client.makeClientStreamRequest<object, object>(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        metadataOf(options),
        grpcOptions(options.timeoutMs),
        (error, response) => {
          over.abort()
          if (error) reject(toRpcError(method.path.slice(1), error))
          else resolve(response as object)
        },
      )
      cancelWith(options.signal, call)
      sendAll(call, requests, over.signal).catch((error: unknown) => {
        // The source of the requests failed: its error is the caller's, not the daemon's.
        reject(error)
        call.cancel()
      })
    })
