/**
 * The memory of one map request: pages that are pinned while a domain has them, charged once
 * however many areas share them. IOMMU_IOAS_COPY shares, another IOMMU_IOAS_MAP does not.
 */

import { ERRNO } from '../../../base/errno.ts'
import { PAGE_SIZE } from '../../../base/units.ts'
import type { Range } from '../../../rules/range-map.ts'
import type { Mm } from '../core/mm.ts'
import type { MemorySource } from './memory-source.ts'
import { PinCounts } from './pin-counts.ts'

/** none: CAP_IPC_LOCK, no limit counts. user: all processes of a user together. mm: as type1. */
export type AccountMode = 'none' | 'user' | 'mm'

export class Pages {
  readonly source: MemorySource
  /** In pages. */
  readonly count: bigint
  readonly isWritable: boolean
  /** Whose memory it is, and who is charged. */
  mm: Mm
  accountMode: AccountMode
  /** Invariant: the number of pages that are pinned at least once, and charged. */
  pinned = 0n
  readonly #pins = new PinCounts()
  /** Invariant: the number of areas that have it, and 1 while a request makes one. */
  #references = 1

  constructor(
    source: MemorySource,
    count: bigint,
    owner: { readonly mm: Mm; readonly accountMode: AccountMode },
    isWritable: boolean,
  ) {
    this.source = source
    this.count = count
    this.mm = owner.mm
    this.accountMode = owner.accountMode
    this.isWritable = isWritable
  }

  get(): this {
    this.#references += 1
    return this
  }

  put(): void {
    this.#references -= 1
    if (this.#references === 0) this.source.release()
  }

  /** All or nothing: -EFAULT for what is not there, -ENOMEM past the limit. */
  pin(range: Range<bigint>): number {
    const missing = this.#pins.missing(range)
    if (missing > 0n) {
      const found = this.check(range)
      if (found < 0) return found
      const charged = charge(this.mm, this.accountMode, missing)
      if (charged < 0) return charged
    }
    this.#pins.add(range)
    this.pinned += missing
    return 0
  }

  /** 0 where all of the pages are there, -EFAULT where one is not. */
  check(range: Range<bigint>): number {
    // Addresses mean nothing once the process that gave them is gone.
    if (this.source.kind === 'user' && !this.mm.isAlive) return -ERRNO.EFAULT
    // iommufd pins pages, and a device's memory has none.
    const start = this.source.base + range.start * PAGE_SIZE
    if (this.source.kind === 'user' && this.mm.deviceMemoryAt(start)) return -ERRNO.EFAULT
    const length = (range.last - range.start + 1n) * PAGE_SIZE
    return this.source.check(range.start * PAGE_SIZE, length, this.isWritable)
  }

  unpin(range: Range<bigint>): void {
    const freed = this.#pins.remove(range)
    uncharge(this.mm, this.accountMode, freed)
    this.pinned -= freed
  }
}

/** Adds pinned pages to what a process and its user have: -ENOMEM past RLIMIT_MEMLOCK. */
export const charge = (mm: Mm, mode: AccountMode, pages: bigint): number => {
  const locked = mode === 'user' ? mm.user : mm
  if (mode !== 'none') {
    const limit = mm.memlockBytes
    if (limit !== null && locked.lockedPages + pages > limit / PAGE_SIZE) return -ERRNO.ENOMEM
    locked.lockedPages += pages
  }
  mm.pinnedPages += pages
  return 0
}

export const uncharge = (mm: Mm, mode: AccountMode, pages: bigint): void => {
  if (mode === 'user') mm.user.lockedPages -= pages
  else if (mode === 'mm') mm.lockedPages -= pages
  mm.pinnedPages -= pages
}
