/**
 * VFIO_DEVICE_FEATURE: the envelope that every feature comes in, and which of them the core of
 * vfio answers itself. vfio.h: struct vfio_device_feature.
 */

import {
  VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_MASK,
  VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
  VFIO_DEVICE_FEATURE_MIGRATION,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FEATURE_SET,
  vfio_device_feature,
} from '../../../abi/feature.ts'
import { ERRNO } from '../../../base/errno.ts'
import type { IoctlArg } from '../../../kernel/port.ts'
import { argAfter, copyIn } from '../core/user-memory.ts'
import type { Caller } from '../file/open-file.ts'
import {
  type DmaLoggingOps,
  dmaLoggingReport,
  dmaLoggingStart,
  dmaLoggingStop,
} from './dma-logging.ts'
import type { FeatureCall } from './feature-call.ts'
import {
  type MigrationOps,
  migDataSize,
  migDeviceState,
  migrationFlags,
} from './migration-feature.ts'

const GET_OR_SET = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET
const FLAGS = VFIO_DEVICE_FEATURE_MASK | GET_OR_SET | VFIO_DEVICE_FEATURE_PROBE

/** A device as far as features are about it. */
export interface FeatureDevice {
  readonly name: string
  readonly migration: MigrationOps | undefined
  readonly dmaLogging: DmaLoggingOps | undefined
  /** The features that only its driver knows. */
  feature(call: FeatureCall): number
}

export const deviceFeature = (device: FeatureDevice, caller: Caller, arg: IoctlArg): number => {
  const { size } = vfio_device_feature
  const feature = copyIn(vfio_device_feature, arg, size)
  if (feature === undefined) return -ERRNO.EFAULT
  const { argsz, flags } = feature
  if (argsz < size || (flags & ~FLAGS) !== 0) return -ERRNO.EINVAL
  const isProbe = (flags & VFIO_DEVICE_FEATURE_PROBE) !== 0
  if (!isProbe && (flags & GET_OR_SET) === GET_OR_SET) return -ERRNO.EINVAL

  const call = { caller, flags, room: argsz - size, payload: argAfter(arg, size) }
  switch (flags & VFIO_DEVICE_FEATURE_MASK) {
    case VFIO_DEVICE_FEATURE_MIGRATION:
      return migrationFlags(device.migration, call)
    case VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE:
      return migDeviceState(device, call)
    case VFIO_DEVICE_FEATURE_MIG_DATA_SIZE:
      return migDataSize(device.migration, call)
    case VFIO_DEVICE_FEATURE_DMA_LOGGING_START:
      return dmaLoggingStart(device.dmaLogging, call)
    case VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP:
      return dmaLoggingStop(device.dmaLogging, call)
    case VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT:
      return dmaLoggingReport(device.dmaLogging, call)
    default:
      return device.feature(call)
  }
}
