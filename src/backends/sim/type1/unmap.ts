/** VFIO_IOMMU_UNMAP_DMA: unmapping, reporting what was dirty, and invalidating vaddrs. */

import {
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
  VFIO_DMA_UNMAP_FLAG_VADDR,
  vfio_bitmap,
  vfio_iommu_type1_dma_unmap,
} from '../../../abi/container.ts'
import { ERRNO } from '../../../base/errno.ts'
import { U64_MAX } from '../../../base/units.ts'
import type { IoctlArg } from '../../../kernel/port.ts'
import type { Range } from '../../../rules/range-map.ts'
import type { Mm } from '../core/mm.ts'
import { accessOk, argAfter, copyIn, copyOut } from '../core/user-memory.ts'
import type { Caller } from '../file/open-file.ts'
import { isAtLeast } from '../spec/version.ts'
import { type Bitmap, isBitmapSize, reportDirty } from './dirty-report.ts'
import type { Mapping } from './mapping.ts'
import type { Type1 } from './type1.ts'
import { wrapErrno, wraps } from './wrap.ts'

const FLAGS =
  VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP | VFIO_DMA_UNMAP_FLAG_ALL | VFIO_DMA_UNMAP_FLAG_VADDR

interface Wanted {
  readonly iova: bigint
  readonly size: bigint
  readonly all: boolean
  readonly vaddr: boolean
  readonly bitmap: Bitmap | undefined
}

export const unmapDma = (type1: Type1, caller: Caller, arg: IoctlArg): number => {
  const { size: min } = vfio_iommu_type1_dma_unmap
  const unmap = copyIn(vfio_iommu_type1_dma_unmap, arg, min)
  if (unmap === undefined) return -ERRNO.EFAULT
  if (unmap.argsz < min || (unmap.flags & ~FLAGS) !== 0) return -ERRNO.EINVAL
  const all = (unmap.flags & VFIO_DMA_UNMAP_FLAG_ALL) !== 0
  const vaddr = (unmap.flags & VFIO_DMA_UNMAP_FLAG_VADDR) !== 0
  const wantsDirty = (unmap.flags & VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP) !== 0
  if (wantsDirty && (all || vaddr)) return -ERRNO.EINVAL

  let bitmap: Bitmap | undefined
  if (wantsDirty) {
    if (unmap.argsz < min + vfio_bitmap.size) return -ERRNO.EINVAL
    bitmap = copyIn(vfio_bitmap, argAfter(arg, min), vfio_bitmap.size)
    if (bitmap === undefined) return -ERRNO.EFAULT
    if (!accessOk(bitmap.data, bitmap.size)) return -ERRNO.EINVAL
    if (!isBitmapSize(bitmap, unmap.size)) return -ERRNO.EINVAL
  }

  const wanted = { iova: unmap.iova, size: unmap.size, all, vaddr, bitmap }
  const done = unmapRange(type1, caller.mm, wanted)
  if (done < 0n) return Number(done)
  return copyOut(arg, vfio_iommu_type1_dma_unmap.encode({ ...unmap, size: done }))
}

/** The bytes unmapped, or -errno. */
const unmapRange = (type1: Type1, caller: Mm, wanted: Wanted): bigint => {
  const refused = refusal(type1, wanted)
  if (refused < 0) return BigInt(refused)
  // UNMAP_ALL asks for 2^64-1 bytes: the last one is beyond its reach.
  const last = wanted.all ? U64_MAX - 1n : wanted.iova + wanted.size - 1n
  const range = { start: wanted.iova, last }
  if (type1.model === 'v2' && !wanted.all && straddles(type1, range)) return -BigInt(ERRNO.EINVAL)

  const found = reachable(type1, caller, type1.mappings.within(range))
  // A v1 container stops at what starts before the range, and takes whole what starts inside it.
  if (found[0] && found[0].iova < range.start) return 0n
  if (wanted.vaddr) return invalidate(type1, found)
  let unmapped = 0n
  for (const mapping of found) {
    if (wanted.bitmap) {
      const reported = reportDirty(type1, mapping, wanted.iova, wanted.bitmap)
      if (reported < 0) return BigInt(reported)
    }
    unmapped += mapping.size
    type1.remove(mapping)
  }
  return unmapped
}

const refusal = (type1: Type1, { iova, size, all, vaddr, bitmap }: Wanted): number => {
  if (vaddr && !type1.mayInvalidateVaddr) return -ERRNO.EBUSY
  const mask = type1.granule - 1n
  if ((iova & mask) !== 0n) return -ERRNO.EINVAL
  if (all) {
    if (iova !== 0n || size !== 0n) return -ERRNO.EINVAL
  } else {
    if (size === 0n || (size & mask) !== 0n) return -ERRNO.EINVAL
    if (wraps(iova, size)) return -wrapErrno(type1.machine)
  }
  if (bitmap && (!type1.isTracking || bitmap.pgsize !== type1.granule)) return -ERRNO.EINVAL
  return 0
}

/**
 * From 4.10 to 5.19 an unmap ended, without a word, at the first mapping that another process had
 * made; since 6.0 a process that has the container may unmap everything.
 */
const reachable = (type1: Type1, caller: Mm, found: Mapping[]): readonly Mapping[] => {
  const { kernelVersion } = type1.machine
  if (!isAtLeast(kernelVersion, '4.10') || isAtLeast(kernelVersion, '6.0')) return found
  const stranger = found.findIndex(({ owner }) => owner !== caller)
  return stranger < 0 ? found : found.slice(0, stranger)
}

/** Whether a mapping reaches over either end of the range. */
export const straddles = (type1: Type1, range: Range<bigint>): boolean => {
  const first = type1.mappings.at(range.start)
  const last = type1.mappings.at(range.last)
  return (first && first.iova !== range.start) || (last && last.last !== range.last) || false
}

/** All of them, or none where one is invalid already. */
const invalidate = (type1: Type1, found: readonly Mapping[]): bigint => {
  if (found.some((mapping) => mapping.isVaddrInvalid)) return -BigInt(ERRNO.EINVAL)
  for (const mapping of found) {
    mapping.holdPages()
    mapping.isVaddrInvalid = true
  }
  type1.vaddrInvalidCount += found.length
  return found.reduce((bytes, { size }) => bytes + size, 0n)
}
