/**
 * What each identity uses, against what it may use, and all together against the whole. An identity
 * is a uid or the name in a certificate: the processes of one user share its quota.
 *
 * Amounts are taken before the thing is done and given back when it is gone or was never made.
 */

import { VfiodError } from '../base/error.ts'
import { QUOTAS, type Quota, type QuotaName } from '../rules/policy.ts'
import type { Client } from './clients.ts'

export type Amounts = Readonly<Partial<Record<QuotaName, bigint>>>

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
  calls_per_second: 'calls per second',
}

type Counts = Map<QuotaName, bigint>

export class Quotas {
  readonly #total: () => Quota
  readonly #counts = new Map<string, Counts>()
  readonly #totals: Counts = new Map()

  /** `total` is asked at each call: a policy may be reloaded. */
  constructor(total: () => Quota) {
    this.#total = total
  }

  /** Take all of the amounts, or throw LIMIT_REACHED and take none. */
  take(client: Client, amounts: Amounts): void {
    const counts = this.#countsOf(client)
    for (const [name, needed] of entries(amounts)) {
      check({ name, needed, counts, quota: client.grant.quota, of: client.identity })
      check({ name, needed, counts: this.#totals, quota: this.#total(), of: 'everybody' })
    }
    for (const [name, amount] of entries(amounts)) {
      add(counts, name, amount)
      add(this.#totals, name, amount)
    }
  }

  give(client: Client, amounts: Amounts): void {
    const counts = this.#countsOf(client)
    for (const [name, amount] of entries(amounts)) {
      add(counts, name, -amount)
      add(this.#totals, name, -amount)
    }
    if ([...counts.values()].every((count) => count === 0n)) this.#counts.delete(client.identity)
  }

  /** Charge another identity for the same things; LIMIT_REACHED when it has no room for them. */
  move(from: Client, to: Client, amounts: Amounts): void {
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

  /** What the client's identity uses, by quota. */
  usage(client: Client): Usage[] {
    return usageOf(this.#countsOf(client), client.grant.quota)
  }

  /** What all identities use together. */
  totalUsage(): Usage[] {
    return usageOf(this.#totals, this.#total())
  }

  #countsOf(client: Client): Counts {
    const known = this.#counts.get(client.identity)
    if (known !== undefined) return known
    const made: Counts = new Map()
    this.#counts.set(client.identity, made)
    return made
  }
}

/** What several things cost together. */
export function sum(prices: readonly Amounts[]): Amounts {
  const total: Counts = new Map()
  for (const price of prices) for (const [name, amount] of entries(price)) add(total, name, amount)
  return Object.fromEntries(total)
}

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
