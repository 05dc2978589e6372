/** Limits on how many objects one client may have. */

import { VfiodError } from '../../base/error.ts'
import { LIMITS } from '../../base/limits.ts'

/** Throw LIMIT_REACHED when a client that has `current` objects of a kind may not have one more. */
export function requireBelowLimit(kind: string, current: number): void {
  const max = LIMITS.objectsPerClient
  if (current < max) return
  throw new VfiodError(
    'LIMIT_REACHED',
    `Cannot add one more: this client has ${current} of ${max} ${kind}; release some first`,
    {
      quota: {
        limit: `${kind} of one client`,
        max: BigInt(max),
        current: BigInt(current),
        needed: 1n,
      },
    },
  )
}
