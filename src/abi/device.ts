/** vfio.h: requests on a device fd, from a group or from /dev/vfio/devices/vfioN (a cdev). */

import { capHeader } from './caps.ts'
import { io } from './ioctl.ts'
import { struct } from './layout.ts'

export const VFIO_DEVICE_RESET = io('device', 'VFIO_DEVICE_RESET', 111, 'none')
export const VFIO_DEVICE_QUERY_GFX_PLANE = io(
  'device',
  'VFIO_DEVICE_QUERY_GFX_PLANE',
  114,
  'undescribed',
)
export const VFIO_DEVICE_GET_GFX_DMABUF = io(
  'device',
  'VFIO_DEVICE_GET_GFX_DMABUF',
  115,
  'undescribed',
  'number',
)

// Device information.

export const VFIO_DEVICE_FLAGS_RESET = 1
export const VFIO_DEVICE_FLAGS_PCI = 2
export const VFIO_DEVICE_FLAGS_PLATFORM = 4
export const VFIO_DEVICE_FLAGS_AMBA = 8
export const VFIO_DEVICE_FLAGS_CCW = 0x10
export const VFIO_DEVICE_FLAGS_AP = 0x20
export const VFIO_DEVICE_FLAGS_FSL_MC = 0x40
/** Since 5.10. */
export const VFIO_DEVICE_FLAGS_CAPS = 0x80
/** Since 6.5. */
export const VFIO_DEVICE_FLAGS_CDX = 0x100

/**
 * The kernel asks for the first 16 bytes and a driver without capabilities writes no more than
 * those: zero the struct before, and read cap_offset only with the CAPS flag.
 */
export const vfio_device_info = struct('vfio_device_info', {
  argsz: 'u32',
  flags: 'u32',
  num_regions: 'u32',
  num_irqs: 'u32',
  cap_offset: 'u32',
  pad: 'u32',
})

export const VFIO_DEVICE_GET_INFO = io('device', 'VFIO_DEVICE_GET_INFO', 107, vfio_device_info)

export const VFIO_DEVICE_INFO_CAP_ZPCI_BASE = 1
export const VFIO_DEVICE_INFO_CAP_ZPCI_GROUP = 2
export const VFIO_DEVICE_INFO_CAP_ZPCI_UTIL = 3
export const VFIO_DEVICE_INFO_CAP_ZPCI_PFIP = 4
/** Since 6.5. */
export const VFIO_DEVICE_INFO_CAP_PCI_ATOMIC_COMP = 5

export const VFIO_PCI_ATOMIC_COMP32 = 1
export const VFIO_PCI_ATOMIC_COMP64 = 2
export const VFIO_PCI_ATOMIC_COMP128 = 4

export const vfio_device_info_cap_pci_atomic_comp = struct('vfio_device_info_cap_pci_atomic_comp', {
  ...capHeader,
  flags: 'u32',
  reserved: 'u32',
})

// Regions.

export const VFIO_REGION_INFO_FLAG_READ = 1
export const VFIO_REGION_INFO_FLAG_WRITE = 2
export const VFIO_REGION_INFO_FLAG_MMAP = 4
export const VFIO_REGION_INFO_FLAG_CAPS = 8

/** `index` in, the rest out. `offset` is the file offset of the region on the device fd. */
export const vfio_region_info = struct('vfio_region_info', {
  argsz: 'u32',
  flags: 'u32',
  index: 'u32',
  cap_offset: 'u32',
  size: 'u64',
  offset: 'u64',
})

export const VFIO_DEVICE_GET_REGION_INFO = io(
  'device',
  'VFIO_DEVICE_GET_REGION_INFO',
  108,
  vfio_region_info,
)

export const VFIO_REGION_INFO_CAP_SPARSE_MMAP = 1
export const VFIO_REGION_INFO_CAP_TYPE = 2
/** A header only: the BAR that holds the MSI-X table may be mapped whole. */
export const VFIO_REGION_INFO_CAP_MSIX_MAPPABLE = 3
/** No driver has the NVLINK2 ones any more. */
export const VFIO_REGION_INFO_CAP_NVLINK2_SSATGT = 4
export const VFIO_REGION_INFO_CAP_NVLINK2_LNKSPD = 5

/** nr_areas times vfio_region_sparse_mmap_area follows. */
export const vfio_region_info_cap_sparse_mmap = struct('vfio_region_info_cap_sparse_mmap', {
  ...capHeader,
  nr_areas: 'u32',
  reserved: 'u32',
})

/** `offset` counts from the start of the region. */
export const vfio_region_sparse_mmap_area = struct('vfio_region_sparse_mmap_area', {
  offset: 'u64',
  size: 'u64',
})

export const vfio_region_info_cap_type = struct('vfio_region_info_cap_type', {
  ...capHeader,
  type: 'u32',
  subtype: 'u32',
})

export const vfio_region_info_cap_nvlink2_ssatgt = struct('vfio_region_info_cap_nvlink2_ssatgt', {
  ...capHeader,
  tgt: 'u64',
})

export const vfio_region_info_cap_nvlink2_lnkspd = struct('vfio_region_info_cap_nvlink2_lnkspd', {
  ...capHeader,
  link_speed: 'u32',
  __pad: 'u32',
})

/** Set in the type of a region that a PCI vendor defined; the vendor id is under the mask. */
export const VFIO_REGION_TYPE_PCI_VENDOR_TYPE = 0x8000_0000
export const VFIO_REGION_TYPE_PCI_VENDOR_MASK = 0xffff
export const VFIO_REGION_TYPE_GFX = 1
export const VFIO_REGION_TYPE_CCW = 2
export const VFIO_REGION_SUBTYPE_GFX_EDID = 1

export const VFIO_PCI_BAR0_REGION_INDEX = 0
export const VFIO_PCI_BAR1_REGION_INDEX = 1
export const VFIO_PCI_BAR2_REGION_INDEX = 2
export const VFIO_PCI_BAR3_REGION_INDEX = 3
export const VFIO_PCI_BAR4_REGION_INDEX = 4
export const VFIO_PCI_BAR5_REGION_INDEX = 5
export const VFIO_PCI_ROM_REGION_INDEX = 6
export const VFIO_PCI_CONFIG_REGION_INDEX = 7
export const VFIO_PCI_VGA_REGION_INDEX = 8
/** Fixed: regions that only this device has start here. */
export const VFIO_PCI_NUM_REGIONS = 9

// Interrupts.

export const VFIO_PCI_INTX_IRQ_INDEX = 0
export const VFIO_PCI_MSI_IRQ_INDEX = 1
export const VFIO_PCI_MSIX_IRQ_INDEX = 2
export const VFIO_PCI_ERR_IRQ_INDEX = 3
export const VFIO_PCI_REQ_IRQ_INDEX = 4
export const VFIO_PCI_NUM_IRQS = 5

export const VFIO_IRQ_INFO_EVENTFD = 1
export const VFIO_IRQ_INFO_MASKABLE = 2
export const VFIO_IRQ_INFO_AUTOMASKED = 4
export const VFIO_IRQ_INFO_NORESIZE = 8

/** `index` in, the rest out. */
export const vfio_irq_info = struct('vfio_irq_info', {
  argsz: 'u32',
  flags: 'u32',
  index: 'u32',
  count: 'u32',
})

export const VFIO_DEVICE_GET_IRQ_INFO = io('device', 'VFIO_DEVICE_GET_IRQ_INFO', 109, vfio_irq_info)

/** Exactly one DATA and exactly one ACTION in a VFIO_DEVICE_SET_IRQS. */
export const VFIO_IRQ_SET_DATA_NONE = 1
export const VFIO_IRQ_SET_DATA_BOOL = 2
export const VFIO_IRQ_SET_DATA_EVENTFD = 4
export const VFIO_IRQ_SET_ACTION_MASK = 8
export const VFIO_IRQ_SET_ACTION_UNMASK = 0x10
export const VFIO_IRQ_SET_ACTION_TRIGGER = 0x20
export const VFIO_IRQ_SET_DATA_TYPE_MASK = 7
export const VFIO_IRQ_SET_ACTION_TYPE_MASK = 0x38

/**
 * 20 bytes, then `count` values: nothing for DATA_NONE, u8 for DATA_BOOL, s32 for DATA_EVENTFD
 * where -1 detaches the vector. DATA_NONE and ACTION_TRIGGER with count 0 disable the index.
 */
export const vfio_irq_set = struct('vfio_irq_set', {
  argsz: 'u32',
  flags: 'u32',
  index: 'u32',
  start: 'u32',
  count: 'u32',
})

export const VFIO_DEVICE_SET_IRQS = io(
  'device',
  'VFIO_DEVICE_SET_IRQS',
  110,
  vfio_irq_set,
  'available',
)

// Hot reset.

/** The callers of a cdev get devids instead of group ids; since 6.6, as is OWNED. */
export const VFIO_PCI_HOT_RESET_FLAG_DEV_ID = 1
export const VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED = 2
export const VFIO_PCI_DEVID_OWNED = 0
export const VFIO_PCI_DEVID_NOT_OWNED = -1

/** group_id shares its bytes with devid: with the DEV_ID flag, read it as that. */
export const vfio_pci_dependent_device = struct('vfio_pci_dependent_device', {
  group_id: 'u32',
  segment: 'u16',
  bus: 'u8',
  devfn: 'u8',
})

/** `count` times vfio_pci_dependent_device follows; ENOSPC with the count when it does not fit. */
export const vfio_pci_hot_reset_info = struct('vfio_pci_hot_reset_info', {
  argsz: 'u32',
  flags: 'u32',
  count: 'u32',
})

export const VFIO_DEVICE_GET_PCI_HOT_RESET_INFO = io(
  'device',
  'VFIO_DEVICE_GET_PCI_HOT_RESET_INFO',
  112,
  vfio_pci_hot_reset_info,
)

/** `count` group fds (s32) follow; a cdev sends none. */
export const vfio_pci_hot_reset = struct('vfio_pci_hot_reset', {
  argsz: 'u32',
  flags: 'u32',
  count: 'u32',
})

export const VFIO_DEVICE_PCI_HOT_RESET = io(
  'device',
  'VFIO_DEVICE_PCI_HOT_RESET',
  113,
  vfio_pci_hot_reset,
)

// Ioeventfd: a write that the kernel does itself whenever an eventfd is signalled.

/** The width of the write; exactly one of the four. */
export const VFIO_DEVICE_IOEVENTFD_8 = 1
export const VFIO_DEVICE_IOEVENTFD_16 = 2
export const VFIO_DEVICE_IOEVENTFD_32 = 4
export const VFIO_DEVICE_IOEVENTFD_64 = 8
export const VFIO_DEVICE_IOEVENTFD_SIZE_MASK = 0xf

/** The kernel asks for the first 28 bytes; fd -1 removes. */
export const vfio_device_ioeventfd = struct('vfio_device_ioeventfd', {
  argsz: 'u32',
  flags: 'u32',
  offset: 'u64',
  data: 'u64',
  fd: 's32',
  reserved: 'u32',
})

export const VFIO_DEVICE_IOEVENTFD = io(
  'device',
  'VFIO_DEVICE_IOEVENTFD',
  116,
  vfio_device_ioeventfd,
)

// The three requests of a cdev, as 6.6 to 6.12 have them; device-later.ts has their longer forms.

/** out_devid out, the rest in. */
export const vfio_device_bind_iommufd = struct('vfio_device_bind_iommufd', {
  argsz: 'u32',
  flags: 'u32',
  iommufd: 's32',
  out_devid: 'u32',
})

/** Since 6.6, as are ATTACH and DETACH: the three of a cdev. */
export const VFIO_DEVICE_BIND_IOMMUFD = io(
  'device',
  'VFIO_DEVICE_BIND_IOMMUFD',
  118,
  vfio_device_bind_iommufd,
)

/** pt_id goes in as an ioas or a hwpt, and comes back as the hwpt that is used. */
export const vfio_device_attach_iommufd_pt = struct('vfio_device_attach_iommufd_pt', {
  argsz: 'u32',
  flags: 'u32',
  pt_id: 'u32',
})

export const VFIO_DEVICE_ATTACH_IOMMUFD_PT = io(
  'device',
  'VFIO_DEVICE_ATTACH_IOMMUFD_PT',
  119,
  vfio_device_attach_iommufd_pt,
)

export const vfio_device_detach_iommufd_pt = struct('vfio_device_detach_iommufd_pt', {
  argsz: 'u32',
  flags: 'u32',
})

export const VFIO_DEVICE_DETACH_IOMMUFD_PT = io(
  'device',
  'VFIO_DEVICE_DETACH_IOMMUFD_PT',
  120,
  vfio_device_detach_iommufd_pt,
)
