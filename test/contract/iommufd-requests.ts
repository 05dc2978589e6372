/** The requests of iommufd in Linux 6.12, each with its struct and what the kernel asks for at least. */

import type { Ioctl } from '../../src/abi/ioctl.ts'
import {
  IOMMU_DESTROY,
  IOMMU_FAULT_QUEUE_ALLOC,
  IOMMU_GET_HW_INFO,
  IOMMU_HWPT_ALLOC,
  IOMMU_HWPT_GET_DIRTY_BITMAP,
  IOMMU_HWPT_INVALIDATE,
  IOMMU_HWPT_SET_DIRTY_TRACKING,
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_ALLOW_IOVAS,
  IOMMU_IOAS_COPY,
  IOMMU_IOAS_IOVA_RANGES,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_UNMAP,
  IOMMU_OPTION,
  IOMMU_VFIO_IOAS,
  iommu_destroy,
  iommu_fault_alloc,
  iommu_hw_info,
  iommu_hwpt_alloc,
  iommu_hwpt_get_dirty_bitmap,
  iommu_hwpt_invalidate,
  iommu_hwpt_set_dirty_tracking,
  iommu_ioas_alloc,
  iommu_ioas_allow_iovas,
  iommu_ioas_copy,
  iommu_ioas_iova_ranges,
  iommu_ioas_map,
  iommu_ioas_unmap,
  iommu_option,
  iommu_vfio_ioas,
} from '../../src/abi/iommufd.ts'
import type { Struct } from '../../src/abi/layout.ts'

export interface IommufdRequest {
  readonly request: Ioctl<'iommufd'>
  // biome-ignore lint/suspicious/noExplicitAny: any struct, whatever its fields.
  readonly codec: Struct<any>
  /** In bytes. */
  readonly min: number
}

/** By short names. */
export const IOMMUFD_REQUESTS = {
  DESTROY: { request: IOMMU_DESTROY, codec: iommu_destroy, min: 8 },
  IOAS_ALLOC: { request: IOMMU_IOAS_ALLOC, codec: iommu_ioas_alloc, min: 12 },
  IOAS_ALLOW: { request: IOMMU_IOAS_ALLOW_IOVAS, codec: iommu_ioas_allow_iovas, min: 24 },
  IOAS_COPY: { request: IOMMU_IOAS_COPY, codec: iommu_ioas_copy, min: 40 },
  IOAS_RANGES: { request: IOMMU_IOAS_IOVA_RANGES, codec: iommu_ioas_iova_ranges, min: 32 },
  IOAS_MAP: { request: IOMMU_IOAS_MAP, codec: iommu_ioas_map, min: 40 },
  IOAS_UNMAP: { request: IOMMU_IOAS_UNMAP, codec: iommu_ioas_unmap, min: 24 },
  OPTION: { request: IOMMU_OPTION, codec: iommu_option, min: 24 },
  VFIO_IOAS: { request: IOMMU_VFIO_IOAS, codec: iommu_vfio_ioas, min: 12 },
  HWPT_ALLOC: { request: IOMMU_HWPT_ALLOC, codec: iommu_hwpt_alloc, min: 24 },
  HWPT_INVALIDATE: { request: IOMMU_HWPT_INVALIDATE, codec: iommu_hwpt_invalidate, min: 32 },
  HW_INFO: { request: IOMMU_GET_HW_INFO, codec: iommu_hw_info, min: 32 },
  SET_DIRTY: {
    request: IOMMU_HWPT_SET_DIRTY_TRACKING,
    codec: iommu_hwpt_set_dirty_tracking,
    min: 16,
  },
  GET_DIRTY: { request: IOMMU_HWPT_GET_DIRTY_BITMAP, codec: iommu_hwpt_get_dirty_bitmap, min: 48 },
  FAULT_ALLOC: { request: IOMMU_FAULT_QUEUE_ALLOC, codec: iommu_fault_alloc, min: 16 },
} as const satisfies Record<string, IommufdRequest>
