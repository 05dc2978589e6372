/**
 * How an IOMMU maps a run of memory: by the largest pages that iova and memory are both aligned
 * to and that fit. A dirty bit belongs to one such entry, however small the write was.
 */

import { PAGE_SIZE } from '../../../base/units.ts'
import type { Range } from '../../../rules/range-map.ts'

export interface Run extends Range<bigint> {
  /** The physical address of `start`. */
  readonly physical: bigint
}

/** The page sizes in a bitmap, descending, none below a page of the CPU. */
export const pageSizesOf = (bitmap: bigint): readonly bigint[] => {
  const sizes: bigint[] = []
  for (let bit = 63n; bit >= 12n; bit--) if ((bitmap >> bit) & 1n) sizes.push(1n << bit)
  return sizes.length > 0 ? sizes : [PAGE_SIZE]
}

/** The entry that translates an iova of the run. */
export const iopteAt = (iova: bigint, run: Run, sizes: readonly bigint[]): Range<bigint> => {
  for (const size of sizes) {
    const start = iova & -size
    const last = start + size - 1n
    const isAligned = ((run.start ^ run.physical) & (size - 1n)) === 0n
    if (isAligned && start >= run.start && last <= run.last) return { start, last }
  }
  // Less than the smallest page, which only a table without hardware can have.
  return { start: iova, last: iova }
}
