/**
 * Refusals before a handler runs, and those of grpc-js itself: a connection too many, a method that
 * does not exist, a message too large, bytes that are not a message. They are answered as every other
 * refusal is: with a reason of the closed list and its details.
 *
 * grpc-js sends its own refusals through `sendStatus` of the call at the bottom, below every
 * responder of an interceptor, so that method is replaced for each call.
 */
import { type ServerInterceptingCall, type ServerInterceptor, status } from '@grpc/grpc-js'
import { badArgument, VfiodError } from '../../base/error.ts'
import { LIMITS } from '../../base/limits.ts'
import { DETAILS_KEY } from '../../wire/status-details.ts'
import { POLICY_BY_PATH } from '../call/method-policy.ts'
import type { Pipeline } from '../call/pipeline.ts'
import { toStatusObject, toVfiodError } from '../call/status.ts'
import type { ConnectionPeer } from '../identity/connection-peer.ts'
import type { Log } from '../identity/log.ts'

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

export interface TransportRules {
  /** Why calls of this peer are refused, whatever they are; tells that one is being answered. */
  readonly refusalOf: (token: string) => VfiodError | undefined
  /** The peer behind `call.getPeer()`; throws UNKNOWN_PEER. */
  readonly peerOf: (token: string) => ConnectionPeer
  readonly pipeline: Pipeline
  readonly log: Log
}

/** Of a call of grpc-js, what it does not show: read and set before it has read anything. */
interface Unread {
  readonly incomingEncoding: string
  maxReceiveMessageSize: number
  readonly decoder: { maxReadMessageLength: number }
}

/** Packed messages are small on the wire and large in memory, so nothing is unpacked. */
function requirePlain({ incomingEncoding }: Unread): void {
  if (incomingEncoding === 'identity') return
  throw new VfiodError(
    'UNSUPPORTED',
    `Cannot decompress the request: its encoding is "${incomingEncoding}"; send identity`,
  )
}

/**
 * Put into the server, it sees every call of every service, health and reflection among them, before
 * a byte of its messages is looked at: the role that the method needs, the rate of the identity and
 * that its process lives are checked here, and how many bytes a message may have is set.
 */
export const transportRefusals = (rules: TransportRules): ServerInterceptor => {
  const { refusalOf, peerOf, pipeline, log } = rules
  return ({ path }, call) => {
    const name = path.slice(1)
    const send = call.sendStatus.bind(call)
    const refuse = (error: VfiodError): void => {
      const { reason, message, cause } = error
      const fields = { method: name, reason }
      if (reason === 'BUG') log.error({ ...fields, err: cause }, 'call failed by a mistake')
      else log.info({ ...fields, refusal: message }, 'call refused')
      send(toStatusObject(error))
    }
    call.sendStatus = (answer) => {
      const { code = status.UNKNOWN, details = '', metadata } = answer
      const isExplained = code === status.OK || metadata?.get(DETAILS_KEY).length
      const error = isExplained ? undefined : explanationOf(code, details)
      if (error === undefined) send({ ...answer, code, details })
      else refuse(error)
    }
    // Nothing is read from such a call, and no handler runs.
    const unheard = (error: VfiodError) => {
      call.start = () => send(toStatusObject(error))
    }
    const policy = POLICY_BY_PATH.get(path)
    const unread = call as unknown as Unread
    unread.maxReceiveMessageSize = policy?.maxBytes ?? LIMITS.requestBytes
    unread.decoder.maxReadMessageLength = unread.maxReceiveMessageSize
    try {
      const refusal = refusalOf(call.getPeer())
      if (refusal !== undefined) throw refusal
      requirePlain(unread)
      const peer = () => peerOf(call.getPeer())
      if (policy !== undefined) pipeline.admit({ name, policy }, peer)
    } catch (error) {
      unheard(toVfiodError(error))
    }
    // The call itself, so that messages pass through no further hands; the server asks for no more.
    return call as ServerInterceptingCall
  }
}
