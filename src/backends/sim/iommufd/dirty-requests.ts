/**
 * IOMMU_HWPT_SET_DIRTY_TRACKING and IOMMU_HWPT_GET_DIRTY_BITMAP. Reading never fails for what it
 * finds: a hole ends it, and while tracking is off there is nothing to find.
 */

import {
  IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
  IOMMU_HWPT_GET_DIRTY_BITMAP,
  IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
  IOMMU_HWPT_SET_DIRTY_TRACKING,
  iommu_hwpt_get_dirty_bitmap,
  iommu_hwpt_set_dirty_tracking,
} from '../../../abi/iommufd.ts'
import { ERRNO } from '../../../base/errno.ts'
import { U64_MAX } from '../../../base/units.ts'
import { type Operation, operation } from './command.ts'
import { HwptPaging } from './hwpt.ts'
import { IovaBitmap } from './iova-bitmap.ts'
import { clipped } from './spans.ts'

const setTracking = operation(
  IOMMU_HWPT_SET_DIRTY_TRACKING,
  '6.7',
  iommu_hwpt_set_dirty_tracking,
  iommu_hwpt_set_dirty_tracking.size,
  ({ context, cmd }) => {
    if ((cmd.flags & ~IOMMU_HWPT_DIRTY_TRACKING_ENABLE) !== 0) return -ERRNO.EOPNOTSUPP
    const hwpt = context.objects.find(cmd.hwpt_id, HwptPaging)
    if (hwpt === undefined) return -ERRNO.ENOENT
    const { domain, ioas } = hwpt
    if (!domain.tracksDirty) return -ERRNO.EOPNOTSUPP
    const isOn = (cmd.flags & IOMMU_HWPT_DIRTY_TRACKING_ENABLE) !== 0
    // A pass begins clean, even where one is under way.
    if (isOn) for (const { value: area } of ioas.iopt.areas) domain.clearDirty(area)
    domain.setTracking(isOn)
    return 0
  },
)

const getBitmap = operation(
  IOMMU_HWPT_GET_DIRTY_BITMAP,
  '6.7',
  iommu_hwpt_get_dirty_bitmap,
  iommu_hwpt_get_dirty_bitmap.size,
  ({ context, cmd }) => {
    const isKnown = (cmd.flags & ~IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR) === 0
    if (!isKnown || cmd.__reserved !== 0) return -ERRNO.EOPNOTSUPP
    const hwpt = context.objects.find(cmd.hwpt_id, HwptPaging)
    if (hwpt === undefined) return -ERRNO.ENOENT
    const { domain, ioas } = hwpt
    const { iova, length, page_size: pageSize } = cmd
    if (length === 0n) return -ERRNO.EINVAL
    const range = { start: iova, last: iova + length - 1n }
    if (range.last > U64_MAX) return -ERRNO.EOVERFLOW
    if (pageSize === 0n) return -ERRNO.EINVAL
    const mask = (ioas.iopt.alignment - 1n) | (pageSize - 1n)
    if (((iova | (range.last + 1n)) & mask) !== 0n) return -ERRNO.EINVAL
    if (!domain.tracksDirty) return -ERRNO.EOPNOTSUPP
    if (!domain.isTracking) return 0

    const bitmap = new IovaBitmap(cmd.data, iova, pageSize)
    const clears = (cmd.flags & IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR) === 0
    for (const part of ioas.iopt.contiguous(range)) {
      for (const entry of domain.dirtyIn(part.area, part, clears)) {
        const inside = clipped(entry, part)
        if (inside) bitmap.set(inside)
      }
    }
    return 0
  },
)

export const dirtyRequests: readonly Operation[] = [setTracking, getBitmap]
