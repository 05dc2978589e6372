/** VFIO_IOMMU_DIRTY_PAGES: tracking what devices write, and reading it. */

import {
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
  vfio_iommu_type1_dirty_bitmap,
  vfio_iommu_type1_dirty_bitmap_get,
} from '../../../abi/container.ts'
import { ERRNO } from '../../../base/errno.ts'
import { U64_MAX } from '../../../base/units.ts'
import type { IoctlArg } from '../../../kernel/port.ts'
import { accessOk, argAfter, copyIn } from '../core/user-memory.ts'
import { isBitmapSize, reportDirty } from './dirty-report.ts'
import type { Type1 } from './type1.ts'
import { straddles } from './unmap.ts'

export const dirtyPages = (type1: Type1, arg: IoctlArg): number => {
  if (type1.model === 'v1') return -ERRNO.EACCES
  const { size: min } = vfio_iommu_type1_dirty_bitmap
  const dirty = copyIn(vfio_iommu_type1_dirty_bitmap, arg, min)
  if (dirty === undefined) return -ERRNO.EFAULT
  if (dirty.argsz < min) return -ERRNO.EINVAL
  switch (dirty.flags) {
    case VFIO_IOMMU_DIRTY_PAGES_FLAG_START:
      return start(type1)
    case VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP:
      return stop(type1)
    case VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP:
      return getBitmap(type1, argAfter(arg, min), dirty.argsz - min)
    default:
      return -ERRNO.EINVAL
  }
}

const start = (type1: Type1): number => {
  if (type1.isTracking) return 0
  const mappings = type1.mappings.all()
  for (const mapping of mappings) {
    const started = type1.track(mapping)
    if (started === 0) continue
    for (const other of mappings) type1.untrack(other)
    return started
  }
  type1.isTracking = true
  return 0
}

const stop = (type1: Type1): number => {
  type1.isTracking = false
  for (const mapping of type1.mappings.all()) type1.untrack(mapping)
  return 0
}

const getBitmap = (type1: Type1, payload: IoctlArg, room: number): number => {
  if (room < vfio_iommu_type1_dirty_bitmap_get.size) return -ERRNO.EINVAL
  const get = copyIn(
    vfio_iommu_type1_dirty_bitmap_get,
    payload,
    vfio_iommu_type1_dirty_bitmap_get.size,
  )
  if (get === undefined) return -ERRNO.EFAULT
  const { iova, size } = get
  const bitmap = {
    pgsize: get['bitmap.pgsize'],
    size: get['bitmap.size'],
    data: get['bitmap.data'],
  }
  if (iova + size > U64_MAX) return -ERRNO.EINVAL
  if (!accessOk(bitmap.data, bitmap.size)) return -ERRNO.EINVAL
  if (!isBitmapSize(bitmap, size)) return -ERRNO.EINVAL
  if (bitmap.pgsize !== type1.granule) return -ERRNO.EINVAL
  if (((iova | size) & (type1.granule - 1n)) !== 0n) return -ERRNO.EINVAL
  if (!type1.isTracking) return -ERRNO.EINVAL

  const range = { start: iova, last: iova + size - 1n }
  if (straddles(type1, range)) return -ERRNO.EINVAL
  for (const mapping of type1.mappings.within(range)) {
    const reported = reportDirty(type1, mapping, iova, bitmap)
    if (reported < 0) return reported
    mapping.dirty?.clear()
    mapping.markPinned()
  }
  return 0
}
