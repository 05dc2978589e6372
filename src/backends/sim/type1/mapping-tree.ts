/**
 * The mappings of a container by iova. Before 6.18 the kernel compared ends one past the last
 * byte, which for a mapping of the last page is 0: no search finds it, so it can be mapped again,
 * and only tearing the container down removes it; and a search up to the last byte finds nothing.
 */

import { U64_MAX } from '../../../base/units.ts'
import { type Range, RangeMap } from '../../../rules/range-map.ts'
import type { MachineSpec } from '../spec/machine-spec.ts'
import { isAtLeast } from '../spec/version.ts'
import type { Mapping } from './mapping.ts'

export class MappingTree {
  readonly #found = new RangeMap<Mapping, bigint>()
  readonly #lost = new Set<Mapping>()
  readonly #losesLastPage: boolean

  constructor({ kernelVersion }: MachineSpec) {
    this.#losesLastPage = !isAtLeast(kernelVersion, '6.18')
  }

  insert(mapping: Mapping): void {
    if (this.#losesLastPage && mapping.last === U64_MAX) this.#lost.add(mapping)
    else this.#found.insert({ start: mapping.iova, last: mapping.last }, mapping)
  }

  remove(mapping: Mapping): void {
    if (!this.#lost.delete(mapping)) this.#found.remove(mapping.iova)
  }

  /** What a search finds that has the address inside. */
  at(iova: bigint): Mapping | undefined {
    return this.#found.find(iova)?.value
  }

  /** What a search for an overlap finds. */
  overlap(range: Range<bigint>): Mapping | undefined {
    if (this.#losesLastPage && range.last === U64_MAX) return undefined
    return this.#found.firstOverlap(range)?.value
  }

  /** What a search finds in a range, ascending; a copy, so that they may be removed meanwhile. */
  within(range: Range<bigint>): Mapping[] {
    if (this.#losesLastPage && range.last === U64_MAX) return []
    return [...this.#found.overlapping(range)].map(({ value }) => value)
  }

  /** Where the device's access goes, which no search is needed for. */
  translate(iova: bigint): Mapping | undefined {
    const lost = [...this.#lost].find((mapping) => mapping.iova <= iova)
    return this.at(iova) ?? lost
  }

  /** Every mapping, ascending. A copy. */
  all(): Mapping[] {
    return [...[...this.#found].map(({ value }) => value), ...this.#lost]
  }
}
