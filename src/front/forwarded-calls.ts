/** ForwardedCalls of clients, handed on to the owner as they come: messages in bytes, nothing decoded. */
import {
  Metadata,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceDefinition,
  type StatusObject,
  type sendUnaryData,
  type UntypedHandleCall,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js'
import { FROM_FRONT } from '../link/frames.ts'
import { decodeStatusFrame } from '../link/status-frame.ts'
import { type ApiMethod, METHODS } from '../wire/methods.ts'
import { DETAILS_KEY } from '../wire/status-details.ts'
import type { CallId, OwnerLink } from './owner-link.ts'

/** Messages of a client stream that are sent on before the owner asks for more. */
const UPLOAD_MESSAGES = 2

/** What the owner does to a call. */
export interface OpenCall {
  /** The one response of a call that has one, or a message of its stream. */
  readonly message: (bytes: Buffer, free?: () => void) => void
  readonly done: () => void
  readonly fail: (status: StatusObject) => void
  /** One more message of the client stream is welcome. */
  readonly credit: () => void
}

/** Where calls are known by their numbers until they are answered. */
export interface CallTable {
  /** Numbers a call of the connection that has this name. */
  open(peer: string, call: OpenCall): CallId
  /** Forgets a call; answers whether it was known. */
  close(id: CallId): boolean
  isOpen(id: CallId): boolean
}

export const statusOf = (payload: Buffer): StatusObject => {
  const { code, message, details } = decodeStatusFrame(payload)
  const metadata = new Metadata()
  if (details.length > 0) metadata.set(DETAILS_KEY, details)
  return { code, details: message, metadata }
}

const nothing = (): void => {}

/** A call of grpc-js at its bottom, below every interceptor. */
export interface BottomCall {
  /** The object that the handler's call has as its metadata. */
  readonly metadata: Metadata
  getPeer(): string
}

const PLACES: ReadonlyMap<string, number> = new Map(METHODS.map(({ path }, index) => [path, index]))

/** A call whose head was sent on. */
interface Opened {
  readonly id: CallId
  open: OpenCall
}

export class ForwardedCalls {
  readonly #link: OwnerLink
  readonly #table: CallTable
  /** By the metadata of the call, which its handler has as well. */
  readonly #opened = new WeakMap<Metadata, Opened>()

  constructor(link: OwnerLink, table: CallTable) {
    this.#link = link
    this.#table = table
  }

  /**
   * Sends on the head of a call, before anything else of it is read. The owner may refuse it at any
   * time from then on.
   */
  head(path: string, call: BottomCall, refuse: (status: StatusObject) => void): void {
    const opened: Opened = {
      id: this.#table.open(call.getPeer(), {
        message: (bytes, free) => opened.open.message(bytes, free),
        done: () => opened.open.done(),
        fail: refuse,
        credit: () => opened.open.credit(),
      }),
      open: { message: nothing, done: nothing, fail: refuse, credit: nothing },
    }
    this.#opened.set(call.metadata, opened)
    const place = PLACES.get(path)
    if (place === undefined) {
      this.#link.send(FROM_FRONT.openUnknown, opened.id, Buffer.from(path, 'latin1'))
      return
    }
    const payload = Buffer.allocUnsafe(2)
    payload.writeUInt16LE(place)
    this.#link.send(FROM_FRONT.open, opened.id, payload)
  }

  /** The client no longer wants an answer: it cancelled, its deadline passed, it hung up. */
  cancelled(call: BottomCall): void {
    const id = this.#opened.get(call.metadata)?.id
    if (id !== undefined && this.#table.close(id)) this.#link.send(FROM_FRONT.cancel, id)
  }

  /** Every method of the API, each as a service that grpc-js takes. */
  services(): readonly (readonly [ServiceDefinition, UntypedServiceImplementation])[] {
    const asIs = (bytes: Buffer): Buffer => bytes
    return METHODS.map((method) => {
      const { path, isClientStream, isServerStream } = method
      const definition = {
        path,
        requestStream: isClientStream,
        responseStream: isServerStream,
        requestSerialize: asIs,
        requestDeserialize: asIs,
        responseSerialize: asIs,
        responseDeserialize: asIs,
      }
      return [{ [path]: definition }, { [path]: this.#handler(method) }]
    })
  }

  /** A method that does not exist: its head is all that is sent on. */
  unknown(): UntypedHandleCall {
    return nothing as unknown as UntypedHandleCall
  }

  #handler({ isClientStream, isServerStream }: ApiMethod): UntypedHandleCall {
    if (isServerStream)
      return ((call: ServerWritableStream<Buffer, Buffer>) =>
        this.#serverStream(call)) as UntypedHandleCall
    if (isClientStream)
      return ((call: ServerReadableStream<Buffer, Buffer>, reply: sendUnaryData<Buffer>) =>
        this.#clientStream(call, reply)) as UntypedHandleCall
    return ((call: ServerUnaryCall<Buffer, Buffer>, reply: sendUnaryData<Buffer>) => {
      const opened = this.#of(call)
      opened.open = { ...opened.open, message: (bytes) => reply(null, bytes) }
      this.#link.send(FROM_FRONT.request, opened.id, call.request)
    }) as UntypedHandleCall
  }

  #of({ metadata }: { readonly metadata: Metadata }): Opened {
    const opened = this.#opened.get(metadata)
    if (opened === undefined) throw new Error('a call has no head')
    return opened
  }

  #serverStream(call: ServerWritableStream<Buffer, Buffer>): void {
    const opened = this.#of(call)
    const { id } = opened
    const message = (bytes: Buffer, free: () => void = nothing) => {
      // grpc-js forgets the callback of a message that it drops because the call is cancelled.
      let isFree = false
      const freeOnce = () => {
        if (!isFree) free()
        isFree = true
      }
      call.once('close', freeOnce)
      call.write(bytes, (error: Error | null | undefined) => {
        call.off('close', freeOnce)
        freeOnce()
        if (!error && this.#table.isOpen(id)) this.#link.send(FROM_FRONT.taken, id)
      })
    }
    opened.open = { ...opened.open, message, done: () => call.end() }
    this.#link.send(FROM_FRONT.request, id, call.request)
  }

  /**
   * A client on grpc-js that cancels sends the end of its stream and then the reset, so a stream that
   * has ended may be one that was cancelled. The call is asked before its end is believed; sending
   * headers is what makes grpc-js look. A reset that comes later still is not seen, which is why
   * WriteSession answers with a number of bytes to compare.
   */
  #clientStream(call: ServerReadableStream<Buffer, Buffer>, reply: sendUnaryData<Buffer>): void {
    const opened = this.#of(call)
    const { id } = opened
    let credits = UPLOAD_MESSAGES
    const credit = () => {
      credits += 1
      call.resume()
    }
    opened.open = { ...opened.open, message: (bytes) => reply(null, bytes), credit }
    call.on('data', (message: Buffer) => {
      credits -= 1
      if (credits === 0) call.pause()
      if (this.#table.isOpen(id)) this.#link.sendMessage(id, message)
    })
    call.on('end', () => {
      if (!this.#table.isOpen(id)) return
      call.sendMetadata(new Metadata())
      setImmediate(() => {
        if (!call.cancelled && this.#table.isOpen(id)) this.#link.send(FROM_FRONT.end, id)
      })
    })
    call.on('error', nothing)
  }
}
