/**
 * The type1 backend of a container: struct vfio_iommu of the kernel. It has the attached groups, the
 * address ranges that they allow, and the mappings.
 */

import { ERRNO } from '../../../base/errno.ts'
import { PAGE_SIZE, U64_MAX } from '../../../base/units.ts'
import type { MemoryPiece } from '../../../os/pieces.ts'
import { contains, overlaps, type Range } from '../../../rules/range-map.ts'
import type { Mm } from '../core/mm.ts'
import type { PinUser } from '../iommu/emulated-dma.ts'
import type { IommuGroup } from '../iommu/iommu-group.ts'
import type { IommuSpec, MachineSpec } from '../spec/machine-spec.ts'
import { type DmaDirection, reach } from './dma.ts'
import { Type1Dma } from './external-pins.ts'
import { iovaRanges } from './iova-ranges.ts'
import type { Mapping } from './mapping.ts'
import { MappingTree } from './mapping-tree.ts'
import type { Type1Parameters } from './parameters.ts'
import { pin, unpin } from './pinning.ts'

/**
 * Pages that have a dirty bit, of one container: 1 TiB of memory. The kernel has its own memory for as many
 * as it likes; here a report is made in one turn of the event loop that all clients share.
 */
const TRACKED_PAGES_MAX = 1n << 28n

const EVERYTHING: Range<bigint> = { start: 0n, last: U64_MAX }

export class Type1 {
  readonly machine: MachineSpec
  readonly model: 'v1' | 'v2'
  readonly mappings: MappingTree
  readonly #parameters: Type1Parameters
  readonly #physical = new Set<IommuGroup>()
  readonly #emulated = new Set<IommuGroup>()
  /** Drivers of open mediated devices. */
  readonly pinUsers = new Set<PinUser>()
  /** What those do. */
  readonly emulatedDma = new Type1Dma(this)
  /** How many more mappings the container takes. */
  dmaAvail: number
  /** Invariant: the number of mappings whose vaddr is invalid. */
  vaddrInvalidCount = 0
  isTracking = false
  /** Invariant: the pages of the mappings that have dirty bits. */
  #trackedPages = 0n
  /** VFIO_TYPE1_NESTING_IOMMU: v2, for drivers that can have two stages. */
  isNesting = false
  /** What mappings must fit into; empty until a physical group came, and then never again. */
  ranges: readonly Range<bigint>[] = []

  constructor(machine: MachineSpec, model: 'v1' | 'v2', parameters: Type1Parameters) {
    this.#parameters = parameters
    this.machine = machine
    this.model = model
    this.mappings = new MappingTree(machine)
    this.dmaAvail = parameters.dmaEntryLimit
  }

  get hasPhysical(): boolean {
    return this.#physical.size > 0
  }

  get hasEmulated(): boolean {
    return this.#emulated.size > 0
  }

  get mayInvalidateVaddr(): boolean {
    return !this.hasEmulated
  }

  get isCacheCoherent(): boolean {
    return this.#iommus().every((iommu) => iommu.isCacheCoherent)
  }

  /** One bit per page size; sizes below a page of the CPU are not shown. */
  get pageSizes(): bigint {
    const all = this.#iommus().reduce((bits, iommu) => bits & iommu.pageSizes, U64_MAX)
    const below = all & (PAGE_SIZE - 1n)
    return below === 0n ? all : (all & ~(PAGE_SIZE - 1n)) | PAGE_SIZE
  }

  /** The smallest page size: what iova, vaddr and size are multiples of. */
  get granule(): bigint {
    return this.pageSizes & -this.pageSizes
  }

  /** `caller` is whose pages are pinned where the group needs mappings that nothing has pinned. */
  attach(group: IommuGroup, caller: Mm): number {
    // Attaching may have to pin, and there is nothing to pin from.
    if (this.vaddrInvalidCount > 0) return -ERRNO.EBUSY
    const { iommu } = group
    if (iommu === undefined) {
      this.#emulated.add(group)
      return 0
    }
    if (this.isNesting && !iommu.model?.takesNestingType) return -ERRNO.EINVAL
    if (group.firmwareRefusal === 'attach') return -ERRNO.EPERM
    if (this.#conflicts(group, iommu)) return -ERRNO.EINVAL
    if (iommu.model?.isolatesInterrupts === false && !this.#parameters.allowsUnsafeInterrupts)
      return -ERRNO.EPERM
    const replayed = this.#replay(iommu, caller)
    if (replayed < 0) return replayed
    this.#physical.add(group)
    this.#updateRanges()
    return 0
  }

  detach(group: IommuGroup): void {
    if (this.#emulated.delete(group)) {
      if (!this.hasEmulated && !this.hasPhysical) this.#dropEverything()
      return
    }
    this.#physical.delete(group)
    if (!this.hasPhysical) {
      if (this.hasEmulated) for (const mapping of this.mappings.all()) unpin(mapping)
      else this.#dropEverything()
    }
    this.#updateRanges()
    // Whatever the group wrote was not seen by anyone: one last report must say so.
    if (this.isTracking) for (const mapping of this.mappings.all()) mapping.dirty?.setAll()
  }

  /** Gives a mapping dirty bits: 0 or -errno. */
  track(mapping: Mapping): number {
    const started = mapping.startTracking(TRACKED_PAGES_MAX - this.#trackedPages)
    if (started === 0) this.#trackedPages += mapping.pages
    return started
  }

  untrack(mapping: Mapping): void {
    if (mapping.dirty !== undefined) this.#trackedPages -= mapping.pages
    mapping.dirty = undefined
  }

  remove(mapping: Mapping): void {
    this.untrack(mapping)
    const range = { start: mapping.iova, last: mapping.last }
    if (mapping.external.size > 0) for (const user of this.pinUsers) user.unmapped(range)
    if (mapping.external.size > 0) throw new Error('Cannot unmap what a driver does not unpin')
    this.mappings.remove(mapping)
    if (mapping.isVaddrInvalid) this.vaddrInvalidCount -= 1
    unpin(mapping)
    mapping.release()
    this.dmaAvail += 1
  }

  /** The memory that a device of a group reaches, or undefined where the IOMMU stops it. */
  reach(iova: bigint, length: number, access: DmaDirection): MemoryPiece[] | undefined {
    return reach(this.mappings, { iova, length, access })
  }

  #iommus(): IommuSpec[] {
    return [...this.#physical].flatMap(({ iommu }) => iommu ?? [])
  }

  #dropEverything(): void {
    for (const mapping of this.mappings.all()) this.remove(mapping)
  }

  /** Whether the new group cannot address, or must not translate, a present mapping. */
  #conflicts(group: IommuGroup, iommu: IommuSpec): boolean {
    const isMapped = (range: Range<bigint>): boolean => this.mappings.overlap(range) !== undefined
    const { start, last } = iommu.aperture
    const from = this.ranges[0]?.start
    const to = this.ranges.at(-1)?.last
    // Without ranges there is nothing to lose: what does not fit fails when it is replayed.
    if (from !== undefined && to !== undefined) {
      if (!overlaps(iommu.aperture, { start: from, last: to })) return true
      if (start > from && isMapped({ start: from, last: start - 1n })) return true
      if (last < to && isMapped({ start: last + 1n, last: to })) return true
    }
    return group.spec.reserved.filter(({ kind }) => kind !== 'direct-relaxable').some(isMapped)
  }

  /** Puts every mapping into the new group's page table, or none. */
  #replay(iommu: IommuSpec, caller: Mm): number {
    const done: Mapping[] = []
    for (const mapping of this.mappings.all()) {
      const wasMapped = mapping.isIommuMapped
      const pinned = pin(mapping, caller)
      const fits = contains(iommu.aperture, { start: mapping.iova, last: mapping.last })
      if (pinned === 0 && fits) {
        if (!wasMapped) done.push(mapping)
        continue
      }
      if (!wasMapped) unpin(mapping)
      for (const other of done) unpin(other)
      return pinned < 0 ? pinned : -ERRNO.EFAULT
    }
    return 0
  }

  #updateRanges(): void {
    const groups = [...this.#physical].flatMap(({ spec }) => spec.reserved)
    if (this.hasPhysical)
      this.ranges = iovaRanges(
        this.#iommus().map(({ aperture }) => aperture),
        groups,
      )
    else this.ranges = this.ranges.length > 0 ? [EVERYTHING] : []
  }
}
