/**
 * Refusals before a handler runs, and those of grpc-js itself: a connection too many, a method that
 * does not exist, a message too large, bytes that are not a message. They are answered as every other
 * refusal is: with a reason of the closed list and its details.
 *
 * grpc-js sends its own refusals through `sendStatus` of the call at the bottom, below every
 * responder of an interceptor, so that method is replaced for each call.
 */
import {
  type ServerInterceptingCall,
  type ServerInterceptor,
  type StatusObject,
  status,
} from '@grpc/grpc-js'
import { badArgument, VfiodError } from '../base/error.ts'
import { requestBytesOf } from '../wire/methods.ts'
import { toStatusObject, toVfiodError } from '../wire/status.ts'
import { DETAILS_KEY } from '../wire/status-details.ts'
import type { BottomCall, ForwardedCalls } from './forwarded-calls.ts'

/** Bytes as one of grpc-js's texts has them. */
const bytes = (digits: string | undefined): bigint => BigInt(digits ?? 0)

const tooLarge = (
  act: string,
  { needed, max }: { readonly needed: bigint; readonly max: bigint },
): VfiodError =>
  new VfiodError(
    'LIMIT_REACHED',
    `Cannot ${act}: it needs ${needed} bytes and a message may have ${max}; split the request, or ask for less`,
    { quota: { limit: 'bytes of one message', max, current: 0n, needed } },
  )

type Explain = (found: RegExpExecArray) => VfiodError

/**
 * What grpc-js refuses by itself, by its texts: the status alone does not tell one INTERNAL from
 * another. The tests cause each of them, so that other words in another version are noticed.
 */
const EXPLANATIONS: readonly (readonly [RegExp, Explain])[] = [
  [
    /^Received message larger than max \((\d+) vs (\d+)\)/,
    ([, needed, max]) => tooLarge('take the request', { needed: bytes(needed), max: bytes(max) }),
  ],
  [
    /^Sent message larger than max \((\d+) vs\. (\d+)\)/,
    ([, needed, max]) => tooLarge('send the answer', { needed: bytes(needed), max: bytes(max) }),
  ],
  [
    /^Error deserializing request/,
    () =>
      badArgument(
        'request',
        "Cannot decode the request: it is not a valid message of the method's request type; send one",
      ),
  ],
  [
    /^Invalid grpc-timeout value/,
    () =>
      badArgument(
        'grpc-timeout',
        'Cannot read the deadline: grpc-timeout is malformed; send up to eight digits and a unit',
      ),
  ],
  [
    /^Received (no|a second) request message/,
    ([, count]) =>
      badArgument('request', `Cannot serve the call: ${count} request arrived; send exactly one`),
  ],
]

/**
 * What grpc-js says when a message could not be written, because the stream or its connection is
 * gone: Node 24 says so of a client that leaves in the middle of an answer. The client has left,
 * so the status reaches no one; it is not logged as a bug.
 */
const UNWRITTEN = 'Internal server error'

/** Statuses that only a bug leads to, whatever the text of grpc-js is. */
const MISTAKES: readonly status[] = [status.INTERNAL, status.UNKNOWN]

/** The refusal behind a status of grpc-js's making; undefined for one that stands by itself. */
function explanationOf(code: status, text: string): VfiodError | undefined {
  for (const [pattern, explain] of EXPLANATIONS) {
    const found = pattern.exec(text)
    if (found !== null) return explain(found)
  }
  if (text === UNWRITTEN) return undefined
  return MISTAKES.includes(code) ? toVfiodError(new Error(text)) : undefined
}

/** Tells the owner of a call that was refused here: by the name of its connection. */
export type Refused = (
  peer: string,
  call: { readonly method: string; readonly reason: string; readonly refusal: string },
) => void

interface Cancellable {
  notifyOnCancel(): void
}

export interface TransportRules {
  readonly refused: Refused
  /** Why calls of this connection are refused, whatever they are; tells that one is being answered. */
  readonly refusalOf: (peer: string) => StatusObject | undefined
  /** Whether the owner decides about calls of this path; if not they are answered here. */
  readonly isOwners: (path: string) => boolean
  readonly head: ForwardedCalls['head']
  readonly cancelled: ForwardedCalls['cancelled']
}

/** Of a call of grpc-js, what it does not show: read and set before it has read anything. */
interface Unread {
  readonly incomingEncoding: string
  maxReceiveMessageSize: number
  readonly decoder: { maxReadMessageLength: number }
}

/** Packed messages are small on the wire and large in memory, so nothing is unpacked. */
const packed = ({ incomingEncoding }: Unread): VfiodError =>
  new VfiodError(
    'UNSUPPORTED',
    `Cannot decompress the request: its encoding is "${incomingEncoding}"; send identity`,
  )

/**
 * Put into the server, it sees every call of every service, health and reflection among them, before
 * a byte of its messages is looked at: how many bytes a message may have is set here. Role, rate and a
 * live peer are the owner's to check.
 */
export const transportRefusals =
  ({ refused, refusalOf, isOwners, head, cancelled }: TransportRules): ServerInterceptor =>
  ({ path }, call) => {
    const method = path.slice(1)
    const send = call.sendStatus.bind(call)
    const refuse = (error: VfiodError): void => {
      const { reason, message: refusal } = error
      refused(call.getPeer(), { method, reason, refusal })
      send(toStatusObject(error))
    }
    call.sendStatus = (answer) => {
      const { code = status.UNKNOWN, details = '', metadata } = answer
      const isExplained = code === status.OK || metadata?.get(DETAILS_KEY).length
      const error = isExplained ? undefined : explanationOf(code, details)
      if (error === undefined) send({ ...answer, code, details })
      else refuse(error)
    }
    const unread = call as unknown as Unread
    unread.maxReceiveMessageSize = requestBytesOf(path)
    unread.decoder.maxReadMessageLength = unread.maxReceiveMessageSize
    const refusal = refusalOf(call.getPeer())
    // Nothing is read from a call that is refused, and no handler runs.
    if (refusal !== undefined) call.start = () => send(refusal)
    else if (unread.incomingEncoding !== 'identity') call.start = () => refuse(packed(unread))
    else if (isOwners(path)) {
      const bottom = call as unknown as BottomCall & Cancellable
      head(path, bottom, send)
      const notify = bottom.notifyOnCancel.bind(bottom)
      // Comes at the end of every call, also of those that are answered.
      bottom.notifyOnCancel = () => {
        notify()
        cancelled(bottom)
      }
    }
    // The call itself, so that messages pass through no further hands; the server asks for no more.
    return call as ServerInterceptingCall
  }
