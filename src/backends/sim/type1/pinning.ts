/** Pinning a mapping's pages and charging them to its owner (VmLck), and giving both back. */

import { ERRNO } from '../../../base/errno.ts'
import { PAGE_SIZE } from '../../../base/units.ts'
import type { Mm } from '../mm.ts'
import type { Mapping } from './mapping.ts'

/** Adds pages to what a process has locked: -ENOMEM past its RLIMIT_MEMLOCK. */
export const charge = (mm: Mm, pages: bigint): number => {
  const limit = mm.memlockBytes
  if (limit !== null && mm.lockedPages + pages > limit / PAGE_SIZE) return -ERRNO.ENOMEM
  mm.lockedPages += pages
  return 0
}

/** All or nothing; a mapping that is pinned already stays so. */
export const pin = (mapping: Mapping): number => {
  if (mapping.isIommuMapped) return 0
  if (!mapping.isPinnable) return -ERRNO.EFAULT
  const charged = charge(mapping.owner, mapping.pages)
  if (charged < 0) return charged
  mapping.isIommuMapped = true
  return 0
}

export const unpin = (mapping: Mapping): void => {
  if (!mapping.isIommuMapped) return
  mapping.owner.lockedPages -= mapping.pages
  mapping.isIommuMapped = false
}
