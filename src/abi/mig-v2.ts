/**
 * vfio.h: migration through VFIO_DEVICE_FEATURE and a data_fd (enum vfio_device_mig_state), since
 * 5.18. The feature numbers are in feature.ts.
 */

import { io } from './ioctl.ts'
import { struct } from './layout.ts'

export const VFIO_MIGRATION_STOP_COPY = 1
export const VFIO_MIGRATION_P2P = 2
/** Since 6.2. */
export const VFIO_MIGRATION_PRE_COPY = 4

/** The payload of VFIO_DEVICE_FEATURE_MIGRATION. */
export const vfio_device_feature_migration = struct('vfio_device_feature_migration', {
  flags: 'u64',
})

export const VFIO_DEVICE_STATE_ERROR = 0
export const VFIO_DEVICE_STATE_STOP = 1
export const VFIO_DEVICE_STATE_RUNNING = 2
export const VFIO_DEVICE_STATE_STOP_COPY = 3
export const VFIO_DEVICE_STATE_RESUMING = 4
export const VFIO_DEVICE_STATE_RUNNING_P2P = 5
/** Since 6.2, as is PRE_COPY_P2P. */
export const VFIO_DEVICE_STATE_PRE_COPY = 6
export const VFIO_DEVICE_STATE_PRE_COPY_P2P = 7

/** The payload of VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE; data_fd -1 is none. */
export const vfio_device_feature_mig_state = struct('vfio_device_feature_mig_state', {
  device_state: 'u32',
  data_fd: 's32',
})

/** The payload of VFIO_DEVICE_FEATURE_MIG_DATA_SIZE. */
export const vfio_device_feature_mig_data_size = struct('vfio_device_feature_mig_data_size', {
  stop_copy_length: 'u64',
})

/** Set only after VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2. Since 7.1. */
export const VFIO_PRECOPY_INFO_REINIT = 1

/** Send flags 0: older drivers give back what the caller wrote there. */
export const vfio_precopy_info = struct('vfio_precopy_info', {
  argsz: 'u32',
  flags: 'u32',
  initial_bytes: 'u64',
  dirty_bytes: 'u64',
})

/** On the data_fd of a saving device in one of the PRE_COPY states. Since 6.2. */
export const VFIO_MIG_GET_PRECOPY_INFO = io(
  'dataFd',
  'VFIO_MIG_GET_PRECOPY_INFO',
  121,
  vfio_precopy_info,
)
