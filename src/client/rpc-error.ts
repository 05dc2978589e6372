/** A call that the daemon refused, or that never reached it: what the client throws. */
import { type Metadata, type ServiceError, status } from '@grpc/grpc-js'
import type { Details, Reason } from '../base/error.ts'
import { DETAILS_KEY, decodeStatus } from '../wire/status-details.ts'

/** The name of a gRPC status: `FAILED_PRECONDITION`. */
export type StatusName = keyof typeof status

export class RpcError extends Error {
  override readonly name = 'RpcError'
  /** `vfiod.v1.AddressSpaceService/Map`. */
  readonly method: string
  readonly status: StatusName
  /** Empty when the error is not from vfiod: the socket is not there, the call was cancelled. */
  readonly reason: Reason | ''
  readonly details: Details

  constructor(error: {
    readonly method: string
    readonly status: StatusName
    readonly reason: Reason | ''
    readonly message: string
    readonly details: Details
  }) {
    super(error.message)
    this.method = error.method
    this.status = error.status
    this.reason = error.reason
    this.details = error.details
  }
}

/** As grpc-js says it of a call that has a deadline. */
export const deadlineExceeded = (method: string, ms: number): RpcError =>
  new RpcError({
    method,
    status: 'DEADLINE_EXCEEDED',
    reason: '',
    message: `Deadline exceeded after ${ms / 1000}s`,
    details: {},
  })

const statusName = (code: number): StatusName =>
  (status[code] as StatusName | undefined) ?? 'UNKNOWN'

const detailsIn = (metadata: Metadata | undefined) => {
  const [bytes] = metadata?.get(DETAILS_KEY) ?? []
  return bytes instanceof Buffer ? decodeStatus(bytes) : null
}

const isServiceError = (error: unknown): error is ServiceError =>
  error instanceof Error && 'code' in error && typeof error.code === 'number' && 'details' in error

/** What grpc-js reports, with the reason and the details that the daemon sent along. */
export const toRpcError = (method: string, error: unknown): RpcError => {
  if (error instanceof RpcError) return error
  if (!isServiceError(error)) {
    const message = error instanceof Error ? error.message : String(error)
    return new RpcError({ method, status: 'UNKNOWN', reason: '', message, details: {} })
  }
  const sent = detailsIn(error.metadata)
  return new RpcError({
    method,
    status: statusName(error.code),
    // A newer daemon may know reasons that this client has no name for; they are passed on as text.
    reason: (sent?.reason ?? '') as Reason | '',
    message: sent?.message ?? error.details,
    details: sent?.details ?? {},
  })
}
