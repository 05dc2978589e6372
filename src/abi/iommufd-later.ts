/**
 * iommufd.h after 6.12. A kernel without one of these requests answers it with ENOTTY; a kernel
 * without a flag answers that with EOPNOTSUPP.
 */

import { io } from './ioctl.ts'
import { struct } from './layout.ts'

/** fd is a memfd or a file of tmpfs or hugetlbfs; a dma-buf since 6.19. start is its offset. */
export const iommu_ioas_map_file = struct('iommu_ioas_map_file', {
  size: 'u32',
  flags: 'u32',
  ioas_id: 'u32',
  fd: 's32',
  start: 'u64',
  length: 'u64',
  iova: 'u64',
})

/** Since 6.13; the flags are those of IOMMU_IOAS_MAP. */
export const IOMMU_IOAS_MAP_FILE = io('iommufd', 'IOMMU_IOAS_MAP_FILE', 0x8f, iommu_ioas_map_file)

/** The first 24 bytes since 6.13, data_len and what follows since 6.17. */
export const iommu_viommu_alloc = struct('iommu_viommu_alloc', {
  size: 'u32',
  flags: 'u32',
  type: 'u32',
  dev_id: 'u32',
  hwpt_id: 'u32',
  out_viommu_id: 'u32',
  data_len: 'u32',
  __reserved: 'u32',
  data_uptr: 'u64',
})

/** Since 6.13. */
export const IOMMU_VIOMMU_ALLOC = io('iommufd', 'IOMMU_VIOMMU_ALLOC', 0x90, iommu_viommu_alloc)

export const iommu_vdevice_alloc = struct('iommu_vdevice_alloc', {
  size: 'u32',
  viommu_id: 'u32',
  dev_id: 'u32',
  out_vdevice_id: 'u32',
  virt_id: 'u64',
})

/** Since 6.13. */
export const IOMMU_VDEVICE_ALLOC = io('iommufd', 'IOMMU_VDEVICE_ALLOC', 0x91, iommu_vdevice_alloc)

export const iommu_ioas_change_process = struct('iommu_ioas_change_process', {
  size: 'u32',
  __reserved: 'u32',
})

/** Since 6.14: moves the accounting of the pinned pages to the calling process. */
export const IOMMU_IOAS_CHANGE_PROCESS = io(
  'iommufd',
  'IOMMU_IOAS_CHANGE_PROCESS',
  0x92,
  iommu_ioas_change_process,
)

export const iommu_veventq_alloc = struct('iommu_veventq_alloc', {
  size: 'u32',
  flags: 'u32',
  viommu_id: 'u32',
  type: 'u32',
  veventq_depth: 'u32',
  out_veventq_id: 'u32',
  out_veventq_fd: 'u32',
  __reserved: 'u32',
})

/** Since 6.15. */
export const IOMMU_VEVENTQ_ALLOC = io('iommufd', 'IOMMU_VEVENTQ_ALLOC', 0x93, iommu_veventq_alloc)

export const iommu_hw_queue_alloc = struct('iommu_hw_queue_alloc', {
  size: 'u32',
  flags: 'u32',
  viommu_id: 'u32',
  type: 'u32',
  index: 'u32',
  out_hw_queue_id: 'u32',
  nesting_parent_iova: 'u64',
  length: 'u64',
})

/** Since 6.17. */
export const IOMMU_HW_QUEUE_ALLOC = io(
  'iommufd',
  'IOMMU_HW_QUEUE_ALLOC',
  0x94,
  iommu_hw_queue_alloc,
)

/** Since 6.15. */
export const IOMMU_HWPT_ALLOC_PASID = 8
/** Since 6.13, as is the HW_INFO type. */
export const IOMMU_HWPT_DATA_ARM_SMMUV3 = 2
export const IOMMU_HW_INFO_TYPE_ARM_SMMUV3 = 2
/** Since 6.17. */
export const IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV = 3
/** Since 6.17: out_data_type of iommu_hw_info is in_data_type on the way in. */
export const IOMMU_HW_INFO_FLAG_INPUT_TYPE = 1
