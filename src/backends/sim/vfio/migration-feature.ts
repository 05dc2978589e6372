/** The features of migration v2 as the core of vfio answers them, over what a driver provides. */

import { VFIO_DEVICE_FEATURE_GET, VFIO_DEVICE_FEATURE_SET } from '../../../abi/feature.ts'
import {
  vfio_device_feature_mig_data_size,
  vfio_device_feature_mig_state,
  vfio_device_feature_migration,
} from '../../../abi/mig-v2.ts'
import { ERRNO } from '../../../base/errno.ts'
import { copyIn, copyOut } from '../core/user-memory.ts'
import type { OpenFile } from '../file/open-file.ts'
import { checkFeature, type FeatureCall } from './feature-call.ts'

export interface MigrationOps {
  /** VFIO_MIGRATION_*. */
  readonly flags: number
  /** The device_state, or -errno. */
  getState(): number
  /** The file of a session that this opened, null for none, or -errno. */
  setState(wanted: number): OpenFile | null | number
  /** The bytes of a stop-copy that starts now. */
  dataSize(): bigint
}

export const migrationFlags = (ops: MigrationOps | undefined, call: FeatureCall): number => {
  if (!ops) return -ERRNO.ENOTTY
  const answer = vfio_device_feature_migration.encode({ flags: BigInt(ops.flags) })
  const checked = checkFeature(call, VFIO_DEVICE_FEATURE_GET, answer.length)
  return checked === 1 ? copyOut(call.payload, answer) : checked
}

export const migDeviceState = (
  { name, migration: ops }: { readonly name: string; readonly migration: MigrationOps | undefined },
  call: FeatureCall,
): number => {
  if (!ops) return -ERRNO.ENOTTY
  const { size } = vfio_device_feature_mig_state
  const checked = checkFeature(call, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET, size)
  if (checked !== 1) return checked
  const mig = copyIn(vfio_device_feature_mig_state, call.payload, size)
  if (mig === undefined) return -ERRNO.EFAULT
  const reply = (device_state: number, data_fd: number): number =>
    copyOut(call.payload, vfio_device_feature_mig_state.encode({ device_state, data_fd }))

  if ((call.flags & VFIO_DEVICE_FEATURE_GET) !== 0) {
    const state = ops.getState()
    return state < 0 ? state : reply(state, -1)
  }
  const file = ops.setState(mig.device_state)
  if (file !== null && typeof file !== 'number') {
    file.deviceName = name
    return reply(mig.device_state, call.caller.install(file))
  }
  // A refusal writes back the state that was asked for, not the one the device is in.
  const written = reply(mig.device_state, -1)
  return written < 0 ? written : (file ?? 0)
}

export const migDataSize = (ops: MigrationOps | undefined, call: FeatureCall): number => {
  if (!ops) return -ERRNO.ENOTTY
  const { size } = vfio_device_feature_mig_data_size
  const checked = checkFeature(call, VFIO_DEVICE_FEATURE_GET, size)
  if (checked !== 1) return checked
  const stop_copy_length = ops.dataSize()
  return copyOut(call.payload, vfio_device_feature_mig_data_size.encode({ stop_copy_length }))
}
