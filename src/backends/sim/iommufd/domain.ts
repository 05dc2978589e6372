/**
 * An IOMMU domain: the page table that a hwpt stands for. It translates what devices access, and
 * keeps a dirty bit for each entry while tracking is on.
 */

import { IOMMU_IOAS_MAP_READABLE, IOMMU_IOAS_MAP_WRITEABLE } from '../../../abi/iommufd.ts'
import { PAGE_SIZE } from '../../../base/units.ts'
import type { Range, RangeMap } from '../../../rules/range-map.ts'
import type { DmaAccess, Translation } from '../iommu-group.ts'
import type { IommuSpec } from '../machine.ts'
import type { Area } from './area.ts'
import { iopteAt, pageSizesOf } from './iopte.ts'

/** What the domain has of one area. */
interface Table {
  readonly sizes: readonly bigint[]
  /** The first iova of each dirty entry, with the entry. */
  readonly dirty: Map<bigint, Range<bigint>>
}

const FLAG: Record<DmaAccess, number> = {
  read: IOMMU_IOAS_MAP_READABLE,
  write: IOMMU_IOAS_MAP_WRITEABLE,
}

export class Domain implements Translation {
  readonly iommu: IommuSpec
  /** Whether it was made for dirty tracking. */
  readonly tracksDirty: boolean
  readonly #areas: RangeMap<Area, bigint>
  readonly #sizes: readonly bigint[]
  readonly #tables = new WeakMap<Area, Table>()
  #isTracking = false

  constructor(iommu: IommuSpec, areas: RangeMap<Area, bigint>, tracksDirty: boolean) {
    this.iommu = iommu
    this.tracksDirty = tracksDirty
    this.#areas = areas
    this.#sizes = pageSizesOf(iommu.pageSizes)
    // Where the hardware tracks from the moment that a device is attached, it cannot be stopped.
    this.#isTracking = tracksDirty && iommu.model?.dirtyTracking === 'always'
  }

  /** The smallest page: what iova and length are multiples of. */
  get granule(): bigint {
    return this.iommu.pageSizes & -this.iommu.pageSizes
  }

  get isTracking(): boolean {
    return this.#isTracking
  }

  map(area: Area, usesLargePages: boolean): void {
    const sizes = usesLargePages ? this.#sizes : [PAGE_SIZE]
    this.#tables.set(area, { sizes, dirty: new Map() })
  }

  unmap(area: Area): void {
    this.#tables.delete(area)
  }

  /** One area became several; it had no large pages, so every entry lies in one of them. */
  split(area: Area, parts: readonly Area[]): void {
    const table = this.#tables.get(area)
    if (table === undefined) return
    for (const part of parts) {
      const dirty = [...table.dirty].filter(([at]) => at >= part.start && at <= part.last)
      this.#tables.set(part, { sizes: table.sizes, dirty: new Map(dirty) })
    }
    this.unmap(area)
  }

  setTracking(isOn: boolean): void {
    if (this.iommu.model?.dirtyTracking !== 'always') this.#isTracking = isOn
  }

  /** Every bit of the area is clean again. */
  clearDirty(area: Area): void {
    this.#tables.get(area)?.dirty.clear()
  }

  /** The dirty entries of an area that a range touches; they are clean again if `clears`. */
  dirtyIn(area: Area, range: Range<bigint>, clears: boolean): Range<bigint>[] {
    const dirty = this.#tables.get(area)?.dirty
    if (dirty === undefined) return []
    const found = [...dirty.values()].filter(
      ({ start, last }) => start <= range.last && last >= range.start,
    )
    if (clears) for (const { start } of found) dirty.delete(start)
    return found
  }

  reach(iova: bigint, length: number, access: DmaAccess): Uint8Array[] | undefined {
    const pieces: Uint8Array[] = []
    const end = iova + BigInt(length)
    for (let at = iova; at < end; ) {
      const area = this.#areas.find(at)?.value
      const table = area && this.#tables.get(area)
      if (!table || (area.access & FLAG[access]) === 0) return undefined
      const last = area.last < end - 1n ? area.last : end - 1n
      const piece = area.bytes(at, Number(last - at) + 1)
      if (piece === undefined) return undefined
      if (access === 'write' && this.#isTracking) markDirty(table, area, { start: at, last })
      pieces.push(piece)
      at = last + 1n
    }
    return pieces
  }
}

const markDirty = ({ sizes, dirty }: Table, area: Area, range: Range<bigint>): void => {
  for (let at = range.start; at <= range.last; ) {
    const entry = iopteAt(at, area, sizes)
    dirty.set(entry.start, entry)
    at = entry.last + 1n
  }
}
