/** Migration protocol v2: states by VFIO_DEVICE_FEATURE, bytes by a data_fd (vfio.h, since 5.18). */

import { VfiodError } from '../../base/error.ts'
import type { DataFd, DeviceFd } from '../../base/units.ts'
import {
  getState,
  migrationFeatures,
  precopyInfo,
  readData,
  setState,
  stopCopyLength,
  writeData,
} from '../../kernel/migration-calls.ts'
import type { Kernel } from '../../kernel/port.ts'
import {
  hasState,
  MIG_STATES,
  type MigFeatures,
  type MigState,
  pathOf,
} from '../../rules/mig-arcs.ts'
import type { MigrationDriver, PrecopyBytes, StateStream } from './driver.ts'

/** The stream of a data_fd. A session that the device has left answers ENODEV. */
export class DataFdStream implements StateStream {
  readonly #kernel: Kernel
  readonly #fd: DataFd

  constructor(kernel: Kernel, fd: DataFd) {
    this.#kernel = kernel
    this.#fd = fd
  }

  read(into: Uint8Array): Promise<number> {
    return readData(this.#kernel, this.#fd, into)
  }

  write(from: Uint8Array): Promise<number> {
    return writeData(this.#kernel, this.#fd, from)
  }

  precopy(): Promise<PrecopyBytes> {
    return precopyInfo(this.#kernel, this.#fd)
  }

  async close(): Promise<void> {
    await this.#kernel.close(this.#fd)
  }
}

class V2Driver implements MigrationDriver {
  readonly features: MigFeatures
  readonly states: readonly MigState[]
  readonly #kernel: Kernel
  readonly #fd: DeviceFd

  constructor(kernel: Kernel, fd: DeviceFd, features: MigFeatures) {
    this.#kernel = kernel
    this.#fd = fd
    this.features = features
    this.states = MIG_STATES.filter((state) => state !== 'ERROR' && hasState(state, features))
  }

  path(from: MigState, to: MigState): readonly MigState[] | null {
    return pathOf(from, to, this.features)
  }

  async state(): Promise<MigState> {
    const state = await getState(this.#kernel, this.#fd)
    if (state !== undefined) return state
    throw new VfiodError(
      'UNSUPPORTED',
      'Cannot read the migration state of the device: its driver answered a state that vfiod does not know',
      { op: 'VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE' },
    )
  }

  async set(to: MigState): Promise<StateStream | undefined> {
    const dataFd = await setState(this.#kernel, this.#fd, to)
    return dataFd === undefined ? undefined : new DataFdStream(this.#kernel, dataFd)
  }

  estimate(): Promise<bigint | undefined> {
    return stopCopyLength(this.#kernel, this.#fd)
  }
}

/** The driver of a device that speaks protocol v2; undefined for another one. */
export async function v2Driver(kernel: Kernel, fd: DeviceFd): Promise<MigrationDriver | undefined> {
  const features = await migrationFeatures(kernel, fd)
  return features === undefined ? undefined : new V2Driver(kernel, fd, features)
}
