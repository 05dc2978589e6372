/**
 * An IOMMU domain: the page table that a hwpt stands for. It translates what devices access, and
 * keeps a dirty bit for each entry while tracking is on.
 */

import { IOMMU_IOAS_MAP_READABLE, IOMMU_IOAS_MAP_WRITEABLE } from '../../../abi/iommufd.ts'
import { PAGE_SIZE } from '../../../base/units.ts'
import type { MemoryPiece } from '../../../os/pieces.ts'
import type { Range, RangeMap } from '../../../rules/range-map.ts'
import type { DmaAccess, Translation } from '../iommu/iommu-group.ts'
import type { IommuSpec } from '../spec/machine-spec.ts'
import type { Area } from './area.ts'
import { iopteAt, pageSizesOf } from './iopte.ts'

/** The first iova of each dirty entry, with the entry. */
type Dirty = Map<bigint, Range<bigint>>

const FLAG: Record<DmaAccess, number> = {
  read: IOMMU_IOAS_MAP_READABLE,
  write: IOMMU_IOAS_MAP_WRITEABLE,
}

export class PagingDomain implements Translation {
  readonly iommu: IommuSpec
  /** Whether it was made for dirty tracking. */
  readonly tracksDirty: boolean
  readonly #areas: RangeMap<Area, bigint>
  readonly #sizes: readonly bigint[]
  /** The areas that were mapped without large pages, where others may have them. */
  readonly #small = new Set<Area>()
  /** The areas that something is dirty in. */
  readonly #dirty = new Map<Area, Dirty>()
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
    if (!usesLargePages) this.#small.add(area)
  }

  unmap(area: Area): void {
    this.#small.delete(area)
    this.#dirty.delete(area)
  }

  /** One area became several; it had no large pages, so every entry lies in one of them. */
  split(area: Area, parts: readonly Area[]): void {
    const entries = [...(this.#dirty.get(area) ?? [])]
    const isSmall = this.#small.has(area)
    for (const part of parts) {
      const dirty = entries.filter(([at]) => at >= part.start && at <= part.last)
      if (dirty.length > 0) this.#dirty.set(part, new Map(dirty))
      if (isSmall) this.#small.add(part)
    }
    this.unmap(area)
  }

  setTracking(isOn: boolean): void {
    if (this.iommu.model?.dirtyTracking !== 'always') this.#isTracking = isOn
  }

  /** Every bit of the area is clean again. */
  clearDirty(area: Area): void {
    this.#dirty.delete(area)
  }

  /** The dirty entries of an area that a range touches; they are clean again if `clears`. */
  dirtyIn(area: Area, range: Range<bigint>, clears: boolean): Range<bigint>[] {
    const dirty = this.#dirty.get(area)
    if (dirty === undefined) return []
    const found = [...dirty.values()].filter(
      ({ start, last }) => start <= range.last && last >= range.start,
    )
    if (clears) for (const { start } of found) dirty.delete(start)
    return found
  }

  reach(iova: bigint, length: number, access: DmaAccess): MemoryPiece[] | undefined {
    const pieces: MemoryPiece[] = []
    const end = iova + BigInt(length)
    for (let at = iova; at < end; ) {
      const area = this.#areas.find(at)?.value
      if (!area?.isFilled || (area.access & FLAG[access]) === 0) return undefined
      const last = area.last < end - 1n ? area.last : end - 1n
      const piece = area.piece(at, Number(last - at) + 1)
      if (piece === undefined) return undefined
      if (access === 'write' && this.#isTracking) this.#markDirty(area, { start: at, last })
      pieces.push(piece)
      at = last + 1n
    }
    return pieces
  }

  #markDirty(area: Area, range: Range<bigint>): void {
    const sizes = this.#small.has(area) ? [PAGE_SIZE] : this.#sizes
    const dirty: Dirty = this.#dirty.get(area) ?? new Map()
    this.#dirty.set(area, dirty)
    for (let at = range.start; at <= range.last; ) {
      const entry = iopteAt(at, area, sizes)
      dirty.set(entry.start, entry)
      at = entry.last + 1n
    }
  }
}
