/**
 * Token buckets by name: how often something may happen, with so many at once. Time is the only
 * thing that fills one, so a bucket that is full again need not be kept.
 */

interface Bucket {
  tokens: number
  /** When it was last filled, in milliseconds. */
  filled: number
}

export interface Flow {
  readonly perSecond: number
  /** How many may come at once after a pause. */
  readonly burst: number
}

/** Buckets are looked through for full ones each time there are this many more. */
const SWEEP_AT = 1024

export class Buckets {
  readonly #buckets = new Map<string, Bucket>()
  readonly #now: () => number
  #sweepAt = SWEEP_AT

  /** `now` answers milliseconds of a clock that does not jump. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  /** Takes one token: 0, or in how many milliseconds there will be one. */
  take(name: string, { perSecond, burst }: Flow): number {
    const now = this.#now()
    const bucket = this.#buckets.get(name) ?? this.#add(name, { tokens: burst, filled: now })
    const earned = (Math.max(0, now - bucket.filled) / 1000) * perSecond
    bucket.tokens = Math.min(burst, bucket.tokens + earned)
    bucket.filled = now
    if (bucket.tokens >= 1) {
      bucket.tokens -= 1
      return 0
    }
    return Math.ceil((1 - bucket.tokens) * (1000 / Math.max(perSecond, 1)))
  }

  #add(name: string, bucket: Bucket): Bucket {
    this.#buckets.set(name, bucket)
    if (this.#buckets.size < this.#sweepAt) return bucket
    const minuteAgo = this.#now() - 60_000
    for (const [each, { filled }] of this.#buckets)
      if (filled < minuteAgo) this.#buckets.delete(each)
    this.#sweepAt = this.#buckets.size + SWEEP_AT
    return bucket
  }
}
