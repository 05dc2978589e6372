/**
 * vfio.h, iommufd.h and pci_regs.h of 6.12 (later names as marked in src/abi), as literals: the
 * numbers here are written down from the headers, not computed from the code they check.
 */

import { describe, expect, test } from 'vitest'
import * as container from '../../src/abi/container.ts'
import * as device from '../../src/abi/device.ts'
import { VFIO_DEVICE_FEATURE } from '../../src/abi/feature.ts'
import * as group from '../../src/abi/group.ts'
import type { Ioctl } from '../../src/abi/ioctl.ts'
import * as iommufd from '../../src/abi/iommufd.ts'
import * as later from '../../src/abi/iommufd-later.ts'
import { PROPOSED_NDMA } from '../../src/abi/mig-v1.ts'
import { VFIO_MIG_GET_PRECOPY_INFO } from '../../src/abi/mig-v2.ts'
import type { FdKind } from '../../src/base/units.ts'
import { constants, others, requests } from './exports.ts'

type Row<Kind extends FdKind> = readonly [Ioctl<Kind>, number]

// The types are half of the table: a request in the list of another fd does not compile.
const ON_CONTAINER: readonly Row<'container'>[] = [
  [container.VFIO_GET_API_VERSION, 0x3b64],
  [container.VFIO_CHECK_EXTENSION, 0x3b65],
  [container.VFIO_SET_IOMMU, 0x3b66],
  [container.VFIO_IOMMU_GET_INFO, 0x3b70],
  [container.VFIO_IOMMU_MAP_DMA, 0x3b71],
  [container.VFIO_IOMMU_UNMAP_DMA, 0x3b72],
  [container.VFIO_IOMMU_ENABLE, 0x3b73],
  [container.VFIO_IOMMU_DISABLE, 0x3b74],
  [container.VFIO_IOMMU_DIRTY_PAGES, 0x3b75],
]

const ON_GROUP: readonly Row<'group'>[] = [
  [group.VFIO_GROUP_GET_STATUS, 0x3b67],
  [group.VFIO_GROUP_SET_CONTAINER, 0x3b68],
  [group.VFIO_GROUP_UNSET_CONTAINER, 0x3b69],
  [group.VFIO_GROUP_GET_DEVICE_FD, 0x3b6a],
]

const ON_DEVICE: readonly Row<'device'>[] = [
  [device.VFIO_DEVICE_GET_INFO, 0x3b6b],
  [device.VFIO_DEVICE_GET_REGION_INFO, 0x3b6c],
  [device.VFIO_DEVICE_GET_IRQ_INFO, 0x3b6d],
  [device.VFIO_DEVICE_SET_IRQS, 0x3b6e],
  [device.VFIO_DEVICE_RESET, 0x3b6f],
  [device.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, 0x3b70],
  [device.VFIO_DEVICE_PCI_HOT_RESET, 0x3b71],
  [device.VFIO_DEVICE_QUERY_GFX_PLANE, 0x3b72],
  [device.VFIO_DEVICE_GET_GFX_DMABUF, 0x3b73],
  [device.VFIO_DEVICE_IOEVENTFD, 0x3b74],
  [VFIO_DEVICE_FEATURE, 0x3b75],
  [device.VFIO_DEVICE_BIND_IOMMUFD, 0x3b76],
  [device.VFIO_DEVICE_ATTACH_IOMMUFD_PT, 0x3b77],
  [device.VFIO_DEVICE_DETACH_IOMMUFD_PT, 0x3b78],
]

const ON_DATA_FD: readonly Row<'dataFd'>[] = [[VFIO_MIG_GET_PRECOPY_INFO, 0x3b79]]

const ON_IOMMUFD: readonly Row<'iommufd'>[] = [
  [iommufd.IOMMU_DESTROY, 0x3b80],
  [iommufd.IOMMU_IOAS_ALLOC, 0x3b81],
  [iommufd.IOMMU_IOAS_ALLOW_IOVAS, 0x3b82],
  [iommufd.IOMMU_IOAS_COPY, 0x3b83],
  [iommufd.IOMMU_IOAS_IOVA_RANGES, 0x3b84],
  [iommufd.IOMMU_IOAS_MAP, 0x3b85],
  [iommufd.IOMMU_IOAS_UNMAP, 0x3b86],
  [iommufd.IOMMU_OPTION, 0x3b87],
  [iommufd.IOMMU_VFIO_IOAS, 0x3b88],
  [iommufd.IOMMU_HWPT_ALLOC, 0x3b89],
  [iommufd.IOMMU_GET_HW_INFO, 0x3b8a],
  [iommufd.IOMMU_HWPT_SET_DIRTY_TRACKING, 0x3b8b],
  [iommufd.IOMMU_HWPT_GET_DIRTY_BITMAP, 0x3b8c],
  [iommufd.IOMMU_HWPT_INVALIDATE, 0x3b8d],
  [iommufd.IOMMU_FAULT_QUEUE_ALLOC, 0x3b8e],
  [later.IOMMU_IOAS_MAP_FILE, 0x3b8f],
  [later.IOMMU_VIOMMU_ALLOC, 0x3b90],
  [later.IOMMU_VDEVICE_ALLOC, 0x3b91],
  [later.IOMMU_IOAS_CHANGE_PROCESS, 0x3b92],
  [later.IOMMU_VEVENTQ_ALLOC, 0x3b93],
  [later.IOMMU_HW_QUEUE_ALLOC, 0x3b94],
]

const REQUESTS: readonly Row<FdKind>[] = [
  ...ON_CONTAINER,
  ...ON_GROUP,
  ...ON_DEVICE,
  ...ON_DATA_FD,
  ...ON_IOMMUFD,
]

const CONSTANTS: Readonly<Record<string, number>> = {
  VFIO_API_VERSION: 0,

  VFIO_TYPE1_IOMMU: 1,
  VFIO_SPAPR_TCE_IOMMU: 2,
  VFIO_TYPE1v2_IOMMU: 3,
  VFIO_DMA_CC_IOMMU: 4,
  VFIO_EEH: 5,
  VFIO_TYPE1_NESTING_IOMMU: 6,
  VFIO_SPAPR_TCE_v2_IOMMU: 7,
  VFIO_NOIOMMU_IOMMU: 8,
  VFIO_UNMAP_ALL: 9,
  VFIO_UPDATE_VADDR: 10,

  VFIO_GROUP_FLAGS_VIABLE: 0x1,
  VFIO_GROUP_FLAGS_CONTAINER_SET: 0x2,

  VFIO_DEVICE_FLAGS_RESET: 0x1,
  VFIO_DEVICE_FLAGS_PCI: 0x2,
  VFIO_DEVICE_FLAGS_PLATFORM: 0x4,
  VFIO_DEVICE_FLAGS_AMBA: 0x8,
  VFIO_DEVICE_FLAGS_CCW: 0x10,
  VFIO_DEVICE_FLAGS_AP: 0x20,
  VFIO_DEVICE_FLAGS_FSL_MC: 0x40,
  VFIO_DEVICE_FLAGS_CAPS: 0x80,
  VFIO_DEVICE_FLAGS_CDX: 0x100,

  VFIO_DEVICE_INFO_CAP_ZPCI_BASE: 1,
  VFIO_DEVICE_INFO_CAP_ZPCI_GROUP: 2,
  VFIO_DEVICE_INFO_CAP_ZPCI_UTIL: 3,
  VFIO_DEVICE_INFO_CAP_ZPCI_PFIP: 4,
  VFIO_DEVICE_INFO_CAP_PCI_ATOMIC_COMP: 5,
  VFIO_PCI_ATOMIC_COMP32: 0x1,
  VFIO_PCI_ATOMIC_COMP64: 0x2,
  VFIO_PCI_ATOMIC_COMP128: 0x4,

  VFIO_REGION_INFO_FLAG_READ: 0x1,
  VFIO_REGION_INFO_FLAG_WRITE: 0x2,
  VFIO_REGION_INFO_FLAG_MMAP: 0x4,
  VFIO_REGION_INFO_FLAG_CAPS: 0x8,
  VFIO_REGION_INFO_CAP_SPARSE_MMAP: 1,
  VFIO_REGION_INFO_CAP_TYPE: 2,
  VFIO_REGION_INFO_CAP_MSIX_MAPPABLE: 3,
  VFIO_REGION_INFO_CAP_NVLINK2_SSATGT: 4,
  VFIO_REGION_INFO_CAP_NVLINK2_LNKSPD: 5,
  VFIO_REGION_TYPE_PCI_VENDOR_TYPE: 0x80000000,
  VFIO_REGION_TYPE_PCI_VENDOR_MASK: 0xffff,
  VFIO_REGION_TYPE_GFX: 1,
  VFIO_REGION_TYPE_CCW: 2,
  VFIO_REGION_TYPE_MIGRATION_DEPRECATED: 3,
  VFIO_REGION_SUBTYPE_GFX_EDID: 1,
  VFIO_REGION_SUBTYPE_MIGRATION_DEPRECATED: 1,

  VFIO_PCI_BAR0_REGION_INDEX: 0,
  VFIO_PCI_BAR1_REGION_INDEX: 1,
  VFIO_PCI_BAR2_REGION_INDEX: 2,
  VFIO_PCI_BAR3_REGION_INDEX: 3,
  VFIO_PCI_BAR4_REGION_INDEX: 4,
  VFIO_PCI_BAR5_REGION_INDEX: 5,
  VFIO_PCI_ROM_REGION_INDEX: 6,
  VFIO_PCI_CONFIG_REGION_INDEX: 7,
  VFIO_PCI_VGA_REGION_INDEX: 8,
  VFIO_PCI_NUM_REGIONS: 9,

  VFIO_PCI_INTX_IRQ_INDEX: 0,
  VFIO_PCI_MSI_IRQ_INDEX: 1,
  VFIO_PCI_MSIX_IRQ_INDEX: 2,
  VFIO_PCI_ERR_IRQ_INDEX: 3,
  VFIO_PCI_REQ_IRQ_INDEX: 4,
  VFIO_PCI_NUM_IRQS: 5,

  VFIO_IRQ_INFO_EVENTFD: 0x1,
  VFIO_IRQ_INFO_MASKABLE: 0x2,
  VFIO_IRQ_INFO_AUTOMASKED: 0x4,
  VFIO_IRQ_INFO_NORESIZE: 0x8,
  VFIO_IRQ_SET_DATA_NONE: 0x1,
  VFIO_IRQ_SET_DATA_BOOL: 0x2,
  VFIO_IRQ_SET_DATA_EVENTFD: 0x4,
  VFIO_IRQ_SET_ACTION_MASK: 0x8,
  VFIO_IRQ_SET_ACTION_UNMASK: 0x10,
  VFIO_IRQ_SET_ACTION_TRIGGER: 0x20,
  VFIO_IRQ_SET_DATA_TYPE_MASK: 0x7,
  VFIO_IRQ_SET_ACTION_TYPE_MASK: 0x38,

  VFIO_PCI_HOT_RESET_FLAG_DEV_ID: 0x1,
  VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED: 0x2,
  VFIO_PCI_DEVID_OWNED: 0,
  VFIO_PCI_DEVID_NOT_OWNED: -1,

  VFIO_DEVICE_IOEVENTFD_8: 0x1,
  VFIO_DEVICE_IOEVENTFD_16: 0x2,
  VFIO_DEVICE_IOEVENTFD_32: 0x4,
  VFIO_DEVICE_IOEVENTFD_64: 0x8,
  VFIO_DEVICE_IOEVENTFD_SIZE_MASK: 0xf,

  VFIO_DEVICE_BIND_FLAG_TOKEN: 0x1,
  VFIO_DEVICE_ATTACH_PASID: 0x1,
  VFIO_DEVICE_DETACH_PASID: 0x1,

  VFIO_DEVICE_FEATURE_MASK: 0xffff,
  VFIO_DEVICE_FEATURE_GET: 65536,
  VFIO_DEVICE_FEATURE_SET: 131072,
  VFIO_DEVICE_FEATURE_PROBE: 262144,
  VFIO_DEVICE_FEATURE_PCI_VF_TOKEN: 0,
  VFIO_DEVICE_FEATURE_MIGRATION: 1,
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE: 2,
  VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY: 3,
  VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP: 4,
  VFIO_DEVICE_FEATURE_LOW_POWER_EXIT: 5,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START: 6,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP: 7,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT: 8,
  VFIO_DEVICE_FEATURE_MIG_DATA_SIZE: 9,
  VFIO_DEVICE_FEATURE_BUS_MASTER: 10,
  VFIO_DEVICE_FEATURE_DMA_BUF: 11,
  VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2: 12,
  VFIO_DEVICE_FEATURE_CLEAR_MASTER: 0,
  VFIO_DEVICE_FEATURE_SET_MASTER: 1,

  VFIO_MIGRATION_STOP_COPY: 0x1,
  VFIO_MIGRATION_P2P: 0x2,
  VFIO_MIGRATION_PRE_COPY: 0x4,
  VFIO_DEVICE_STATE_ERROR: 0,
  VFIO_DEVICE_STATE_STOP: 1,
  VFIO_DEVICE_STATE_RUNNING: 2,
  VFIO_DEVICE_STATE_STOP_COPY: 3,
  VFIO_DEVICE_STATE_RESUMING: 4,
  VFIO_DEVICE_STATE_RUNNING_P2P: 5,
  VFIO_DEVICE_STATE_PRE_COPY: 6,
  VFIO_DEVICE_STATE_PRE_COPY_P2P: 7,
  VFIO_PRECOPY_INFO_REINIT: 0x1,

  VFIO_DEVICE_STATE_V1_STOP: 0x0,
  VFIO_DEVICE_STATE_V1_RUNNING: 0x1,
  VFIO_DEVICE_STATE_V1_SAVING: 0x2,
  VFIO_DEVICE_STATE_V1_RESUMING: 0x4,
  VFIO_DEVICE_STATE_MASK: 0x7,

  VFIO_IOMMU_INFO_PGSIZES: 0x1,
  VFIO_IOMMU_INFO_CAPS: 0x2,
  VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE: 1,
  VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION: 2,
  VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL: 3,
  VFIO_DMA_MAP_FLAG_READ: 0x1,
  VFIO_DMA_MAP_FLAG_WRITE: 0x2,
  VFIO_DMA_MAP_FLAG_VADDR: 0x4,
  VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP: 0x1,
  VFIO_DMA_UNMAP_FLAG_ALL: 0x2,
  VFIO_DMA_UNMAP_FLAG_VADDR: 0x4,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_START: 0x1,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP: 0x2,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP: 0x4,

  IOMMU_IOAS_MAP_FIXED_IOVA: 0x1,
  IOMMU_IOAS_MAP_WRITEABLE: 0x2,
  IOMMU_IOAS_MAP_READABLE: 0x4,
  IOMMU_OPTION_RLIMIT_MODE: 0,
  IOMMU_OPTION_HUGE_PAGES: 1,
  IOMMU_OPTION_OP_SET: 0,
  IOMMU_OPTION_OP_GET: 1,
  IOMMU_VFIO_IOAS_GET: 0,
  IOMMU_VFIO_IOAS_SET: 1,
  IOMMU_VFIO_IOAS_CLEAR: 2,
  IOMMU_HWPT_ALLOC_NEST_PARENT: 0x1,
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING: 0x2,
  IOMMU_HWPT_FAULT_ID_VALID: 0x4,
  IOMMU_HWPT_ALLOC_PASID: 0x8,
  IOMMU_HWPT_DATA_NONE: 0,
  IOMMU_HWPT_DATA_VTD_S1: 1,
  IOMMU_HWPT_DATA_ARM_SMMUV3: 2,
  IOMMU_HWPT_INVALIDATE_DATA_VTD_S1: 0,
  IOMMU_VTD_INV_FLAGS_LEAF: 1,
  IOMMU_VTD_S1_SRE: 1,
  IOMMU_VTD_S1_EAFE: 2,
  IOMMU_VTD_S1_WPE: 4,
  IOMMU_HW_INFO_TYPE_NONE: 0,
  IOMMU_HW_INFO_TYPE_INTEL_VTD: 1,
  IOMMU_HW_INFO_TYPE_ARM_SMMUV3: 2,
  IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV: 3,
  IOMMU_HW_CAP_DIRTY_TRACKING: 0x1,
  IOMMU_HW_CAP_PCI_PASID_EXEC: 0x2,
  IOMMU_HW_CAP_PCI_PASID_PRIV: 0x4,
  IOMMU_HW_INFO_FLAG_INPUT_TYPE: 0x1,
  IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17: 0x1,
  IOMMU_HWPT_DIRTY_TRACKING_ENABLE: 0x1,
  IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR: 0x1,
  IOMMU_PGFAULT_FLAGS_PASID_VALID: 0x1,
  IOMMU_PGFAULT_FLAGS_LAST_PAGE: 0x2,
  IOMMU_PGFAULT_PERM_READ: 0x1,
  IOMMU_PGFAULT_PERM_WRITE: 0x2,
  IOMMU_PGFAULT_PERM_EXEC: 0x4,
  IOMMU_PGFAULT_PERM_PRIV: 0x8,
  IOMMUFD_PAGE_RESP_SUCCESS: 0,
  IOMMUFD_PAGE_RESP_INVALID: 1,

  PCI_VENDOR_ID: 0x00,
  PCI_DEVICE_ID: 0x02,
  PCI_COMMAND: 0x04,
  PCI_COMMAND_IO: 0x1,
  PCI_COMMAND_MEMORY: 0x2,
  PCI_COMMAND_MASTER: 0x4,
  PCI_COMMAND_INTX_DISABLE: 0x400,
  PCI_STATUS: 0x06,
  PCI_STATUS_CAP_LIST: 0x10,
  PCI_CLASS_REVISION: 0x08,
  PCI_CLASS_DEVICE: 0x0a,
  PCI_HEADER_TYPE: 0x0e,
  PCI_HEADER_TYPE_MASK: 0x7f,
  PCI_HEADER_TYPE_NORMAL: 0,
  PCI_BASE_ADDRESS_0: 0x10,
  PCI_SUBSYSTEM_VENDOR_ID: 0x2c,
  PCI_SUBSYSTEM_ID: 0x2e,
  PCI_CAPABILITY_LIST: 0x34,
  PCI_INTERRUPT_LINE: 0x3c,
  PCI_INTERRUPT_PIN: 0x3d,
  PCI_CAP_LIST_ID: 0,
  PCI_CAP_LIST_NEXT: 1,
  PCI_CAP_ID_MSI: 0x05,
  PCI_CAP_ID_EXP: 0x10,
  PCI_CAP_ID_MSIX: 0x11,
}

describe('request numbers', () => {
  test.each(REQUESTS.map(([request, number]) => [request.cName, request.number, number] as const))(
    '%s is %i',
    (_, actual, literal) => {
      expect(actual).toBe(literal)
    },
  )

  test('the table has every request of the room', () => {
    const listed = REQUESTS.map(([request]) => request.cName)

    expect([...requests.keys()].sort()).toEqual(listed.sort())
  })

  test('a request is exported under its C name', () => {
    for (const [name, { cName }] of requests) expect(name).toBe(cName)
  })

  test('six numbers mean one thing on a container and another on a device', () => {
    const onDevice = new Set(ON_DEVICE.map(([, number]) => number))

    const shared = ON_CONTAINER.map(([, number]) => number).filter((nr) => onDevice.has(nr))

    expect(shared).toEqual([0x3b70, 0x3b71, 0x3b72, 0x3b73, 0x3b74, 0x3b75])
  })

  test('a request of one fd kind does not pass for one of another', () => {
    // @ts-expect-error: a container request where a device request is needed.
    const onDevice: Ioctl<'device'> = container.VFIO_IOMMU_MAP_DMA

    expect(onDevice.number).toBe(device.VFIO_DEVICE_PCI_HOT_RESET.number)
  })
})

describe('constants', () => {
  test.each(Object.entries(CONSTANTS))('%s is %i', (name, literal) => {
    expect(constants.get(name)).toBe(literal)
  })

  test('the table has every constant of the room', () => {
    expect([...constants.keys()].sort()).toEqual(Object.keys(CONSTANTS).sort())
  })

  test('the proposed NDMA of migration v1 is bit 3 and capability 6, and no C name', () => {
    expect(PROPOSED_NDMA).toEqual({ stateBit: 8, regionInfoCap: 6 })
  })

  test('nothing else leaves the room but its tools', () => {
    expect([...new Set(others)].sort()).toEqual([
      'PROPOSED_NDMA',
      'REQUESTS',
      'Struct',
      'capHeader',
      'capabilities',
      'dataView',
      'io',
      'struct',
    ])
  })
})
