/** IOMMU_HWPT_ALLOC and IOMMU_HWPT_INVALIDATE. */

import {
  IOMMU_HWPT_ALLOC,
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_DATA_NONE,
  IOMMU_HWPT_DATA_VTD_S1,
  IOMMU_HWPT_FAULT_ID_VALID,
  IOMMU_HWPT_INVALIDATE,
  IOMMU_HWPT_INVALIDATE_DATA_VTD_S1,
  IOMMU_VTD_INV_FLAGS_LEAF,
  iommu_hwpt_alloc,
  iommu_hwpt_invalidate,
  iommu_hwpt_vtd_s1,
  iommu_hwpt_vtd_s1_invalidate,
} from '../../../abi/iommufd.ts'
import type { Values } from '../../../abi/layout.ts'
import { ERRNO } from '../../../base/errno.ts'
import { PAGE_SIZE, U64_MAX } from '../../../base/units.ts'
import { type Operation, operation } from './command.ts'
import { FaultQueue } from './fault-queue.ts'
import { type Hwpt, HwptNested, HwptPaging } from './hwpt.ts'
import { Ioas } from './ioas.ts'
import { IommufdObject } from './objects.ts'
import { PhysicalDevice } from './physical-device.ts'
import { userStruct } from './user-struct.ts'

type HwptAlloc = Values<(typeof iommu_hwpt_alloc)['types']>

/** The first 24 bytes: what the struct had when it came. */
const ALLOC_MIN = 24
const PAGING_FLAGS = IOMMU_HWPT_ALLOC_NEST_PARENT | IOMMU_HWPT_ALLOC_DIRTY_TRACKING

const alloc = operation(
  IOMMU_HWPT_ALLOC,
  '6.6',
  iommu_hwpt_alloc,
  ALLOC_MIN,
  ({ context, cmd, respond }) => {
    if (cmd.__reserved !== 0) return -ERRNO.EOPNOTSUPP
    if ((cmd.data_type === IOMMU_HWPT_DATA_NONE) !== (cmd.data_len === 0)) return -ERRNO.EINVAL
    const device = context.objects.find(cmd.dev_id, PhysicalDevice)
    if (device === undefined) return -ERRNO.ENOENT
    const pt = context.objects.find(cmd.pt_id, IommufdObject)
    let hwpt: Hwpt | number = -ERRNO.EINVAL
    if (pt instanceof Ioas) hwpt = pagingHwpt(pt, device, cmd)
    else if (pt instanceof HwptPaging) hwpt = nestedHwpt(pt, device, cmd)
    if (typeof hwpt === 'number') return hwpt

    let answer = 0
    if ((cmd.flags & IOMMU_HWPT_FAULT_ID_VALID) !== 0) {
      hwpt.fault = context.objects.find(cmd.fault_id, FaultQueue)
      if (hwpt.fault) hwpt.fault.users += 1
      else answer = -ERRNO.ENOENT
    }
    cmd.out_hwpt_id = context.objects.nextId
    if (answer === 0) answer = respond()
    if (answer === 0) context.objects.insert(hwpt)
    else hwpt.destroy()
    return answer
  },
)

/** A table over an ioas, filled at once with its mappings. */
const pagingHwpt = (ioas: Ioas, device: PhysicalDevice, cmd: HwptAlloc): HwptPaging | number => {
  const { iommu } = device.group
  const tracksDirty = (cmd.flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING) !== 0
  const isNestParent = (cmd.flags & IOMMU_HWPT_ALLOC_NEST_PARENT) !== 0
  if ((cmd.flags & ~PAGING_FLAGS) !== 0 || cmd.data_len > 0) return -ERRNO.EOPNOTSUPP
  if (tracksDirty && iommu.model?.dirtyTracking === undefined) return -ERRNO.EOPNOTSUPP
  if (isNestParent && !iommu.model?.canNest) return -ERRNO.EOPNOTSUPP
  const hwpt = new HwptPaging(ioas, iommu, { tracksDirty, isNestParent })
  const populated = hwpt.populate()
  if (populated === 0) return hwpt
  hwpt.destroy()
  return populated
}

/** A guest's table over a parent that was made for it. */
const nestedHwpt = (
  parent: HwptPaging,
  { group }: PhysicalDevice,
  cmd: HwptAlloc,
): HwptNested | number => {
  if ((cmd.flags & ~IOMMU_HWPT_FAULT_ID_VALID) !== 0 || cmd.data_len === 0) return -ERRNO.EOPNOTSUPP
  if (parent.isAuto || !parent.isNestParent) return -ERRNO.EINVAL
  if (cmd.data_type !== IOMMU_HWPT_DATA_VTD_S1 || !group.iommu.model?.canNest)
    return -ERRNO.EOPNOTSUPP
  const table = userStruct(iommu_hwpt_vtd_s1, cmd.data_uptr, cmd.data_len)
  return typeof table === 'number' ? table : new HwptNested(parent)
}

const ENTRIES_MAX = 2 ** 19

const invalidate = operation(
  IOMMU_HWPT_INVALIDATE,
  '6.8',
  iommu_hwpt_invalidate,
  iommu_hwpt_invalidate.size,
  ({ context, cmd, respond }) => {
    let done = 0
    const execute = (): number => {
      if (cmd.__reserved !== 0) return -ERRNO.EOPNOTSUPP
      const isBad =
        cmd.data_uptr === 0n ||
        cmd.entry_len === 0 ||
        cmd.entry_len > Number(PAGE_SIZE) ||
        cmd.entry_num > ENTRIES_MAX
      if (cmd.entry_num > 0 && isBad) return -ERRNO.EINVAL
      if (!context.objects.find(cmd.hwpt_id, HwptNested)) return -ERRNO.ENOENT
      if (cmd.data_type !== IOMMU_HWPT_INVALIDATE_DATA_VTD_S1) return -ERRNO.EINVAL
      for (; done < cmd.entry_num; done++) {
        const at = cmd.data_uptr + BigInt(done * cmd.entry_len)
        const refused = checkEntry(userStruct(iommu_hwpt_vtd_s1_invalidate, at, cmd.entry_len))
        if (refused < 0) return refused
      }
      return 0
    }
    const answer = execute()
    // How many were done is said even when one was refused.
    cmd.entry_num = done
    return respond() < 0 ? -ERRNO.EFAULT : answer
  },
)

const checkEntry = (
  entry: Values<(typeof iommu_hwpt_vtd_s1_invalidate)['types']> | number,
): number => {
  if (typeof entry === 'number') return entry
  if ((entry.flags & ~IOMMU_VTD_INV_FLAGS_LEAF) !== 0 || entry.__reserved !== 0)
    return -ERRNO.EOPNOTSUPP
  const isAll = entry.npages === U64_MAX
  return entry.addr % PAGE_SIZE !== 0n || (isAll && entry.addr !== 0n) ? -ERRNO.EINVAL : 0
}

export const hwptRequests: readonly Operation[] = [alloc, invalidate]
