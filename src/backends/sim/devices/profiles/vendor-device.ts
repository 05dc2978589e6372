/** A vendor-like device: its registers, its state, how it migrates, and what time does to it. */

import type { Pending } from '../../core/pending.ts'
import type { FunctionSpec, StateSpec, VendorKind } from '../../spec/machine-spec.ts'
import { PROFILES } from '../../spec/profile.ts'
import type { RegisterBus } from '../registers.ts'
import { DmaLog } from './dma-log.ts'
import { Engine } from './engine.ts'
import { STATE_PAGE, StateImage } from './image.ts'
import { MigV1 } from './mig-v1.ts'
import { VendorMigration } from './migration.ts'

const SMALL_STATE: StateSpec = { bytes: 0x1_0000n, initialBytes: 0x4000n, dirtyPagesPerStep: 0 }

/** Of a source that differs from its target until it has been migrated into it. */
const seedOf = (address: string): number =>
  [...address].reduce((sum, char) => Math.imul(sum, 31) + char.charCodeAt(0), 7) >>> 0

export class VendorDevice {
  readonly engine: Engine
  readonly image: StateImage
  readonly migration: VendorMigration | undefined
  readonly dmaLog: DmaLog | undefined
  readonly v1: MigV1 | undefined
  readonly #dirtyPagesPerStep: number
  readonly #pending: Pending
  #stopWatching = (): void => {}
  #isRunning = (): boolean => true

  constructor(spec: FunctionSpec, kind: VendorKind, parts: { bus: RegisterBus; pending: Pending }) {
    const profile = PROFILES[kind]
    const { bytes, initialBytes, dirtyPagesPerStep } = spec.state ?? SMALL_STATE
    this.#pending = parts.pending
    this.#dirtyPagesPerStep = dirtyPagesPerStep
    this.engine = new Engine(parts.bus, {
      workload: spec.workload,
      restartsOnTouch: profile.restartsOnTouch === true,
      obeysAnyone: profile.obeysAnyone === true,
    })
    this.image = new StateImage(bytes, { seed: seedOf(spec.address), make: profile.ids.device })
    const { image, engine } = this
    const initialPages = Math.min(image.pages, Math.ceil(Number(initialBytes) / STATE_PAGE))
    if (profile.v2) {
      const migration = new VendorMigration(profile.v2, { image, engine, initialPages })
      this.migration = migration
      this.#isRunning = () =>
        ['RUNNING', 'RUNNING_P2P', 'PRE_COPY', 'PRE_COPY_P2P'].includes(migration.state)
    }
    if (profile.v1) {
      const v1 = new MigV1({ image, engine }, { ...profile.v1, order: spec.v1Order ?? 'rfc-v2' })
      this.v1 = v1
      this.#isRunning = () => v1.isRunning
    }
    if (profile.dmaLogging) this.dmaLog = new DmaLog(profile.dmaLogging.startedAgain)
  }

  open(): void {
    this.reset()
    this.#stopWatching = this.#pending.watch(() => this.#step())
  }

  close(): void {
    this.#stopWatching()
    this.dmaLog?.stop()
    this.reset()
  }

  /** Everything is as after power on. */
  reset(): void {
    this.migration?.reset()
    this.v1?.reset()
    this.engine.reset()
    this.image.reset()
  }

  #step(): boolean {
    const hasWritten = this.engine.step()
    if (!this.#isRunning() || this.#dirtyPagesPerStep === 0) return hasWritten
    this.image.change(this.#dirtyPagesPerStep)
    return true
  }
}
