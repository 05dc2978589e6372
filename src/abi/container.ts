/**
 * vfio.h: requests on a container fd, /dev/vfio/vfio, and the type1 IOMMU backend. An iommufd that
 * stands in for a container answers them too, except VFIO_IOMMU_DIRTY_PAGES.
 */

import { capHeader } from './caps.ts'
import { io } from './ioctl.ts'
import { struct } from './layout.ts'

export const VFIO_API_VERSION = 0

export const VFIO_GET_API_VERSION = io('container', 'VFIO_GET_API_VERSION', 100, 'none', 'number')
/** The argument is an extension by value; answers 0 or 1. */
export const VFIO_CHECK_EXTENSION = io('container', 'VFIO_CHECK_EXTENSION', 101, 'value', 'number')
/** The argument is one of the IOMMU extensions by value. */
export const VFIO_SET_IOMMU = io('container', 'VFIO_SET_IOMMU', 102, 'value')

export const VFIO_TYPE1_IOMMU = 1
export const VFIO_SPAPR_TCE_IOMMU = 2
export const VFIO_TYPE1v2_IOMMU = 3
export const VFIO_DMA_CC_IOMMU = 4
export const VFIO_EEH = 5
/** Without meaning from 6.13 on. */
export const VFIO_TYPE1_NESTING_IOMMU = 6
export const VFIO_SPAPR_TCE_v2_IOMMU = 7
export const VFIO_NOIOMMU_IOMMU = 8
/** Since 5.12. */
export const VFIO_UNMAP_ALL = 9
/** Since 5.12. */
export const VFIO_UPDATE_VADDR = 10

/** sPAPR only, as is DISABLE. */
export const VFIO_IOMMU_ENABLE = io('container', 'VFIO_IOMMU_ENABLE', 115, 'none')
export const VFIO_IOMMU_DISABLE = io('container', 'VFIO_IOMMU_DISABLE', 116, 'none')

export const VFIO_IOMMU_INFO_PGSIZES = 1
export const VFIO_IOMMU_INFO_CAPS = 2

/** The kernel asks for the first 16 bytes; cap_offset counts only with the CAPS flag. */
export const vfio_iommu_type1_info = struct('vfio_iommu_type1_info', {
  argsz: 'u32',
  flags: 'u32',
  iova_pgsizes: 'u64',
  cap_offset: 'u32',
  pad: 'u32',
})

export const VFIO_IOMMU_GET_INFO = io(
  'container',
  'VFIO_IOMMU_GET_INFO',
  112,
  vfio_iommu_type1_info,
)

/** Since 5.4. */
export const VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE = 1
/** Since 5.8. */
export const VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION = 2
/** Since 5.10. */
export const VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL = 3

/** nr_iovas times vfio_iova_range follows. */
export const vfio_iommu_type1_info_cap_iova_range = struct('vfio_iommu_type1_info_cap_iova_range', {
  ...capHeader,
  nr_iovas: 'u32',
  reserved: 'u32',
})

/** Both ends are inside. */
export const vfio_iova_range = struct('vfio_iova_range', { start: 'u64', end: 'u64' })

/** The compiler leaves four bytes unnamed behind flags. */
export const vfio_iommu_type1_info_cap_migration = struct('vfio_iommu_type1_info_cap_migration', {
  ...capHeader,
  flags: 'u32',
  pgsize_bitmap: 'u64',
  max_dirty_bitmap_size: 'u64',
})

/** 12 bytes; the kernel starts the capability behind it at the next multiple of 8. */
export const vfio_iommu_type1_info_dma_avail = struct('vfio_iommu_type1_info_dma_avail', {
  ...capHeader,
  avail: 'u32',
})

/** What the device may do: READ lets it read the memory. */
export const VFIO_DMA_MAP_FLAG_READ = 1
export const VFIO_DMA_MAP_FLAG_WRITE = 2
/** Since 5.12. */
export const VFIO_DMA_MAP_FLAG_VADDR = 4

export const vfio_iommu_type1_dma_map = struct('vfio_iommu_type1_dma_map', {
  argsz: 'u32',
  flags: 'u32',
  vaddr: 'u64',
  iova: 'u64',
  size: 'u64',
})

export const VFIO_IOMMU_MAP_DMA = io(
  'container',
  'VFIO_IOMMU_MAP_DMA',
  113,
  vfio_iommu_type1_dma_map,
)

/** Since 5.8. */
export const VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP = 1
/** Since 5.12. */
export const VFIO_DMA_UNMAP_FLAG_ALL = 2
/** Since 5.12. */
export const VFIO_DMA_UNMAP_FLAG_VADDR = 4

/** `size` comes back as the bytes unmapped. With GET_DIRTY_BITMAP a vfio_bitmap follows. */
export const vfio_iommu_type1_dma_unmap = struct('vfio_iommu_type1_dma_unmap', {
  argsz: 'u32',
  flags: 'u32',
  iova: 'u64',
  size: 'u64',
})

export const VFIO_IOMMU_UNMAP_DMA = io(
  'container',
  'VFIO_IOMMU_UNMAP_DMA',
  114,
  vfio_iommu_type1_dma_unmap,
)

/** `data` is a user address; `size` is in bytes; one bit per page of `pgsize`. */
export const vfio_bitmap = struct('vfio_bitmap', { pgsize: 'u64', size: 'u64', data: 'u64' })

/** Exactly one of these in a VFIO_IOMMU_DIRTY_PAGES. */
export const VFIO_IOMMU_DIRTY_PAGES_FLAG_START = 1
export const VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP = 2
export const VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP = 4

/** With GET_BITMAP a vfio_iommu_type1_dirty_bitmap_get follows. */
export const vfio_iommu_type1_dirty_bitmap = struct('vfio_iommu_type1_dirty_bitmap', {
  argsz: 'u32',
  flags: 'u32',
})

/** Since 5.8. */
export const VFIO_IOMMU_DIRTY_PAGES = io(
  'container',
  'VFIO_IOMMU_DIRTY_PAGES',
  117,
  vfio_iommu_type1_dirty_bitmap,
)

/** The embedded `bitmap` may as well be read as a vfio_bitmap at offset 16. */
export const vfio_iommu_type1_dirty_bitmap_get = struct('vfio_iommu_type1_dirty_bitmap_get', {
  iova: 'u64',
  size: 'u64',
  'bitmap.pgsize': 'u64',
  'bitmap.size': 'u64',
  'bitmap.data': 'u64',
})
