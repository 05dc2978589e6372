/** IOMMU_GET_HW_INFO: what a VMM needs to know of the IOMMU to show one to its guest. */

import {
  IOMMU_GET_HW_INFO,
  IOMMU_HW_CAP_DIRTY_TRACKING,
  IOMMU_HW_INFO_TYPE_INTEL_VTD,
  IOMMU_HW_INFO_TYPE_NONE,
  iommu_hw_info,
  iommu_hw_info_vtd,
} from '../../../abi/iommufd.ts'
import { ERRNO } from '../../../base/errno.ts'
import { userBytes } from '../core/user-memory.ts'
import type { IommuSpec } from '../spec/machine-spec.ts'
import { operation } from './command.ts'
import { PhysicalDevice } from './physical-device.ts'

/** Up to the reserved bytes: what the struct had when it came. */
const MIN = 32

export const hwInfoRequest = operation(
  IOMMU_GET_HW_INFO,
  '6.6',
  iommu_hw_info,
  MIN,
  ({ context, cmd, respond }) => {
    const reserved = cmd['__reserved[0]'] | cmd['__reserved[1]'] | cmd['__reserved[2]']
    if (cmd.flags !== 0 || reserved !== 0) return -ERRNO.EOPNOTSUPP
    const device = context.objects.find(cmd.dev_id, PhysicalDevice)
    if (device === undefined) return -ERRNO.ENOENT
    const { type, data } = infoOf(device.group.iommu)

    const into = userBytes(cmd.data_uptr, cmd.data_len)
    if (into === undefined) return -ERRNO.EFAULT
    into.fill(0)
    into.set(data.subarray(0, into.length))
    cmd.data_len = data.length
    cmd.out_data_type = type
    cmd.out_max_pasid_log2 = 0
    const tracksDirty = device.group.iommu.model?.dirtyTracking !== undefined
    cmd.out_capabilities = tracksDirty ? BigInt(IOMMU_HW_CAP_DIRTY_TRACKING) : 0n
    return respond()
  },
)

const infoOf = ({ model }: IommuSpec): { readonly type: number; readonly data: Uint8Array } => {
  if (model?.vtd === undefined) return { type: IOMMU_HW_INFO_TYPE_NONE, data: new Uint8Array(0) }
  const { capability, extendedCapability, errata } = model.vtd
  const data = iommu_hw_info_vtd.encode({
    flags: errata,
    cap_reg: capability,
    ecap_reg: extendedCapability,
  })
  return { type: IOMMU_HW_INFO_TYPE_INTEL_VTD, data }
}
