/** A batch answers per item; a caller with one item wants its refusal thrown like any other. */
import { status } from '@grpc/grpc-js'
import type { Reason } from '../base/error.ts'
import type { ItemStatus__Output as ItemStatus } from '../proto/vfiod/v1/ItemStatus.ts'
import { RpcError, type StatusName } from './rpc-error.ts'

/** Throws the refusal of the first item that has one. */
export const requireItems = (method: string, results: readonly ItemStatus[]): void => {
  const failed = results.find(({ code }) => code !== status.OK)
  if (failed === undefined) return
  throw new RpcError({
    method,
    status: (status[failed.code] as StatusName | undefined) ?? 'UNKNOWN',
    reason: failed.reason as Reason | '',
    message: failed.message,
    details: {},
  })
}
