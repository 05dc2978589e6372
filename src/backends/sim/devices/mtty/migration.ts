/**
 * Migration of an mtty device. Its P2P arcs do nothing and it never enters ERROR, and its state
 * outlives the close of the device: a client that finds one in RESUMING and stops it makes the
 * kernel follow a null pointer. The simulator answers that call -EIO and the device stays dead.
 */

import {
  VFIO_MIGRATION_P2P,
  VFIO_MIGRATION_PRE_COPY,
  VFIO_MIGRATION_STOP_COPY,
} from '../../../../abi/mig-v2.ts'
import { ERRNO } from '../../../../base/errno.ts'
import { isSaving, type MigState, sessionEffect } from '../../../../rules/mig-arcs.ts'
import type { OpenFile } from '../../file/open-file.ts'
import { MigV2 } from '../../vfio/mig-v2.ts'
import { dataSizeOf, MttyResumingFile, MttySavingFile } from './data-files.ts'
import type { Uart } from './uart.ts'

const FLAGS = VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY

export class MttyMigration extends MigV2 {
  readonly #files: MttyFiles
  /** The kernel took an oops while it held the device's lock. */
  isDead = false

  constructor(ports: readonly Uart[]) {
    const files = new MttyFiles(ports, () => this.state)
    super(FLAGS, files)
    this.#files = files
    files.onOops = () => {
      this.isDead = true
    }
  }

  override getState(): number {
    return this.isDead ? -ERRNO.EIO : super.getState()
  }

  override setState(wanted: number): OpenFile | null | number {
    return this.isDead ? -ERRNO.EIO : super.setState(wanted)
  }

  /** VFIO_DEVICE_RESET: running again, but the registers are what they were. */
  reset(): void {
    this.#files.disable()
    this.state = 'RUNNING'
  }

  /** The device is closed: the files are dead, the state stays. */
  close(): void {
    this.#files.disable()
  }
}

class MttyFiles {
  readonly #ports: readonly Uart[]
  readonly #state: () => MigState
  onOops: () => void = () => {}
  #saving: MttySavingFile | undefined
  #resuming: MttyResumingFile | undefined

  constructor(ports: readonly Uart[], state: () => MigState) {
    this.#ports = ports
    this.#state = state
  }

  dataSize(): bigint {
    return BigInt(dataSizeOf(this.#ports.length))
  }

  arc(from: MigState, to: MigState): OpenFile | null | number {
    if (from === 'RESUMING') return this.#load()
    // Between the two PRE_COPY states nothing is looked at, not even whether there is a session.
    if (isSaving(from) && isSaving(to) && to !== 'STOP_COPY') return null
    if (isSaving(to)) return this.#save(to)
    const effect = sessionEffect(from, to)
    if (effect === 'ends') this.disable()
    if (effect !== 'opens-resuming') return null
    this.#resuming = new MttyResumingFile(this.#ports.length)
    return this.#resuming
  }

  disable(): void {
    for (const file of [this.#saving, this.#resuming]) if (file) file.isOrphan = true
    this.#saving = undefined
    this.#resuming = undefined
  }

  /** A new file only if the session has none, which inside the saving group a reopen can cause. */
  #save(to: MigState): OpenFile | null {
    const isNew = this.#saving === undefined
    const file = this.#saving ?? new MttySavingFile(this.#ports.length, () => this.#isPreCopy())
    this.#saving = file
    if (to === 'STOP_COPY') file.append(this.#ports.map((port) => port.save()))
    return isNew ? file : null
  }

  #isPreCopy(): boolean {
    return this.#state() === 'PRE_COPY' || this.#state() === 'PRE_COPY_P2P'
  }

  #load(): null | number {
    if (this.#resuming === undefined) {
      this.onOops()
      return -ERRNO.EIO
    }
    const states = this.#resuming.loaded()
    if (states === undefined) return -ERRNO.EINVAL
    for (const [index, state] of states.entries()) this.#ports[index]?.load(state)
    this.disable()
    return null
  }
}
