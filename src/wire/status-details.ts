/**
 * What an error says beyond its status: google.rpc.Status with the standard details, as every gRPC
 * library decodes it from the `grpc-status-details-bin` trailer. Encoded by the daemon, decoded by
 * the client; what goes in comes out again, up to the bounds that keep it inside a header block.
 */
import type { Blocker, Details, HolderDetail, LimitHit, VfiodError } from '../base/error.ts'
import type { BadRequest, BadRequest__Output } from '../proto/google/rpc/BadRequest.ts'
import type { ErrorInfo, ErrorInfo__Output } from '../proto/google/rpc/ErrorInfo.ts'
import type {
  PreconditionFailure,
  PreconditionFailure__Output,
} from '../proto/google/rpc/PreconditionFailure.ts'
import type { QuotaFailure, QuotaFailure__Output } from '../proto/google/rpc/QuotaFailure.ts'
import type { ResourceInfo, ResourceInfo__Output } from '../proto/google/rpc/ResourceInfo.ts'
import type { RetryInfo, RetryInfo__Output } from '../proto/google/rpc/RetryInfo.ts'
import type { Status, Status__Output } from '../proto/google/rpc/Status.ts'
import { messageType } from './protos.ts'

/** Where gRPC libraries look for the details. */
export const DETAILS_KEY = 'grpc-status-details-bin'

/** The domain of every ErrorInfo; a reason means something only together with it. */
export const ERROR_DOMAIN = 'vfiod'

// Clients refuse trailers beyond 8 KiB, so everything that goes into them is bounded. The message
// travels twice, as grpc-message and inside the details, which are then a third longer in base64.
/** Bytes of the message, as grpc-message encodes it. */
export const MESSAGE_MAX = 2048
/** Bytes of any other text. */
export const TEXT_MAX = 256
/** Bytes of all blockers; those beyond it are counted, not named. */
export const BLOCKERS_MAX = 2048

const status = messageType<Status, Status__Output>('google.rpc.Status')
const errorInfo = messageType<ErrorInfo, ErrorInfo__Output>('google.rpc.ErrorInfo')
const precondition = messageType<PreconditionFailure, PreconditionFailure__Output>(
  'google.rpc.PreconditionFailure',
)
const quotaFailure = messageType<QuotaFailure, QuotaFailure__Output>('google.rpc.QuotaFailure')
const resourceInfo = messageType<ResourceInfo, ResourceInfo__Output>('google.rpc.ResourceInfo')
const badRequest = messageType<BadRequest, BadRequest__Output>('google.rpc.BadRequest')
const retryInfo = messageType<RetryInfo, RetryInfo__Output>('google.rpc.RetryInfo')

const TYPE_PREFIX = 'type.googleapis.com/google.rpc.'
const any = (name: string, value: Buffer) => ({ type_url: TYPE_PREFIX + name, value })

/**
 * A text for people: at most `max` bytes once encoded, and without lone surrogates. grpc-js encodes
 * messages with encodeURI, which throws on half a character, long after any handler could catch it.
 */
export const sendable = (text: string, max: number): string => {
  const whole = text.slice(0, max + 1).replace(/\p{Surrogate}/gu, '\ufffd')
  if (encodeURI(whole).length <= max) return whole
  let size = ELLIPSIS.length * 3
  let kept = ''
  for (const character of whole) {
    size += encodeURI(character).length
    if (size > max) break
    kept += character
  }
  return kept + ELLIPSIS
}

const ELLIPSIS = ' ...'

const short = (text: string): string => sendable(text, TEXT_MAX)

/** Found and fix share one description in the standard message; this parts them. */
const FIX_SEPARATOR = '; '

const blockerViolations = (reason: string, blockers: readonly Blocker[]) => {
  let size = 0
  const sent = []
  for (const { subject, found, fix } of blockers) {
    const description = `${short(found)}${FIX_SEPARATOR}${short(fix)}`
    size += reason.length + subject.length + description.length
    if (size > BLOCKERS_MAX) break
    sent.push({ type: reason, subject: short(subject), description })
  }
  const left = blockers.length - sent.length
  if (left === 0) return sent
  return [...sent, { type: reason, subject: `${left} more`, description: NOT_NAMED }]
}

const NOT_NAMED = `block the call too${FIX_SEPARATOR}clear the named ones first`

/** Names of causes have no comma. */
const CAUSE_SEPARATOR = ','

const quotaMetadata = ({ limit, max, current, needed }: LimitHit): Record<string, string> => ({
  limit: short(limit),
  max: String(max),
  current: String(current),
  needed: String(needed),
})

const LIST_SEPARATOR = ','

const holderMetadata = ({ client, space, pids, paths }: HolderDetail): Record<string, string> => ({
  ...(client === undefined ? {} : { holder_client: short(client) }),
  ...(space === undefined ? {} : { holder_space: short(space) }),
  ...(pids === undefined ? {} : { holder_pids: short(pids.join(LIST_SEPARATOR)) }),
  ...(paths === undefined ? {} : { holder_paths: short(paths.join(LIST_SEPARATOR)) }),
})

const metadataOf = (details: Details): Record<string, string> => ({
  ...kernelMetadata(details),
  ...(details.holder === undefined ? {} : holderMetadata(details.holder)),
  ...(details.deviceState === undefined ? {} : { device_state: short(details.deviceState) }),
})

const kernelMetadata = ({ op, errno, causes, quota }: Details): Record<string, string> => ({
  ...(op === undefined ? {} : { op: short(op) }),
  ...(errno === undefined ? {} : { errno: short(errno) }),
  ...(causes === undefined || causes.length === 0
    ? {}
    : { causes: short(causes.join(CAUSE_SEPARATOR)) }),
  ...(quota === undefined ? {} : quotaMetadata(quota)),
})

/** google.rpc.Status of an error, for the `grpc-status-details-bin` trailer. */
export const encodeStatus = (code: number, error: VfiodError): Buffer => {
  const { reason, details } = error
  const { blockers, quota, field, resource, retryAfterMs } = details
  const message = sendable(error.message, MESSAGE_MAX)
  const parts = [
    any(
      'ErrorInfo',
      errorInfo.serialize({ reason, domain: ERROR_DOMAIN, metadata: metadataOf(details) }),
    ),
  ]
  if (blockers !== undefined && blockers.length > 0) {
    const violations = blockerViolations(reason, blockers)
    parts.push(any('PreconditionFailure', precondition.serialize({ violations })))
  }
  if (quota !== undefined) {
    const description = `at most ${quota.max}, ${quota.current} in use, ${quota.needed} needed`
    const violations = [{ subject: short(quota.limit), description }]
    parts.push(any('QuotaFailure', quotaFailure.serialize({ violations })))
  }
  if (field !== undefined) {
    const fieldViolations = [{ field: short(field), description: short(message) }]
    parts.push(any('BadRequest', badRequest.serialize({ fieldViolations })))
  }
  if (resource !== undefined) {
    parts.push(
      any(
        'ResourceInfo',
        resourceInfo.serialize({
          resourceType: short(resource.type),
          resourceName: short(resource.name),
          owner: short(resource.owner ?? ''),
        }),
      ),
    )
  }
  if (retryAfterMs !== undefined) {
    const seconds = Math.floor(retryAfterMs / 1000)
    const nanos = Math.round((retryAfterMs % 1000) * 1e6)
    parts.push(any('RetryInfo', retryInfo.serialize({ retryDelay: { seconds, nanos } })))
  }
  return status.serialize({ code, message, details: parts })
}

/** An error as it arrived: the reason is text, for the daemon may be newer than the client. */
export interface DecodedStatus {
  readonly code: number
  readonly message: string
  /** Empty when the error did not come from vfiod. */
  readonly reason: string
  readonly details: Details
}

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] }

const blockerOf = (violation: { subject: string; description: string }): Blocker => {
  const [found = '', ...fix] = violation.description.split(FIX_SEPARATOR)
  return { subject: violation.subject, found, fix: fix.join(FIX_SEPARATOR) }
}

/** The decimal number, or undefined: a foreign server may say anything. */
const count = (text: string | undefined): bigint | undefined =>
  text !== undefined && /^\d{1,20}$/.test(text) ? BigInt(text) : undefined

const quotaOf = (metadata: Readonly<Record<string, string>>): LimitHit | undefined => {
  const { limit } = metadata
  const max = count(metadata.max)
  const current = count(metadata.current)
  const needed = count(metadata.needed)
  if (limit === undefined || max === undefined) return undefined
  return current === undefined || needed === undefined ? undefined : { limit, max, current, needed }
}

const listOf = (text: string): string[] => text.split(LIST_SEPARATOR)

const holderOf = (metadata: Readonly<Record<string, string>>): HolderDetail | undefined => {
  const { holder_client: client, holder_space: space } = metadata
  const { holder_pids: pids, holder_paths: paths } = metadata
  if ([client, space, pids, paths].every((text) => text === undefined)) return undefined
  return {
    ...(client === undefined ? {} : { client }),
    ...(space === undefined ? {} : { space }),
    ...(pids === undefined ? {} : { pids: listOf(pids).map(Number).filter(Number.isInteger) }),
    ...(paths === undefined ? {} : { paths: listOf(paths) }),
  }
}

/** Decodes the `grpc-status-details-bin` trailer; null for bytes that are not a google.rpc.Status. */
export const decodeStatus = (bytes: Buffer): DecodedStatus | null => {
  try {
    return decode(bytes)
  } catch {
    return null
  }
}

const decode = (bytes: Buffer): DecodedStatus => {
  const { code, message, details: parts } = status.deserialize(bytes)
  const details: Mutable<Details> = {}
  let reason = ''
  for (const part of parts) {
    const { type_url: url, value } = part
    switch (url.startsWith(TYPE_PREFIX) ? url.slice(TYPE_PREFIX.length) : '') {
      case 'ErrorInfo': {
        const info = errorInfo.deserialize(value)
        reason = info.domain === ERROR_DOMAIN ? info.reason : ''
        const { op, errno, causes } = info.metadata
        if (op !== undefined) details.op = op
        if (errno !== undefined) details.errno = errno
        if (causes !== undefined && causes !== '') details.causes = causes.split(CAUSE_SEPARATOR)
        const quota = quotaOf(info.metadata)
        if (quota !== undefined) details.quota = quota
        const holder = holderOf(info.metadata)
        if (holder !== undefined) details.holder = holder
        const { device_state: deviceState } = info.metadata
        if (deviceState !== undefined) details.deviceState = deviceState
        break
      }
      case 'PreconditionFailure':
        details.blockers = precondition.deserialize(value).violations.map(blockerOf)
        break
      case 'BadRequest': {
        const [violation] = badRequest.deserialize(value).fieldViolations
        if (violation !== undefined) details.field = violation.field
        break
      }
      case 'ResourceInfo': {
        const { resourceType: type, resourceName: name, owner } = resourceInfo.deserialize(value)
        details.resource = owner === '' ? { type, name } : { type, name, owner }
        break
      }
      case 'RetryInfo': {
        const delay = retryInfo.deserialize(value).retryDelay
        if (delay !== null) details.retryAfterMs = Number(delay.seconds) * 1000 + delay.nanos / 1e6
        break
      }
    }
  }
  return { code, message, reason, details }
}
