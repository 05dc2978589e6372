/**
 * How often an identity may call: at the rate of its quota, with one second's worth at once. The
 * processes of one identity share it.
 */

import { Buckets } from '../../base/bucket.ts'
import { VfiodError } from '../../base/error.ts'
import type { QuotaHolder } from '../../domain/identity/quotas.ts'

export class Rates {
  readonly #buckets: Buckets

  /** `now` answers milliseconds of a clock that does not jump. */
  constructor(now?: () => number) {
    this.#buckets = new Buckets(now)
  }

  /** Count one call, or throw LIMIT_REACHED with when to try again. */
  take({ account, grant }: QuotaHolder): void {
    const rate = grant.quota.calls_per_second
    if (rate === undefined) return
    const flow = { perSecond: Number(rate), burst: Number(rate) }
    const retryAfterMs = this.#buckets.take(account, flow)
    if (retryAfterMs === 0) return
    throw new VfiodError(
      'LIMIT_REACHED',
      `Cannot serve the call: the quota of ${account} is ${rate} calls per second; call less often, or raise calls_per_second in the policy`,
      {
        quota: {
          limit: `calls_per_second of ${account}`,
          max: rate,
          current: rate,
          needed: 1n,
        },
        retryAfterMs,
      },
    )
  }
}
