/**
 * The address space of an ioas: its mappings, the domains that have them, and the ranges that devices
 * and the client reserve. Areas are in all domains or, without any, in none.
 */

import { IOMMU_IOAS_MAP_WRITEABLE } from '../../../abi/iommufd.ts'
import { ERRNO } from '../../../base/errno.ts'
import { PAGE_SIZE, U64_MAX } from '../../../base/units.ts'
import { overlaps, type Range, RangeMap } from '../../../rules/range-map.ts'
import type { PinUser } from '../iommu/emulated-dma.ts'
import { Area } from './area.ts'
import type { PagingDomain } from './domain.ts'
import { chooseIova } from './iova-allocation.ts'
import type { Pages } from './pages.ts'
import { holesIn } from './spans.ts'

interface Reserved extends Range<bigint> {
  readonly owner: object
}

/** A user that pins pages of the ioas without a domain. */
export interface IommufdAccess extends PinUser {
  readonly alignment: bigint
}

/** A part of an area that an access reaches. */
export type AccessPart = { readonly area: Area } & Range<bigint>

/** A part of pages that is to be mapped. */
export interface Slice {
  readonly pages: Pages
  readonly startByte: bigint
  readonly length: bigint
}

const max = (values: Iterable<bigint>): bigint =>
  [...values].reduce((most, value) => (value > most ? value : most), 1n)

export class IoPagetable {
  readonly areas = new RangeMap<Area, bigint>()
  readonly domains: PagingDomain[] = []
  readonly #accesses = new Set<IommufdAccess>()
  #reserved: Reserved[] = []
  #allowed: readonly Range<bigint>[] = []
  #usesLargePages = true
  /** What iovas, lengths and offsets into a page are multiples of. */
  #alignment = 1n
  #packedUpTo = PAGE_SIZE

  get alignment(): bigint {
    return this.#alignment
  }

  get usesLargePages(): boolean {
    return this.#usesLargePages
  }

  /** What may be mapped, ascending. */
  get ranges(): readonly Range<bigint>[] {
    return holesIn(this.#reserved)
  }

  setAllowed(ranges: readonly Range<bigint>[]): number {
    if (ranges.some((range) => this.#isReserved(range))) return -ERRNO.EADDRINUSE
    this.#allowed = ranges
    return 0
  }

  reserve(range: Range<bigint>, owner: object): number {
    const isInUse =
      this.areas.overlaps(range) || this.#allowed.some((allowed) => overlaps(allowed, range))
    if (isInUse) return -ERRNO.EADDRINUSE
    this.#reserved.push({ ...range, owner })
    return 0
  }

  unreserve(owner: object): void {
    this.#reserved = this.#reserved.filter((reserved) => reserved.owner !== owner)
    this.#packedUpTo = PAGE_SIZE
  }

  /** Maps slices one behind the other: the iova, or -errno as a negative number. */
  map(
    slices: readonly Slice[],
    length: bigint,
    at: { readonly iova: bigint | undefined; readonly access: number },
  ): bigint {
    if (length === 0n || (length & (this.#alignment - 1n)) !== 0n) return BigInt(-ERRNO.EINVAL)
    const iova = at.iova === undefined ? this.#choose(slices, length) : this.#check(at.iova, length)
    if (iova < 0n) return iova
    const made: Area[] = []
    let refused = 0
    let next = iova
    for (const slice of slices) {
      const area = new Area({ iova: next, ...slice }, slice.pages, at.access)
      refused = this.#insert(area)
      if (refused < 0) break
      made.push(area)
      next += slice.length
    }
    for (const area of made) if (refused === 0) refused = this.#fill(area)
    if (refused === 0) {
      for (const { pages } of made) pages.get()
      return iova
    }
    for (const area of made) this.#drop(area)
    return BigInt(refused)
  }

  /** Removes areas that lie in the range, until one lies in it only partly: -ENOENT then. */
  unmap(range: Range<bigint>): { readonly answer: number; readonly bytes: bigint } {
    let bytes = 0n
    for (;;) {
      const area = this.areas.firstOverlap(range)?.value
      if (area === undefined) return { answer: 0, bytes }
      if (area.start < range.start || area.last > range.last)
        return { answer: -ERRNO.ENOENT, bytes }
      if (area.accesses > 0) for (const access of this.#accesses) access.unmapped(area)
      if (area.accesses > 0) throw new Error('Cannot unmap what an access does not unpin')
      this.#drop(area)
      area.pages.put()
      bytes += area.length
    }
  }

  /** The slices behind a range that is mapped without a hole, or undefined. */
  slices(range: Range<bigint>): Slice[] | undefined {
    const slices: Slice[] = []
    for (const { area, start, last } of this.contiguous(range))
      slices.push({ pages: area.pages, startByte: area.byteOf(start), length: last - start + 1n })
    const covered = slices.reduce((sum, { length }) => sum + length, 0n)
    return covered === range.last - range.start + 1n ? slices : undefined
  }

  /** The areas of a range, each with its part, as far as there is no hole. */
  *contiguous(range: Range<bigint>): Generator<{ readonly area: Area } & Range<bigint>, undefined> {
    let at = range.start
    for (const { value: area } of this.areas.overlapping(range)) {
      if (area.start > at) return
      const last = area.last < range.last ? area.last : range.last
      yield { area, start: at, last }
      at = last + 1n
    }
  }

  /** The parts behind a range for an access: -ENOENT over a hole, -EPERM for read-only pages. */
  partsFor(range: Range<bigint>, isWritten: boolean): AccessPart[] | number {
    const parts = [...this.contiguous(range)]
    for (const { area } of parts) if (isWritten && !area.pages.isWritable) return -ERRNO.EPERM
    return parts.at(-1)?.last === range.last ? parts : -ERRNO.ENOENT
  }

  addDomain(domain: PagingDomain): number {
    const { granule } = domain
    const alignment = granule > this.#alignment ? granule : this.#alignment
    if (alignment > PAGE_SIZE) return -ERRNO.EINVAL
    if (!this.#isAlignedTo(alignment)) return -ERRNO.EADDRINUSE
    const { start, last } = domain.iommu.aperture
    const outside = [
      ...(start > 0n ? [{ start: 0n, last: start - 1n }] : []),
      ...(last < U64_MAX ? [{ start: last + 1n, last: U64_MAX }] : []),
    ]
    let refused = 0
    for (const range of outside) if (refused === 0) refused = this.reserve(range, domain)
    if (refused === 0) refused = this.#fillDomain(domain)
    if (refused < 0) {
      this.unreserve(domain)
      return refused
    }
    this.#alignment = alignment
    this.domains.push(domain)
    return 0
  }

  removeDomain(domain: PagingDomain): void {
    this.domains.splice(this.domains.indexOf(domain), 1)
    for (const { value: area } of this.areas) {
      domain.unmap(area)
      if (this.domains.length === 0) this.#unfill(area)
    }
    this.unreserve(domain)
    this.#updateAlignment()
  }

  addAccess(access: IommufdAccess): number {
    this.#accesses.add(access)
    const updated = this.#updateAlignment()
    if (updated < 0) this.#accesses.delete(access)
    return updated
  }

  removeAccess(access: IommufdAccess): void {
    this.#accesses.delete(access)
    this.#updateAlignment()
  }

  /** IOMMU_OPTION_HUGE_PAGES. */
  enableLargePages(): void {
    this.#usesLargePages = true
    this.#updateAlignment()
  }

  disableLargePages(): number {
    if (!this.#usesLargePages) return 0
    // What a domain has mapped with large pages cannot be cut.
    if (this.domains.length > 0 && this.areas.size > 0) return -ERRNO.EINVAL
    this.#usesLargePages = false
    const updated = this.#updateAlignment()
    if (updated < 0) this.#usesLargePages = true
    return updated
  }

  /** Makes `iova` the last of an area where one has it inside, as type1 v1 lets clients unmap. */
  cutAfter(iova: bigint): number {
    const area = this.areas.find(iova)?.value
    if (area === undefined || iova === area.start || iova === area.last) return 0
    const at = iova + 1n
    if (((at | area.byteOf(at)) & (this.#alignment - 1n)) !== 0n) return -ERRNO.EINVAL
    if (area.isFilled && this.#usesLargePages) return -ERRNO.EINVAL
    if (area.accesses > 0) return -ERRNO.EINVAL
    const { pages, access, startByte } = area
    const parts = [
      new Area({ iova: area.start, length: at - area.start, startByte }, pages, access),
      new Area(
        { iova: at, length: area.last - at + 1n, startByte: area.byteOf(at) },
        pages,
        access,
      ),
    ]
    // The parts pin before the whole lets go, so nothing is charged or given back.
    if (area.isFilled) for (const part of parts) pages.pin(part.pageRange)
    for (const domain of this.domains) domain.split(area, parts)
    this.areas.remove(area.start)
    for (const part of parts) {
      part.isFilled = area.isFilled
      this.areas.insert(part, part)
      pages.get()
    }
    if (area.isFilled) pages.unpin(area.pageRange)
    pages.put()
    return 0
  }

  #choose(slices: readonly Slice[], length: bigint): bigint {
    const [first] = slices
    if (first === undefined) return BigInt(-ERRNO.EINVAL)
    const taken = {
      allowed: this.#allowed,
      reserved: this.#reserved,
      mapped: (range: Range<bigint>) => this.areas.overlapping(range),
      alignment: this.#alignment,
      packedUpTo: this.#packedUpTo,
    }
    const iova = chooseIova({ address: first.pages.source.base + first.startByte, length }, taken)
    this.#packedUpTo = taken.packedUpTo
    return iova
  }

  #check(iova: bigint, length: bigint): bigint {
    if ((iova & (this.#alignment - 1n)) !== 0n) return BigInt(-ERRNO.EINVAL)
    const range = { start: iova, last: iova + length - 1n }
    if (range.last > U64_MAX) return BigInt(-ERRNO.EOVERFLOW)
    if (this.#isReserved(range)) return BigInt(-ERRNO.EINVAL)
    return this.areas.overlaps(range) ? BigInt(-ERRNO.EEXIST) : iova
  }

  #insert(area: Area): number {
    if ((area.access & IOMMU_IOAS_MAP_WRITEABLE) !== 0 && !area.pages.isWritable)
      return -ERRNO.EPERM
    if ((area.pageOffset & (this.#alignment - 1n)) !== 0n) return -ERRNO.EINVAL
    this.areas.insert(area, area)
    return 0
  }

  #fill(area: Area): number {
    if (this.domains.length === 0) return 0
    const pinned = this.#pin(area)
    if (pinned < 0) return pinned
    for (const domain of this.domains) domain.map(area, this.#usesLargePages)
    return 0
  }

  #pin(area: Area): number {
    const pinned = area.pages.pin(area.pageRange)
    if (pinned < 0) return pinned
    area.isFilled = true
    if (area.access !== 0) return 0
    // No IOMMU maps what may be neither read nor written.
    this.#unfill(area)
    return -ERRNO.EINVAL
  }

  #unfill(area: Area): void {
    if (!area.isFilled) return
    area.pages.unpin(area.pageRange)
    area.isFilled = false
  }

  /** Every area into one more domain, or none. */
  #fillDomain(domain: PagingDomain): number {
    const pinned: Area[] = []
    for (const { value: area } of this.areas) {
      if (!area.isFilled) {
        const answer = this.#pin(area)
        if (answer < 0) {
          for (const other of pinned) this.#unfill(other)
          return answer
        }
        pinned.push(area)
      }
      domain.map(area, this.#usesLargePages)
    }
    return 0
  }

  #drop(area: Area): void {
    for (const domain of this.domains) domain.unmap(area)
    this.#unfill(area)
    this.areas.remove(area.start)
    if (area.start < this.#packedUpTo) this.#packedUpTo = area.start
  }

  #isReserved(range: Range<bigint>): boolean {
    return this.#reserved.some((reserved) => overlaps(reserved, range))
  }

  #isAlignedTo(alignment: bigint): boolean {
    if (alignment === this.#alignment) return true
    const mask = alignment - 1n
    for (const { value: area } of this.areas)
      if (((area.start | area.length | area.pageOffset) & mask) !== 0n) return false
    return true
  }

  #updateAlignment(): number {
    const alignment = max([
      ...(this.#usesLargePages ? [] : [PAGE_SIZE]),
      ...this.domains.map(({ granule }) => granule),
      ...[...this.#accesses].map((access) => access.alignment),
    ])
    if (alignment > this.#alignment && !this.#isAlignedTo(alignment)) return -ERRNO.EADDRINUSE
    this.#alignment = alignment
    return 0
  }
}
