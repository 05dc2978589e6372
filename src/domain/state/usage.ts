/** What records cost, and the sums of it. */

import { lengthOf } from '../../base/units.ts'
import type { QuotaName } from '../../rules/policy.ts'
import { isOfMemory, type MappingRecord, type MemoryRecord } from './records.ts'

/** How much of each quota. */
export type Amounts = Readonly<Partial<Record<QuotaName, bigint>>>

export const SPACE_PRICE: Amounts = { address_spaces: 1n, fds: 1n }
/** Its fd, and an eventfd each by which it is asked back and reports errors. */
export const DEVICE_PRICE: Amounts = { devices: 1n, fds: 3n }
export const SESSION_PRICE: Amounts = { sessions: 1n, fds: 1n }

export const memoryPrice = ({
  length,
  isAllocated,
}: Pick<MemoryRecord, 'length' | 'isAllocated'>): Amounts =>
  isAllocated
    ? { memories: 1n, fds: 1n, memory_bytes: length, allocated_bytes: length }
    : { memories: 1n, fds: 1n, memory_bytes: length }

export function mappingsPrice(mappings: readonly MappingRecord[]): Amounts {
  const locked = mappings.filter(isOfMemory).reduce((sum, each) => sum + lengthOf(each), 0n)
  return { mappings: BigInt(mappings.length), locked_bytes: locked }
}

export const amountsOf = (amounts: Amounts): [QuotaName, bigint][] =>
  Object.entries(amounts) as [QuotaName, bigint][]

/** The sum of several prices. */
export function sum(prices: Iterable<Amounts>): Amounts {
  const total = new Tally()
  for (const price of prices) total.add(price)
  return total.amounts
}

/** A running sum. */
export class Tally {
  readonly #counts = new Map<QuotaName, bigint>()

  get isZero(): boolean {
    for (const count of this.#counts.values()) if (count !== 0n) return false
    return true
  }

  /** Those that are not zero. */
  get amounts(): Amounts {
    return Object.fromEntries([...this.#counts].filter(([, count]) => count !== 0n))
  }

  of(name: QuotaName): bigint {
    return this.#counts.get(name) ?? 0n
  }

  add(amounts: Amounts, sign: 1n | -1n = 1n): void {
    for (const [name, amount] of amountsOf(amounts)) {
      this.#counts.set(name, sign === 1n ? this.of(name) + amount : this.of(name) - amount)
    }
  }
}

/** Running sums by account, and over all of them. */
export class Books {
  readonly #byAccount = new Map<string, Tally>()
  readonly total = new Tally()

  of(account: string): Tally {
    return this.#byAccount.get(account) ?? new Tally()
  }

  add(account: string, amounts: Amounts, sign: 1n | -1n = 1n): void {
    const known = this.#byAccount.get(account)
    const tally = known ?? new Tally()
    if (known === undefined) this.#byAccount.set(account, tally)
    tally.add(amounts, sign)
    this.total.add(amounts, sign)
    // An account that uses nothing has no entry, also where nothing was added to it.
    if ((sign === -1n || known === undefined) && tally.isZero) this.#byAccount.delete(account)
  }

  /** Every account that uses something. */
  *[Symbol.iterator](): Generator<[string, Amounts], undefined> {
    for (const [account, tally] of this.#byAccount) yield [account, tally.amounts]
  }
}
