/**
 * vfio.h: migration through a device region, the protocol of 5.8 to 5.17. The header keeps its
 * names as deprecated. The NDMA bit and capability were proposed (2021) and never merged: no
 * header declares them, and they stand apart as an object so that they do not pass for C names.
 */

import { struct } from './layout.ts'

export const VFIO_REGION_TYPE_MIGRATION_DEPRECATED = 3
export const VFIO_REGION_SUBTYPE_MIGRATION_DEPRECATED = 1

export const VFIO_DEVICE_STATE_V1_STOP = 0
export const VFIO_DEVICE_STATE_V1_RUNNING = 1
export const VFIO_DEVICE_STATE_V1_SAVING = 2
export const VFIO_DEVICE_STATE_V1_RESUMING = 4
export const VFIO_DEVICE_STATE_MASK = 7

/** Not an ioctl argument but the head of the region; each field is accessed at its own width. */
export const vfio_device_migration_info = struct('vfio_device_migration_info', {
  device_state: 'u32',
  reserved: 'u32',
  pending_bytes: 'u64',
  data_offset: 'u64',
  data_size: 'u64',
})

export const PROPOSED_NDMA = {
  /** The device_state bit: no new DMA while RUNNING. */
  stateBit: 8,
  /** The region capability, a header only, of a device that has the bit. */
  regionInfoCap: 6,
} as const
