/**
 * iommufd.h up to 6.12: requests on /dev/iommu. The first field of every struct is its size: a
 * kernel that knows less accepts a longer struct with a zero tail, one that knows more reads what
 * is missing as zero. Since 6.2 where nothing else is said; iommufd-later.ts has what came after.
 */

import { io } from './ioctl.ts'
import { struct } from './layout.ts'

export const iommu_destroy = struct('iommu_destroy', { size: 'u32', id: 'u32' })

export const IOMMU_DESTROY = io('iommufd', 'IOMMU_DESTROY', 0x80, iommu_destroy)

// Address spaces.

export const iommu_ioas_alloc = struct('iommu_ioas_alloc', {
  size: 'u32',
  flags: 'u32',
  out_ioas_id: 'u32',
})

export const IOMMU_IOAS_ALLOC = io('iommufd', 'IOMMU_IOAS_ALLOC', 0x81, iommu_ioas_alloc)

/** Both ends are inside. */
export const iommu_iova_range = struct('iommu_iova_range', { start: 'u64', last: 'u64' })

/** allowed_iovas is the user address of num_iovas times iommu_iova_range. */
export const iommu_ioas_allow_iovas = struct('iommu_ioas_allow_iovas', {
  size: 'u32',
  ioas_id: 'u32',
  num_iovas: 'u32',
  __reserved: 'u32',
  allowed_iovas: 'u64',
})

export const IOMMU_IOAS_ALLOW_IOVAS = io(
  'iommufd',
  'IOMMU_IOAS_ALLOW_IOVAS',
  0x82,
  iommu_ioas_allow_iovas,
)

/** dst_iova is in with FIXED_IOVA, out without; the flags are those of IOMMU_IOAS_MAP. */
export const iommu_ioas_copy = struct('iommu_ioas_copy', {
  size: 'u32',
  flags: 'u32',
  dst_ioas_id: 'u32',
  src_ioas_id: 'u32',
  length: 'u64',
  dst_iova: 'u64',
  src_iova: 'u64',
})

export const IOMMU_IOAS_COPY = io('iommufd', 'IOMMU_IOAS_COPY', 0x83, iommu_ioas_copy)

/**
 * allowed_iovas is the user address of room for num_iovas times iommu_iova_range; num_iovas comes
 * back as how many there are.
 */
export const iommu_ioas_iova_ranges = struct('iommu_ioas_iova_ranges', {
  size: 'u32',
  ioas_id: 'u32',
  num_iovas: 'u32',
  __reserved: 'u32',
  allowed_iovas: 'u64',
  out_iova_alignment: 'u64',
})

export const IOMMU_IOAS_IOVA_RANGES = io(
  'iommufd',
  'IOMMU_IOAS_IOVA_RANGES',
  0x84,
  iommu_ioas_iova_ranges,
)

export const IOMMU_IOAS_MAP_FIXED_IOVA = 1
export const IOMMU_IOAS_MAP_WRITEABLE = 2
export const IOMMU_IOAS_MAP_READABLE = 4

/** iova is in with FIXED_IOVA, out without. */
export const iommu_ioas_map = struct('iommu_ioas_map', {
  size: 'u32',
  flags: 'u32',
  ioas_id: 'u32',
  __reserved: 'u32',
  user_va: 'u64',
  length: 'u64',
  iova: 'u64',
})

export const IOMMU_IOAS_MAP = io('iommufd', 'IOMMU_IOAS_MAP', 0x85, iommu_ioas_map)

/** length comes back as the bytes unmapped. */
export const iommu_ioas_unmap = struct('iommu_ioas_unmap', {
  size: 'u32',
  ioas_id: 'u32',
  iova: 'u64',
  length: 'u64',
})

export const IOMMU_IOAS_UNMAP = io('iommufd', 'IOMMU_IOAS_UNMAP', 0x86, iommu_ioas_unmap)

// Options.

/** object_id is 0. */
export const IOMMU_OPTION_RLIMIT_MODE = 0
/** object_id is an ioas. */
export const IOMMU_OPTION_HUGE_PAGES = 1
export const IOMMU_OPTION_OP_SET = 0
export const IOMMU_OPTION_OP_GET = 1

/** val64 is in for SET, out for GET. */
export const iommu_option = struct('iommu_option', {
  size: 'u32',
  option_id: 'u32',
  op: 'u16',
  __reserved: 'u16',
  object_id: 'u32',
  val64: 'u64',
})

export const IOMMU_OPTION = io('iommufd', 'IOMMU_OPTION', 0x87, iommu_option)

export const IOMMU_VFIO_IOAS_GET = 0
export const IOMMU_VFIO_IOAS_SET = 1
export const IOMMU_VFIO_IOAS_CLEAR = 2

export const iommu_vfio_ioas = struct('iommu_vfio_ioas', {
  size: 'u32',
  ioas_id: 'u32',
  op: 'u16',
  __reserved: 'u16',
})

/** The ioas that the container requests of an iommufd act on. */
export const IOMMU_VFIO_IOAS = io('iommufd', 'IOMMU_VFIO_IOAS', 0x88, iommu_vfio_ioas)

// Hardware page tables.

export const IOMMU_HWPT_ALLOC_NEST_PARENT = 1
/** Since 6.7. */
export const IOMMU_HWPT_ALLOC_DIRTY_TRACKING = 2
/** Since 6.11. */
export const IOMMU_HWPT_FAULT_ID_VALID = 4

export const IOMMU_HWPT_DATA_NONE = 0
export const IOMMU_HWPT_DATA_VTD_S1 = 1

/** The kernel asks for 24 bytes; it is 24 long in 6.6, 40 from 6.7 and 48 from 6.11. */
export const iommu_hwpt_alloc = struct('iommu_hwpt_alloc', {
  size: 'u32',
  flags: 'u32',
  dev_id: 'u32',
  pt_id: 'u32',
  out_hwpt_id: 'u32',
  __reserved: 'u32',
  data_type: 'u32',
  data_len: 'u32',
  data_uptr: 'u64',
  fault_id: 'u32',
  __reserved2: 'u32',
})

/** Since 6.6. */
export const IOMMU_HWPT_ALLOC = io('iommufd', 'IOMMU_HWPT_ALLOC', 0x89, iommu_hwpt_alloc)

export const IOMMU_VTD_S1_SRE = 1
export const IOMMU_VTD_S1_EAFE = 2
export const IOMMU_VTD_S1_WPE = 4

/** What data_uptr of IOMMU_HWPT_ALLOC points to with IOMMU_HWPT_DATA_VTD_S1. */
export const iommu_hwpt_vtd_s1 = struct('iommu_hwpt_vtd_s1', {
  flags: 'u64',
  pgtbl_addr: 'u64',
  addr_width: 'u32',
  __reserved: 'u32',
})

/** entry_num comes back as the entries handled. */
export const iommu_hwpt_invalidate = struct('iommu_hwpt_invalidate', {
  size: 'u32',
  hwpt_id: 'u32',
  data_uptr: 'u64',
  data_type: 'u32',
  entry_len: 'u32',
  entry_num: 'u32',
  __reserved: 'u32',
})

/** Since 6.8. */
export const IOMMU_HWPT_INVALIDATE = io(
  'iommufd',
  'IOMMU_HWPT_INVALIDATE',
  0x8d,
  iommu_hwpt_invalidate,
)

export const IOMMU_HWPT_INVALIDATE_DATA_VTD_S1 = 0
export const IOMMU_VTD_INV_FLAGS_LEAF = 1

/** Each of the entries that data_uptr points to; npages 2^64-1 with addr 0 is everything. */
export const iommu_hwpt_vtd_s1_invalidate = struct('iommu_hwpt_vtd_s1_invalidate', {
  addr: 'u64',
  npages: 'u64',
  flags: 'u32',
  __reserved: 'u32',
})

// Hardware information.

export const IOMMU_HW_INFO_TYPE_NONE = 0
export const IOMMU_HW_INFO_TYPE_INTEL_VTD = 1

export const IOMMU_HW_CAP_DIRTY_TRACKING = 1
/** Since 6.15 and in late 6.12.y, as is PRIV. */
export const IOMMU_HW_CAP_PCI_PASID_EXEC = 2
export const IOMMU_HW_CAP_PCI_PASID_PRIV = 4

/**
 * The kernel asks for 32 bytes; out_capabilities is there since 6.7. data_len goes in as the room
 * at data_uptr and comes back as the kernel's length. Byte 28 is out_max_pasid_log2 since 6.15 and
 * in late 6.12.y; before, it and the three behind it are one reserved u32.
 */
export const iommu_hw_info = struct('iommu_hw_info', {
  size: 'u32',
  flags: 'u32',
  dev_id: 'u32',
  data_len: 'u32',
  data_uptr: 'u64',
  out_data_type: 'u32',
  out_max_pasid_log2: 'u8',
  '__reserved[0]': 'u8',
  '__reserved[1]': 'u8',
  '__reserved[2]': 'u8',
  out_capabilities: 'u64',
})

/** Since 6.6. */
export const IOMMU_GET_HW_INFO = io('iommufd', 'IOMMU_GET_HW_INFO', 0x8a, iommu_hw_info)

/** Read-only mappings are forbidden in a nest parent. */
export const IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17 = 1

/** What data_uptr of IOMMU_GET_HW_INFO points to with IOMMU_HW_INFO_TYPE_INTEL_VTD. */
export const iommu_hw_info_vtd = struct('iommu_hw_info_vtd', {
  flags: 'u32',
  __reserved: 'u32',
  cap_reg: 'u64',
  ecap_reg: 'u64',
})

// Dirty tracking by the IOMMU; since 6.7.

/** Without the flag: stop. */
export const IOMMU_HWPT_DIRTY_TRACKING_ENABLE = 1

export const iommu_hwpt_set_dirty_tracking = struct('iommu_hwpt_set_dirty_tracking', {
  size: 'u32',
  flags: 'u32',
  hwpt_id: 'u32',
  __reserved: 'u32',
})

export const IOMMU_HWPT_SET_DIRTY_TRACKING = io(
  'iommufd',
  'IOMMU_HWPT_SET_DIRTY_TRACKING',
  0x8b,
  iommu_hwpt_set_dirty_tracking,
)

export const IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR = 1

/** data is the user address of the bitmap; one bit per page of page_size. */
export const iommu_hwpt_get_dirty_bitmap = struct('iommu_hwpt_get_dirty_bitmap', {
  size: 'u32',
  hwpt_id: 'u32',
  flags: 'u32',
  __reserved: 'u32',
  iova: 'u64',
  length: 'u64',
  page_size: 'u64',
  data: 'u64',
})

export const IOMMU_HWPT_GET_DIRTY_BITMAP = io(
  'iommufd',
  'IOMMU_HWPT_GET_DIRTY_BITMAP',
  0x8c,
  iommu_hwpt_get_dirty_bitmap,
)

// Page faults; since 6.11. Records are read from the fault fd, responses written to it.

export const iommu_fault_alloc = struct('iommu_fault_alloc', {
  size: 'u32',
  flags: 'u32',
  out_fault_id: 'u32',
  out_fault_fd: 'u32',
})

export const IOMMU_FAULT_QUEUE_ALLOC = io(
  'iommufd',
  'IOMMU_FAULT_QUEUE_ALLOC',
  0x8e,
  iommu_fault_alloc,
)

export const IOMMU_PGFAULT_FLAGS_PASID_VALID = 1
export const IOMMU_PGFAULT_FLAGS_LAST_PAGE = 2
export const IOMMU_PGFAULT_PERM_READ = 1
export const IOMMU_PGFAULT_PERM_WRITE = 2
export const IOMMU_PGFAULT_PERM_EXEC = 4
export const IOMMU_PGFAULT_PERM_PRIV = 8

export const iommu_hwpt_pgfault = struct('iommu_hwpt_pgfault', {
  flags: 'u32',
  dev_id: 'u32',
  pasid: 'u32',
  grpid: 'u32',
  perm: 'u32',
  __reserved: 'u32',
  addr: 'u64',
  length: 'u32',
  cookie: 'u32',
})

export const IOMMUFD_PAGE_RESP_SUCCESS = 0
export const IOMMUFD_PAGE_RESP_INVALID = 1

export const iommu_hwpt_page_response = struct('iommu_hwpt_page_response', {
  cookie: 'u32',
  code: 'u32',
})
