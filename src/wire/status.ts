/**
 * Errors become gRPC statuses here and nowhere else. A VfiodError is answered with its reason and
 * details; anything else is a mistake of vfiod: INTERNAL with reason BUG, and its text stays here.
 */
import { Metadata, type StatusObject, status } from '@grpc/grpc-js'
import { type Reason, VfiodError } from '../base/error.ts'
import { DETAILS_KEY, encodeStatus, MESSAGE_MAX, sendable } from './status-details.ts'

/** The gRPC status of every reason; the README is held equal to it. */
export const STATUS: Readonly<Record<Reason, status>> = {
  BAD_ARGUMENT: status.INVALID_ARGUMENT,
  BAD_RANGE: status.INVALID_ARGUMENT,
  BATCH_TOO_LARGE: status.INVALID_ARGUMENT,
  IOVA_OUT_OF_APERTURE: status.OUT_OF_RANGE,
  OUT_OF_MEMORY_OBJECT: status.OUT_OF_RANGE,
  OUT_OF_REGION: status.OUT_OF_RANGE,
  NO_SUCH_GROUP: status.NOT_FOUND,
  NO_SUCH_DEVICE: status.NOT_FOUND,
  NO_SUCH_DRIVER: status.NOT_FOUND,
  NO_SUCH_SPACE: status.NOT_FOUND,
  NO_SUCH_MEMORY: status.NOT_FOUND,
  NO_SUCH_REGION: status.NOT_FOUND,
  NO_SUCH_IRQ: status.NOT_FOUND,
  NO_SUCH_SESSION: status.FAILED_PRECONDITION,
  IOVA_NOT_MAPPED: status.NOT_FOUND,
  IOVA_IN_USE: status.ALREADY_EXISTS,
  ID_IN_USE: status.ALREADY_EXISTS,
  TRACKING_STARTED: status.ALREADY_EXISTS,
  UNKNOWN_PEER: status.UNAUTHENTICATED,
  PEER_NOT_CHECKED: status.UNAVAILABLE,
  HELPER_UNAVAILABLE: status.UNAVAILABLE,
  RELEASING: status.UNAVAILABLE,
  NOT_MM_OWNER: status.PERMISSION_DENIED,
  ROLE_NEEDED: status.PERMISSION_DENIED,
  DEVICE_NOT_ALLOWED: status.PERMISSION_DENIED,
  KERNEL_DENIED: status.PERMISSION_DENIED,
  NODE_MISSING: status.FAILED_PRECONDITION,
  VF_TOKEN_NEEDED: status.FAILED_PRECONDITION,
  BAD_TICKET: status.PERMISSION_DENIED,
  GROUP_NOT_VIABLE: status.FAILED_PRECONDITION,
  FIRMWARE_REGION: status.FAILED_PRECONDITION,
  INTERRUPTS_NOT_ISOLATED: status.FAILED_PRECONDITION,
  IOMMU_TOO_NARROW: status.FAILED_PRECONDITION,
  GROUP_IN_USE: status.FAILED_PRECONDITION,
  SPACE_NOT_READY: status.FAILED_PRECONDITION,
  SPACE_IN_USE: status.FAILED_PRECONDITION,
  MEMORY_IN_USE: status.FAILED_PRECONDITION,
  DEVICE_NOT_OPEN: status.FAILED_PRECONDITION,
  KERNEL_NOT_DONE: status.DEADLINE_EXCEEDED,
  DEVICE_ASLEEP: status.FAILED_PRECONDITION,
  DECODING_OFF: status.FAILED_PRECONDITION,
  REGION_CLAIMED: status.FAILED_PRECONDITION,
  DEVICE_IN_USE: status.FAILED_PRECONDITION,
  HOST_USES_DEVICE: status.FAILED_PRECONDITION,
  MAPPING_STRADDLES: status.FAILED_PRECONDITION,
  TRACKING_STOPPED: status.FAILED_PRECONDITION,
  REMAP_BLOCKED: status.FAILED_PRECONDITION,
  RESET_BLOCKED: status.FAILED_PRECONDITION,
  VADDR_INVALID: status.FAILED_PRECONDITION,
  VADDR_VALID: status.FAILED_PRECONDITION,
  DIFFERENT_MEMORY: status.FAILED_PRECONDITION,
  BIND_FAILED: status.ABORTED,
  ARC_BLOCKED: status.FAILED_PRECONDITION,
  DEVICE_IN_ERROR: status.FAILED_PRECONDITION,
  SESSION_BUSY: status.ABORTED,
  SESSION_BROKEN: status.DATA_LOSS,
  MEMLOCK_EXCEEDED: status.RESOURCE_EXHAUSTED,
  MEMORY_NOT_PINNABLE: status.FAILED_PRECONDITION,
  TOO_MANY_MAPPINGS: status.RESOURCE_EXHAUSTED,
  LIMIT_REACHED: status.RESOURCE_EXHAUSTED,
  UNSUPPORTED: status.UNIMPLEMENTED,
  DEVICE_GONE: status.UNAVAILABLE,
  DRAINING: status.UNAVAILABLE,
  CANCELLED: status.CANCELLED,
  STATE_REFUSED_BY_DEVICE: status.DATA_LOSS,
  KERNEL_REFUSED: status.UNKNOWN,
  BUG: status.INTERNAL,
}

/** The client's text for a bug; the text of the error stays in the log, for it may say too much. */
const BUG_MESSAGE = 'Cannot finish the call: this is a bug in vfiod; its log has the details'

/** The error to answer with: a VfiodError as it is, anything else as BUG with itself as the cause. */
export const toVfiodError = (error: unknown): VfiodError =>
  error instanceof VfiodError ? error : new VfiodError('BUG', BUG_MESSAGE, {}, error)

/**
 * The answer for grpc-js. It is made from scratch: grpc-js takes a numeric `code` of whatever it is
 * given for the status, so an errno that reached it would arrive as some other error.
 */
export const toStatusObject = (error: VfiodError): StatusObject => {
  const code = STATUS[error.reason]
  const metadata = new Metadata()
  metadata.set(DETAILS_KEY, encodeStatus(code, error))
  return { code, details: sendable(error.message, MESSAGE_MAX), metadata }
}
