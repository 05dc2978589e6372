/** Pinning a mapping's pages and charging them to its owner (VmLck), and giving both back. */

import { ERRNO } from '../../../base/errno.ts'
import { PAGE_SIZE } from '../../../base/units.ts'
import type { Mm } from '../core/mm.ts'
import type { Mapping } from './mapping.ts'

/** Adds pages to what a process has locked: -ENOMEM past its RLIMIT_MEMLOCK. */
export const charge = (mm: Mm, pages: bigint): number => {
  if (!mayLock(mm, pages)) return -ERRNO.ENOMEM
  mm.lockedPages += pages
  return 0
}

const mayLock = ({ memlockBytes: limit, lockedPages }: Mm, pages: bigint): boolean =>
  limit === null || lockedPages + pages <= limit / PAGE_SIZE

/**
 * All or nothing; a mapping that is pinned already stays so. The pages are those of the caller, the
 * owner is charged, and the limits of both apply.
 */
export const pin = (mapping: Mapping, caller: Mm): number => {
  if (mapping.isIommuMapped) return 0
  // Pages are pinned in order, so that the limit may be met before the first that is not there.
  const there = mapping.pinnablePages(caller)
  if (there < mapping.pages) return mayLock(caller, there) ? -ERRNO.EFAULT : -ERRNO.ENOMEM
  const pages = mapping.pagesToLock(caller)
  const more = pages - mapping.lockedPages
  if (!mayLock(caller, more)) return -ERRNO.ENOMEM
  const charged = charge(mapping.owner, more)
  if (charged < 0) return charged
  mapping.lockedPages = pages
  mapping.isIommuMapped = true
  mapping.resolve(caller)
  return 0
}

export const unpin = (mapping: Mapping): void => {
  if (!mapping.isIommuMapped) return
  const kept = mapping.externalToLock
  mapping.owner.lockedPages -= mapping.lockedPages - kept
  mapping.lockedPages = kept
  mapping.isIommuMapped = false
}
