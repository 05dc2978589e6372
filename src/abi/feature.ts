/**
 * vfio.h: VFIO_DEVICE_FEATURE on a device fd. One envelope for all features: the low 16 bits of
 * `flags` are the feature's number, and its payload follows at offset 8.
 */

import { io } from './ioctl.ts'
import { struct } from './layout.ts'

/** argsz is 8 plus the size of the payload. */
export const vfio_device_feature = struct('vfio_device_feature', { argsz: 'u32', flags: 'u32' })

export const VFIO_DEVICE_FEATURE = io('device', 'VFIO_DEVICE_FEATURE', 117, vfio_device_feature)

export const VFIO_DEVICE_FEATURE_MASK = 0xffff
export const VFIO_DEVICE_FEATURE_GET = 0x1_0000
export const VFIO_DEVICE_FEATURE_SET = 0x2_0000
/** With GET, SET or both: whether they are supported, without doing them. */
export const VFIO_DEVICE_FEATURE_PROBE = 0x4_0000

/** SET; the payload is a UUID of 16 bytes, without a struct. Since 5.7. */
export const VFIO_DEVICE_FEATURE_PCI_VF_TOKEN = 0
/** GET. Since 5.18, as is MIG_DEVICE_STATE; mig-v2.ts has both payloads. */
export const VFIO_DEVICE_FEATURE_MIGRATION = 1
/** GET, SET. */
export const VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE = 2
/** SET without payload. Since 6.1, as are the two below. */
export const VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY = 3
/** SET. */
export const VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP = 4
/** SET without payload. */
export const VFIO_DEVICE_FEATURE_LOW_POWER_EXIT = 5
/** SET. Since 6.1, as are the two below; dma-logging.ts has the payloads. */
export const VFIO_DEVICE_FEATURE_DMA_LOGGING_START = 6
/** SET without payload. */
export const VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP = 7
/** GET. */
export const VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT = 8
/** GET. Since 6.2; mig-v2.ts has the payload. */
export const VFIO_DEVICE_FEATURE_MIG_DATA_SIZE = 9
/** SET; vfio-cdx only. Since 6.7. */
export const VFIO_DEVICE_FEATURE_BUS_MASTER = 10
/** GET that answers an fd. Since 6.19. */
export const VFIO_DEVICE_FEATURE_DMA_BUF = 11
/** SET without payload: asks for VFIO_PRECOPY_INFO_REINIT in precopy info. Since 7.1. */
export const VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2 = 12

export const vfio_device_low_power_entry_with_wakeup = struct(
  'vfio_device_low_power_entry_with_wakeup',
  { wakeup_eventfd: 's32', reserved: 'u32' },
)

export const VFIO_DEVICE_FEATURE_CLEAR_MASTER = 0
export const VFIO_DEVICE_FEATURE_SET_MASTER = 1

export const vfio_device_feature_bus_master = struct('vfio_device_feature_bus_master', {
  op: 'u32',
})

/** Since 6.19; nr_ranges times vfio_region_dma_range follows. */
export const vfio_device_feature_dma_buf = struct('vfio_device_feature_dma_buf', {
  region_index: 'u32',
  open_flags: 'u32',
  flags: 'u32',
  nr_ranges: 'u32',
})

/** Since 6.19. */
export const vfio_region_dma_range = struct('vfio_region_dma_range', {
  offset: 'u64',
  length: 'u64',
})
