/**
 * What is mapped in one address space. The kernel has no call that lists mappings, so this is the
 * only list there is; it changes only after the kernel has said yes.
 */

import { type Access, type Iova, type IovaRange, iova, rangeText } from '../../base/units.ts'
import { RangeMap } from '../../rules/range-map.ts'
import type { Amounts } from '../identity/quotas.ts'
import type { Memory, Window } from '../memory/memories.ts'

export interface Mapping extends IovaRange {
  readonly length: bigint
  memory: Memory
  /** Where in the memory it starts. */
  readonly offset: bigint
  readonly access: Access
  /** The mmap that gave it its vaddr; the mapping holds it. */
  window: Window
  /** The device goes on with DMA while it is invalid. */
  isVaddrValid: boolean
}

/** `0x1000..0x1fff of memory "ram"`: how a mapping reads in messages. */
export const mappingText = (mapping: Mapping): string =>
  `${rangeText(mapping)} of memory "${mapping.memory.id}"`

/** Who pays for mappings; `take` may refuse, and then nothing is added. */
export interface Account {
  take(amounts: Amounts): void
  give(amounts: Amounts): void
}

const priceOf = ({ length }: Mapping): Amounts => ({ mappings: 1n, locked_bytes: length })

export class Ledger {
  readonly #account: Account
  readonly #mappings = new RangeMap<Mapping>()
  #bytes = 0n
  #invalid = 0

  constructor(account: Account) {
    this.#account = account
  }

  /** What all the mappings cost. */
  get price(): Amounts {
    return { mappings: BigInt(this.size), locked_bytes: this.#bytes }
  }

  get size(): number {
    return this.#mappings.size
  }

  /** Sum of the lengths. */
  get bytes(): bigint {
    return this.#bytes
  }

  /** Mappings whose vaddr is invalid. */
  get invalid(): number {
    return this.#invalid
  }

  add(mapping: Mapping): void {
    this.#account.take(priceOf(mapping))
    this.#mappings.insert(mapping, mapping)
    this.#bytes += mapping.length
    mapping.memory.mappings += 1
    mapping.window.hold()
  }

  remove(mapping: Mapping): void {
    this.#mappings.remove(mapping.start)
    this.#account.give(priceOf(mapping))
    this.#bytes -= mapping.length
    if (!mapping.isVaddrValid) this.#invalid -= 1
    mapping.memory.mappings -= 1
    mapping.window.drop()
  }

  invalidate(mapping: Mapping): void {
    if (mapping.isVaddrValid) this.#invalid += 1
    mapping.isVaddrValid = false
  }

  /** The mapping goes on through another window, perhaps of another memory of the same file. */
  renew(mapping: Mapping, through: { readonly memory: Memory; readonly window: Window }): void {
    through.window.hold()
    mapping.window.drop()
    mapping.memory.mappings -= 1
    through.memory.mappings += 1
    mapping.window = through.window
    mapping.memory = through.memory
    if (!mapping.isVaddrValid) this.#invalid -= 1
    mapping.isVaddrValid = true
  }

  /** The lowest mapping that shares an address with the range. */
  conflict(range: IovaRange): Mapping | undefined {
    return this.#mappings.firstOverlap(range)?.value
  }

  inside(range: IovaRange): Mapping[] {
    return [...this.#mappings.contained(range)].map(({ value }) => value)
  }

  /** The mappings that share an address with the range, ascending; nothing may change meanwhile. */
  *overlapping(range: IovaRange): Generator<Mapping, void> {
    for (const { value } of this.#mappings.overlapping(range)) yield value
  }

  /** The mapping that the range would cut in two, if there is one. */
  straddling(range: IovaRange): Mapping | undefined {
    const first = this.#mappings.find(range.start)?.value
    if (first !== undefined && first.start < range.start) return first
    const last = this.#mappings.find(range.last)?.value
    return last !== undefined && last.last > range.last ? last : undefined
  }

  /** The mapping of exactly this range. */
  exact(range: IovaRange): Mapping | undefined {
    const found = this.#mappings.find(range.start)?.value
    return found?.start === range.start && found.last === range.last ? found : undefined
  }

  all(): Mapping[] {
    return [...this.#mappings].map(({ value }) => value)
  }

  /** Up to `count` mappings from an address on, by iova. */
  page(from: Iova, count: number): Mapping[] {
    const page: Mapping[] = []
    const rest = { start: from, last: iova(0xffff_ffff_ffff_ffffn) }
    for (const { value } of this.#mappings.overlapping(rest)) {
      if (value.start < from) continue
      if (page.length === count) break
      page.push(value)
    }
    return page
  }

  /** Forget everything: the kernel dropped it. */
  clear(): void {
    for (const mapping of this.all()) this.remove(mapping)
  }
}
