/**
 * How often an identity may call: a bucket of tokens that refills at the rate of its quota and
 * holds one second's worth. The processes of one identity share it.
 */
import { VfiodError } from '../base/error.ts'
import type { Payer } from '../domain/identity/quotas.ts'

interface Bucket {
  tokens: number
  /** When it was last filled, in milliseconds. */
  filled: number
}

export class Rates {
  readonly #buckets = new Map<string, Bucket>()
  readonly #now: () => number

  /** `now` answers milliseconds of a clock that does not jump. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  /** Count one call, or throw LIMIT_REACHED with when to try again. */
  take({ identity, grant }: Payer): void {
    const rate = grant.quota.calls_per_second
    if (rate === undefined) return
    const perSecond = Number(rate)
    const bucket = this.#filled(identity, perSecond)
    if (bucket.tokens >= 1) {
      bucket.tokens -= 1
      return
    }
    throw new VfiodError(
      'LIMIT_REACHED',
      `Cannot serve the call: the quota of ${identity} is ${rate} calls per second; call less often, or raise calls_per_second in the policy`,
      {
        quota: {
          limit: `calls_per_second of ${identity}`,
          max: rate,
          current: rate,
          needed: 1n,
        },
        retryAfterMs: Math.ceil((1 - bucket.tokens) * (1000 / Math.max(perSecond, 1))),
      },
    )
  }

  #filled(identity: string, perSecond: number): Bucket {
    const now = this.#now()
    const bucket = this.#buckets.get(identity) ?? { tokens: perSecond, filled: now }
    const earned = ((now - bucket.filled) / 1000) * perSecond
    bucket.tokens = Math.min(perSecond, bucket.tokens + earned)
    bucket.filled = now
    this.#buckets.set(identity, bucket)
    return bucket
  }
}
