/** Typed calls of migration protocol v2 (vfio.h: VFIO_DEVICE_FEATURE_MIGRATION and its kin). */

import {
  VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
  VFIO_DEVICE_FEATURE_MIGRATION,
} from '../abi/feature.ts'
import {
  VFIO_MIG_GET_PRECOPY_INFO,
  VFIO_MIGRATION_P2P,
  VFIO_MIGRATION_PRE_COPY,
  VFIO_MIGRATION_STOP_COPY,
  vfio_device_feature_mig_data_size,
  vfio_device_feature_mig_state,
  vfio_device_feature_migration,
} from '../abi/mig-v2.ts'
import type { DataFd, DeviceFd } from '../base/units.ts'
import { MIG_STATES, type MigFeatures, type MigState } from '../rules/mig-arcs.ts'
import * as feature from './feature.ts'
import type { Kernel } from './port.ts'
import { accept, isErrno } from './refusal.ts'
import { request } from './request.ts'

const MIGRATION = {
  cName: 'VFIO_DEVICE_FEATURE_MIGRATION',
  number: VFIO_DEVICE_FEATURE_MIGRATION,
  payload: vfio_device_feature_migration,
}
const DEVICE_STATE = {
  cName: 'VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE',
  number: VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
  payload: vfio_device_feature_mig_state,
}
const DATA_SIZE = {
  cName: 'VFIO_DEVICE_FEATURE_MIG_DATA_SIZE',
  number: VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
  payload: vfio_device_feature_mig_data_size,
}

/** What the device can do; undefined for one that does not migrate. */
export async function migrationFeatures(
  kernel: Kernel,
  deviceFd: DeviceFd,
): Promise<MigFeatures | undefined> {
  const got = await feature.getIfPresent(kernel, deviceFd, MIGRATION)
  if (got === undefined || (got.flags & BigInt(VFIO_MIGRATION_STOP_COPY)) === 0n) return undefined
  return {
    p2p: (got.flags & BigInt(VFIO_MIGRATION_P2P)) !== 0n,
    preCopy: (got.flags & BigInt(VFIO_MIGRATION_PRE_COPY)) !== 0n,
  }
}

export async function getState(kernel: Kernel, deviceFd: DeviceFd): Promise<MigState | undefined> {
  const got = await feature.getIfPresent(kernel, deviceFd, DEVICE_STATE)
  return got === undefined ? undefined : MIG_STATES[got.device_state]
}

/**
 * Move the device to a state, along as many arcs as it takes. Answers the data_fd of a session that
 * an arc opened, or undefined. On failure the struct the kernel gives back is not to be trusted
 * (it holds the requested state), so the caller asks with getState.
 */
export async function setState(
  kernel: Kernel,
  deviceFd: DeviceFd,
  state: MigState,
): Promise<DataFd | undefined> {
  const wanted = { device_state: MIG_STATES.indexOf(state), data_fd: -1 }
  const act = `set state ${state}`
  const { data_fd } = await feature.set(kernel, deviceFd, DEVICE_STATE, wanted, act)
  return data_fd < 0 ? undefined : (data_fd as DataFd)
}

/** Bytes that STOP_COPY would yield if entered now, an estimate; undefined where not offered. */
export async function stopCopyLength(
  kernel: Kernel,
  deviceFd: DeviceFd,
): Promise<bigint | undefined> {
  return (await feature.getIfPresent(kernel, deviceFd, DATA_SIZE))?.stop_copy_length
}

export interface PrecopyInfo {
  /** Bytes of the initial part that are still to be read. */
  readonly initialBytes: bigint
  /** Estimate of the changed bytes that can be read besides. */
  readonly dirtyBytes: bigint
}

export async function precopyInfo(kernel: Kernel, dataFd: DataFd): Promise<PrecopyInfo> {
  const act = 'read the pre-copy information'
  const info = await request(kernel, dataFd, VFIO_MIG_GET_PRECOPY_INFO, {}, act)
  return { initialBytes: info.initial_bytes, dirtyBytes: info.dirty_bytes }
}

/** Bytes of a saving session into `into`; 0 when there are none now (ENOMSG in PRE_COPY) or ever. */
export async function readData(kernel: Kernel, dataFd: DataFd, into: Uint8Array): Promise<number> {
  const answer = await kernel.read(dataFd, into)
  if (isErrno(answer, 'ENOMSG')) return 0
  return accept('read of data_fd', answer, 'read the device state')
}

/** Bytes into a resuming session; answers how many the device took. */
export async function writeData(kernel: Kernel, dataFd: DataFd, from: Uint8Array): Promise<number> {
  const answer = await kernel.write(dataFd, from)
  return accept('write of data_fd', answer, 'write the device state')
}
