/** Typed calls of migration protocol v2 (vfio.h: VFIO_DEVICE_FEATURE_MIGRATION and its kin). */

import {
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
  VFIO_DEVICE_FEATURE_MIGRATION,
  VFIO_DEVICE_FEATURE_SET,
  vfio_device_feature,
} from '../abi/feature.ts'
import type { Struct, Values } from '../abi/layout.ts'
import {
  VFIO_MIG_GET_PRECOPY_INFO,
  VFIO_MIGRATION_P2P,
  VFIO_MIGRATION_PRE_COPY,
  VFIO_MIGRATION_STOP_COPY,
  vfio_device_feature_mig_data_size,
  vfio_device_feature_mig_state,
  vfio_device_feature_migration,
  vfio_precopy_info,
} from '../abi/mig-v2.ts'
import { MIG_STATES, type MigFeatures, type MigState } from '../rules/mig-arcs.ts'
import type { Kernel } from './port.ts'
import { accept, isErrno } from './refusal.ts'

/** A GET of one feature; undefined where the device does not have it (ENOTTY). */
async function getFeature<F extends Readonly<Record<string, 'u32' | 's32' | 'u64'>>>(
  kernel: Kernel,
  deviceFd: number,
  { number, payload, op }: { number: number; payload: Struct<F>; op: string },
): Promise<Values<F> | undefined> {
  const head = vfio_device_feature.size
  const arg = vfio_device_feature.encode(
    { argsz: head + payload.size, flags: VFIO_DEVICE_FEATURE_GET | number },
    payload.size,
  )
  const answer = await kernel.ioctl(deviceFd, VFIO_DEVICE_FEATURE.number, arg)
  if (isErrno(answer, 'ENOTTY')) return undefined
  accept(op, answer, `read ${op} of the device`)
  return payload.decode(arg, head)
}

/** What the device can do; undefined for one that does not migrate. */
export async function migrationFeatures(
  kernel: Kernel,
  deviceFd: number,
): Promise<MigFeatures | undefined> {
  const got = await getFeature(kernel, deviceFd, {
    number: VFIO_DEVICE_FEATURE_MIGRATION,
    payload: vfio_device_feature_migration,
    op: 'VFIO_DEVICE_FEATURE_MIGRATION',
  })
  if (got === undefined || (got.flags & BigInt(VFIO_MIGRATION_STOP_COPY)) === 0n) return undefined
  return {
    p2p: (got.flags & BigInt(VFIO_MIGRATION_P2P)) !== 0n,
    preCopy: (got.flags & BigInt(VFIO_MIGRATION_PRE_COPY)) !== 0n,
  }
}

export async function getState(kernel: Kernel, deviceFd: number): Promise<MigState | undefined> {
  const got = await getFeature(kernel, deviceFd, {
    number: VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
    payload: vfio_device_feature_mig_state,
    op: 'VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE',
  })
  return got === undefined ? undefined : MIG_STATES[got.device_state]
}

/**
 * Move the device to a state, along as many arcs as it takes. Answers the data_fd of a session that
 * an arc opened, or undefined. On failure the struct the kernel gives back is not to be trusted
 * (it holds the requested state), so the caller asks with getState.
 */
export async function setState(
  kernel: Kernel,
  deviceFd: number,
  state: MigState,
): Promise<number | undefined> {
  const head = vfio_device_feature.size
  const payload = vfio_device_feature_mig_state
  const arg = vfio_device_feature.encode(
    {
      argsz: head + payload.size,
      flags: VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
    },
    payload.size,
  )
  payload.write(arg, { device_state: MIG_STATES.indexOf(state), data_fd: -1 }, head)
  const answer = await kernel.ioctl(deviceFd, VFIO_DEVICE_FEATURE.number, arg)
  accept('VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE', answer, `set state ${state}`)
  const { data_fd } = payload.decode(arg, head)
  return data_fd < 0 ? undefined : data_fd
}

/** Bytes that STOP_COPY would yield if entered now, an estimate; undefined where not offered. */
export async function stopCopyLength(
  kernel: Kernel,
  deviceFd: number,
): Promise<bigint | undefined> {
  const got = await getFeature(kernel, deviceFd, {
    number: VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
    payload: vfio_device_feature_mig_data_size,
    op: 'VFIO_DEVICE_FEATURE_MIG_DATA_SIZE',
  })
  return got?.stop_copy_length
}

export interface PrecopyInfo {
  /** Bytes of the initial part that are still to be read. */
  readonly initialBytes: bigint
  /** Estimate of the changed bytes that can be read besides. */
  readonly dirtyBytes: bigint
}

export async function precopyInfo(kernel: Kernel, dataFd: number): Promise<PrecopyInfo> {
  const arg = vfio_precopy_info.encode({ argsz: vfio_precopy_info.size })
  const answer = await kernel.ioctl(dataFd, VFIO_MIG_GET_PRECOPY_INFO.number, arg)
  accept(VFIO_MIG_GET_PRECOPY_INFO.cName, answer, 'read the pre-copy information')
  const { initial_bytes, dirty_bytes } = vfio_precopy_info.decode(arg)
  return { initialBytes: initial_bytes, dirtyBytes: dirty_bytes }
}

/** Bytes of a saving session into `into`; 0 when there are none now (ENOMSG in PRE_COPY) or ever. */
export async function readData(kernel: Kernel, dataFd: number, into: Uint8Array): Promise<number> {
  const answer = await kernel.read(dataFd, into)
  if (isErrno(answer, 'ENOMSG')) return 0
  return accept('read of data_fd', answer, 'read the device state')
}

/** Bytes into a resuming session; answers how many the device took. */
export async function writeData(kernel: Kernel, dataFd: number, from: Uint8Array): Promise<number> {
  const answer = await kernel.write(dataFd, from)
  return accept('write of data_fd', answer, 'write the device state')
}
