/**
 * The mappings of one address space. The kernel has no call that lists them, so this is the only list
 * there is; it changes only after the kernel has said yes. Only state.ts changes it.
 */

import { type Iova, type IovaRange, iova, lengthOf, U64_MAX } from '../../base/units.ts'
import { RangeMap } from '../../rules/range-map.ts'
import { isOfMemory, isOfRegion, type MappingRecord, type RegionMapping } from './records.ts'
import type { Amounts } from './usage.ts'

/** What may be asked of a table. */
export interface Mappings {
  readonly size: number
  /** Sum of the lengths. */
  readonly bytes: bigint
  /** Mappings whose vaddr is invalid. */
  readonly invalid: number
  readonly price: Amounts
  /** The lowest mapping that shares an address with the range. */
  conflict(range: IovaRange): MappingRecord | undefined
  inside(range: IovaRange): MappingRecord[]
  /** The mappings that share an address with the range, ascending; nothing may change meanwhile. */
  overlapping(range: IovaRange): Generator<MappingRecord, void>
  /** The mapping that the range would cut in two, if there is one. */
  straddling(range: IovaRange): MappingRecord | undefined
  /** The mapping of exactly this range. */
  exact(range: IovaRange): MappingRecord | undefined
  all(): MappingRecord[]
  /** Those of the regions of a device. */
  ofDevice(name: string): RegionMapping[]
  /** Up to `count` mappings from an address on, by iova. */
  page(from: Iova, count: number): MappingRecord[]
}

export class MappingTable implements Mappings {
  readonly #mappings = new RangeMap<MappingRecord>()
  #bytes = 0n
  /** Bytes of those that pin memory. */
  #locked = 0n
  #invalid = 0

  get size(): number {
    return this.#mappings.size
  }

  get bytes(): bigint {
    return this.#bytes
  }

  get invalid(): number {
    return this.#invalid
  }

  get price(): Amounts {
    return { mappings: BigInt(this.size), locked_bytes: this.#locked }
  }

  add(mapping: MappingRecord): void {
    if (!this.#mappings.insert(mapping, mapping)) throw new Error('the range is mapped already')
    this.#count(mapping, 1n)
  }

  remove(start: bigint): MappingRecord {
    const mapping = this.#mappings.remove(iova(start))?.value
    if (mapping === undefined) throw new Error('the range is not mapped')
    this.#count(mapping, -1n)
    return mapping
  }

  #count(mapping: MappingRecord, sign: 1n | -1n): void {
    const bytes = sign * lengthOf(mapping)
    this.#bytes += bytes
    if (!isOfMemory(mapping)) return
    this.#locked += bytes
    if (!mapping.isVaddrValid) this.#invalid += Number(sign)
  }

  conflict(range: IovaRange): MappingRecord | undefined {
    return this.#mappings.firstOverlap(range)?.value
  }

  inside(range: IovaRange): MappingRecord[] {
    return [...this.#mappings.contained(range)].map(({ value }) => value)
  }

  *overlapping(range: IovaRange): Generator<MappingRecord, void> {
    for (const { value } of this.#mappings.overlapping(range)) yield value
  }

  straddling(range: IovaRange): MappingRecord | undefined {
    const first = this.#mappings.find(range.start)?.value
    if (first !== undefined && first.start < range.start) return first
    const last = this.#mappings.find(range.last)?.value
    return last !== undefined && last.last > range.last ? last : undefined
  }

  exact(range: IovaRange): MappingRecord | undefined {
    const found = this.#mappings.find(range.start)?.value
    return found?.start === range.start && found.last === range.last ? found : undefined
  }

  all(): MappingRecord[] {
    return [...this.#mappings].map(({ value }) => value)
  }

  ofDevice(name: string): RegionMapping[] {
    return this.all()
      .filter(isOfRegion)
      .filter(({ device }) => device === name)
  }

  page(from: Iova, count: number): MappingRecord[] {
    const page: MappingRecord[] = []
    const rest = { start: from, last: iova(U64_MAX) }
    for (const { value } of this.#mappings.overlapping(rest)) {
      if (value.start < from) continue
      if (page.length === count) break
      page.push(value)
    }
    return page
  }
}
