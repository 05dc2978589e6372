/** Migration v2 of a vendor-like device, as its profile says its driver does it. */

import { ERRNO } from '../../../../base/errno.ts'
import { isSaving, type MigState, sessionEffect } from '../../../../rules/mig-arcs.ts'
import type { OpenFile } from '../../file/open-file.ts'
import type { V2Profile } from '../../spec/profile.ts'
import { MigV2 } from '../../vfio/mig-v2.ts'
import { type DataFileParts, MATCH_SIZE, ResumingFile, SavingFile } from './data-files.ts'
import type { Engine } from './engine.ts'
import type { StateImage } from './image.ts'
import { RECORD_SIZE } from './records.ts'
import { SaveQueue } from './save-queue.ts'

export interface VendorParts {
  readonly image: StateImage
  readonly engine: Engine
  readonly initialPages: number
}

const RUNS: readonly MigState[] = ['RUNNING', 'PRE_COPY', 'ERROR']
const ANSWERS: readonly MigState[] = [...RUNS, 'RUNNING_P2P', 'PRE_COPY_P2P']

export class VendorMigration extends MigV2 {
  readonly #profile: V2Profile
  readonly #parts: VendorParts
  #saving: SavingFile | undefined
  #resuming: ResumingFile | undefined
  /** The next arc fails with this. */
  #fault = 0

  constructor(profile: V2Profile, parts: VendorParts) {
    super(profile.flags, {
      arc: (from, to) => this.#arc(from, to),
      dataSize: () => BigInt(this.#dataSize()),
    })
    this.#profile = profile
    this.#parts = parts
  }

  override setState(wanted: number): OpenFile | null | number {
    if (this.state === 'ERROR' && this.#profile.onFailure === 'error') return -ERRNO.EIO
    return super.setState(wanted)
  }

  /** The next arc fails, as where the firmware refuses a command. */
  failNextArc(errno: number): void {
    this.#fault = errno
  }

  /** Reset, or opened anew. */
  reset(): void {
    this.#endSessions()
    this.#fault = 0
    this.state = 'RUNNING'
    this.#tellEngine('RUNNING')
  }

  #arc(from: MigState, to: MigState): OpenFile | null | number {
    const taken = this.#fault === 0 ? this.#take(from, to) : this.#fault
    this.#fault = 0
    if (typeof taken !== 'number') {
      this.#tellEngine(to)
      return taken
    }
    if (this.#profile.onFailure === 'error') {
      this.#endSessions()
      this.state = 'ERROR'
      this.#tellEngine('ERROR')
    }
    return taken
  }

  #take(from: MigState, to: MigState): OpenFile | null | number {
    if (from === 'RESUMING') return this.#load()
    const effect = sessionEffect(from, to)
    if (effect === 'ends') this.#endSessions()
    if (effect === 'opens-resuming') {
      this.#resuming = new ResumingFile(this.#fileParts)
      return this.#resuming
    }
    if (!isSaving(to)) return null
    const opened = effect === 'opens-saving' ? this.#openSaving() : null
    if (to === 'STOP_COPY') this.#finishSaving()
    return opened
  }

  #openSaving(): SavingFile {
    const { image, initialPages } = this.#parts
    const sendsAll = this.#profile.preCopy === 'state'
    const queue = new SaveQueue(image, sendsAll ? initialPages : 0)
    if (sendsAll) queue.addAll()
    this.#saving = new SavingFile(this.#fileParts, queue)
    return this.#saving
  }

  #finishSaving(): void {
    const { queue } = this.#saving ?? {}
    if (this.#profile.preCopy !== 'state') queue?.addAll()
    queue?.finish(this.#parts.engine.saved())
  }

  #load(): null | number {
    const registers = this.#resuming?.load()
    if (registers === undefined)
      return this.#profile.onFailure === 'error' ? -ERRNO.EIO : -ERRNO.EINVAL
    this.#parts.engine.load(registers)
    this.#endSessions()
    return null
  }

  #endSessions(): void {
    this.#saving?.queue.end()
    for (const file of [this.#saving, this.#resuming]) if (file) file.isOrphan = true
    this.#saving = undefined
    this.#resuming = undefined
  }

  #tellEngine(state: MigState): void {
    this.#parts.engine.setMode({ mayDma: RUNS.includes(state), answers: ANSWERS.includes(state) })
  }

  #dataSize(): number {
    const whole = (this.#parts.image.pages + 1) * RECORD_SIZE
    if (this.#profile.preCopy === 'match') return MATCH_SIZE + whole
    if (this.#saving === undefined || this.#profile.preCopy === 'none') return whole
    const registers = this.state === 'STOP_COPY' ? 0 : RECORD_SIZE
    return this.#saving.bytes + registers
  }

  get #fileParts(): DataFileParts {
    return { profile: this.#profile, image: this.#parts.image, state: () => this.state }
  }
}
