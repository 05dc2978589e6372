/**
 * How often an identity may call: at the rate of its quota, with one second's worth at once. The
 * processes of one identity share it.
 */

import { Buckets } from '../../base/bucket.ts'
import { VfiodError } from '../../base/error.ts'
import type { QuotaHolder, Quotas } from '../../domain/identity/quotas.ts'

export class Rates {
  readonly #buckets: Buckets

  readonly #quotas: Pick<Quotas, 'limitOf' | 'limitOfAll'>

  /** `now` answers milliseconds of a clock that does not jump. */
  constructor(quotas: Pick<Quotas, 'limitOf' | 'limitOfAll'>, now?: () => number) {
    this.#quotas = quotas
    this.#buckets = new Buckets(now)
  }

  /** Count one call, or throw LIMIT_REACHED with when to try again. */
  take({ account, grant }: QuotaHolder): void {
    this.#take(account, account, this.#quotas.limitOf({ grant }, NAME))
    // The role admin is always answered: the others do not use up its calls.
    if (grant.role === 'admin') return
    this.#take('', 'all clients without the role admin', this.#quotas.limitOfAll(NAME, grant.role))
  }

  #take(bucket: string, of: string, rate: bigint): void {
    const flow = { perSecond: Number(rate), burst: Number(rate) }
    const retryAfterMs = this.#buckets.take(bucket, flow)
    if (retryAfterMs === 0) return
    throw new VfiodError(
      'LIMIT_REACHED',
      `Cannot serve the call: the quota of ${of} is ${rate} calls per second; call less often, or raise calls_per_second in the policy`,
      {
        quota: { limit: `calls_per_second of ${of}`, max: rate, current: rate, needed: 1n },
        retryAfterMs,
      },
    )
  }
}

const NAME = 'calls_per_second'
