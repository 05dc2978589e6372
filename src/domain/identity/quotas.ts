/**
 * What each identity uses, against what it may use, and all together against the whole. An identity
 * is a uid or the name in a certificate: the processes of one user share its quota.
 *
 * Amounts are taken before the thing is done and given back when it is gone or was never made.
 */

import { VfiodError } from '../../base/error.ts'
import {
  type Grant,
  QUOTAS,
  type Quota,
  type QuotaName,
  UNSAID,
  UNSAID_TOTAL,
} from '../../rules/policy.ts'

export type Amounts = Readonly<Partial<Record<QuotaName, bigint>>>

/** Who is charged: a client, or somebody who is not one yet. */
export interface Payer {
  readonly identity: string
  readonly grant: Pick<Grant, 'quota'>
}

export interface Usage {
  readonly name: QuotaName
  readonly current: bigint
  /** Undefined is unlimited. */
  readonly max: bigint | undefined
}

/** How the quotas read in messages. */
const TEXT: Record<QuotaName, string> = {
  locked_bytes: 'bytes mapped for devices',
  mappings: 'mappings',
  address_spaces: 'address spaces',
  memories: 'memory objects',
  allocated_bytes: 'bytes of allocated memory',
  devices: 'open devices',
  sessions: 'data transfer sessions',
  streams: 'streams',
  watches: 'watches',
  connections: 'connections',
  processes: 'processes that have connected',
  calls_per_second: 'calls per second',
}

type Counts = Map<QuotaName, bigint>

export class Quotas {
  readonly #total: () => Quota
  readonly #counts = new Map<string, Counts>()
  readonly #totals: Counts = new Map()

  /** `total` is asked at each call: a policy may be reloaded. */
  constructor(total: () => Quota) {
    this.#total = () => ({ ...UNSAID_TOTAL, ...total() })
  }

  /** Take all of the amounts, or throw LIMIT_REACHED and take none. */
  take(payer: Payer, amounts: Amounts): void {
    const counts = this.#countsOf(payer)
    const [own, total] = [quotaOf(payer), this.#total()]
    for (const [name, needed] of entries(amounts)) {
      check({ name, needed, counts, quota: own, of: payer.identity })
      check({ name, needed, counts: this.#totals, quota: total, of: 'everybody' })
    }
    for (const [name, amount] of entries(amounts)) {
      add(counts, name, amount)
      add(this.#totals, name, amount)
    }
  }

  give(payer: Payer, amounts: Amounts): void {
    const counts = this.#countsOf(payer)
    for (const [name, amount] of entries(amounts)) {
      add(counts, name, -amount)
      add(this.#totals, name, -amount)
    }
    if ([...counts.values()].every((count) => count === 0n)) this.#counts.delete(payer.identity)
  }

  /** Charge another identity for the same things; LIMIT_REACHED when it has no room for them. */
  move(from: Payer, to: Payer, amounts: Amounts): void {
    if (from.identity === to.identity) return
    // Given first: the whole must not count them twice for a moment.
    this.give(from, amounts)
    try {
      this.take(to, amounts)
    } catch (error) {
      const counts = this.#countsOf(from)
      for (const [name, amount] of entries(amounts)) {
        add(counts, name, amount)
        add(this.#totals, name, amount)
      }
      throw error
    }
  }

  /** What its identity uses, by quota. */
  usage(payer: Payer): Usage[] {
    return usageOf(this.#countsOf(payer), quotaOf(payer))
  }

  /** What all identities use together. */
  totalUsage(): Usage[] {
    return usageOf(this.#totals, this.#total())
  }

  #countsOf(payer: Payer): Counts {
    const known = this.#counts.get(payer.identity)
    if (known !== undefined) return known
    const made: Counts = new Map()
    this.#counts.set(payer.identity, made)
    return made
  }
}

/** What several things cost together. */
export function sum(prices: readonly Amounts[]): Amounts {
  const total: Counts = new Map()
  for (const price of prices) for (const [name, amount] of entries(price)) add(total, name, amount)
  return Object.fromEntries(total)
}

const quotaOf = ({ grant }: Payer): Quota => ({ ...UNSAID, ...grant.quota })

const entries = (amounts: Amounts): [QuotaName, bigint][] =>
  Object.entries(amounts) as [QuotaName, bigint][]

const add = (counts: Counts, name: QuotaName, amount: bigint): void => {
  counts.set(name, (counts.get(name) ?? 0n) + amount)
}

const usageOf = (counts: Counts, quota: Quota): Usage[] =>
  QUOTAS.map((name) => ({ name, current: counts.get(name) ?? 0n, max: quota[name] }))

function check(on: {
  readonly name: QuotaName
  readonly needed: bigint
  readonly counts: Counts
  readonly quota: Quota
  readonly of: string
}): void {
  const { name, needed, of } = on
  const max = on.quota[name]
  const current = on.counts.get(name) ?? 0n
  if (max === undefined || current + needed <= max) return
  throw new VfiodError(
    'LIMIT_REACHED',
    `Cannot take ${needed} more: the quota of ${of} is ${max} ${TEXT[name]} and ${current} are in use; release some, or raise ${name} in the policy`,
    { quota: { limit: `${name} of ${of}`, max, current, needed } },
  )
}
