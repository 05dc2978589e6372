/**
 * Migration through a device region, the protocol of 5.8 to 5.17 (vfio.h: struct
 * vfio_device_migration_info), with the NDMA bit that was proposed for it. One write changes the
 * state at once; where several bits change, the order of what they cause was never agreed, and is
 * one of the three that were proposed.
 */

import { dataView } from '../../../../abi/layout.ts'
import {
  PROPOSED_NDMA,
  VFIO_DEVICE_STATE_MASK,
  VFIO_DEVICE_STATE_V1_RESUMING,
  VFIO_DEVICE_STATE_V1_RUNNING,
  VFIO_DEVICE_STATE_V1_SAVING,
  vfio_device_migration_info,
} from '../../../../abi/mig-v1.ts'
import { ERRNO } from '../../../../base/errno.ts'
import type { MapRequest } from '../../../../kernel/port.ts'
import type { Segment } from '../../../../os/memory.ts'
import type { V1Order } from '../../spec/machine-spec.ts'
import type { Engine } from './engine.ts'
import type { StateImage } from './image.ts'
import { MIG_V1_WINDOW, MigV1Window } from './mig-v1-window.ts'

const RUNNING = VFIO_DEVICE_STATE_V1_RUNNING
const SAVING = VFIO_DEVICE_STATE_V1_SAVING
const RESUMING = VFIO_DEVICE_STATE_V1_RESUMING
const ERROR = SAVING | RESUMING
const NDMA = PROPOSED_NDMA.stateBit
const AT = vfio_device_migration_info.offsets

/** What a change of bits causes. */
type Action =
  | 'hold-dma'
  | 'stop'
  | 'end-saving'
  | 'pre-copy'
  | 'capture'
  | 'open'
  | 'load'
  | 'run'
  | 'let-dma'

const ORDERS: Readonly<Record<V1Order, readonly Action[]>> = {
  'rfc-v2': [
    'pre-copy',
    'hold-dma',
    'stop',
    'end-saving',
    'capture',
    'open',
    'load',
    'run',
    'let-dma',
  ],
  'rfc-v3': [
    'hold-dma',
    'stop',
    'end-saving',
    'capture',
    'open',
    'load',
    'run',
    'pre-copy',
    'let-dma',
  ],
  dec13: [
    'hold-dma',
    'stop',
    'end-saving',
    'load',
    'open',
    'pre-copy',
    'capture',
    'run',
    'let-dma',
  ],
}

/** Exactly RESUMING where it is set at all, so that ERROR cannot be asked for. */
const isValid = (state: number): boolean =>
  (state & RESUMING) === 0 || (state & VFIO_DEVICE_STATE_MASK) === RESUMING

const holdsDma = (state: number): boolean => (state & RUNNING) === 0 || (state & NDMA) !== 0

/** The actions of a transition from one state to another, unordered. */
const actionsOf = (from: number, to: number): ReadonlySet<Action> => {
  const group = (state: number, mask: number) => state & mask
  const both = RUNNING | SAVING
  const actions = new Set<Action>()
  if (!holdsDma(from) && holdsDma(to)) actions.add('hold-dma')
  if (holdsDma(from) && !holdsDma(to)) actions.add('let-dma')
  if ((from & RUNNING) !== 0 && (to & RUNNING) === 0) actions.add('stop')
  if ((from & RUNNING) === 0 && (to & RUNNING) !== 0) actions.add('run')
  if (group(from, SAVING) !== 0 && group(to, SAVING) === 0) actions.add('end-saving')
  if (group(from, both) !== both && group(to, both) === both) actions.add('pre-copy')
  if (group(from, both) !== SAVING && group(to, both) === SAVING) actions.add('capture')
  if ((from & RESUMING) === 0 && (to & RESUMING) !== 0) actions.add('open')
  if ((from & RESUMING) !== 0 && (to & RESUMING) === 0) actions.add('load')
  return actions
}

interface V1Options {
  readonly hasNdma: boolean
  readonly mapsData: boolean
  readonly order: V1Order
}

export class MigV1 {
  readonly hasNdma: boolean
  /** Whether the data section can be mapped; where not, it is read and written. */
  readonly mapsData: boolean
  readonly #order: V1Order
  readonly #engine: Engine
  readonly #window: MigV1Window
  #state: number = RUNNING

  constructor(
    { image, engine }: { readonly image: StateImage; readonly engine: Engine },
    { hasNdma, mapsData, order }: V1Options,
  ) {
    this.hasNdma = hasNdma
    this.mapsData = mapsData
    this.#order = order
    this.#engine = engine
    this.#window = new MigV1Window(image, engine)
  }

  get size(): number {
    return MIG_V1_WINDOW.regionSize
  }

  get isRunning(): boolean {
    return (this.#state & VFIO_DEVICE_STATE_MASK & RUNNING) !== 0
  }

  /** VFIO_DEVICE_RESET, or a new fd: running, and the window is empty. */
  reset(): void {
    this.#state = RUNNING
    this.#window.clear()
    this.#tellEngine()
  }

  read(into: Uint8Array, offset: number): number {
    const view = dataView(into)
    if (offset >= vfio_device_migration_info.size) return this.#window.read(into, offset)
    const isWord = into.length === 4
    if (isWord && (offset === AT.device_state || offset === AT.reserved)) {
      view.setUint32(0, offset === AT.device_state ? this.#state : 0, true)
      return 4
    }
    if (into.length !== 8) return -ERRNO.EINVAL
    const value = this.#window.register(offset, this.#state & VFIO_DEVICE_STATE_MASK)
    if (value < 0n) return Number(value)
    view.setBigUint64(0, value, true)
    return 8
  }

  write(from: Uint8Array, offset: number): number {
    const view = dataView(from)
    if (offset >= vfio_device_migration_info.size)
      return this.#isResuming ? this.#window.write(from, offset) : -ERRNO.EINVAL
    if (offset === AT.device_state && from.length === 4) {
      const answer = this.#set(view.getUint32(0, true))
      return answer < 0 ? answer : 4
    }
    if (offset === AT.data_size && from.length === 8 && this.#isResuming) {
      const answer = this.#window.take(view.getBigUint64(0, true))
      return answer < 0 ? answer : 8
    }
    return -ERRNO.EINVAL
  }

  /** mmap(2): only of the data section, and only where it is mappable. */
  map(request: MapRequest): Promise<Segment | number> | number {
    return this.mapsData ? this.#window.map(request) : -ERRNO.EINVAL
  }

  #set(wanted: number): number {
    const known = VFIO_DEVICE_STATE_MASK | (this.hasNdma ? NDMA : 0)
    if ((this.#state & VFIO_DEVICE_STATE_MASK) === ERROR) return -ERRNO.EIO
    if ((wanted & ~known) !== 0 || !isValid(wanted)) return -ERRNO.EINVAL
    const actions = actionsOf(this.#state, wanted)
    for (const action of ORDERS[this.#order]) {
      if (!actions.has(action) || this.#act(action)) continue
      // What was loaded is not a state of this device: nothing but a reset leads out.
      this.#state = ERROR
      this.#window.clear()
      this.#tellEngine()
      return -ERRNO.EIO
    }
    this.#state = wanted
    this.#tellEngine()
    return 0
  }

  #act(action: Action): boolean {
    switch (action) {
      case 'pre-copy':
        this.#window.openPreCopy()
        return true
      case 'capture':
        this.#window.capture()
        return true
      case 'end-saving':
        this.#window.endSaving()
        return true
      case 'open':
        this.#window.openInput()
        return true
      case 'load':
        return this.#window.load()
      case 'stop':
        this.#engine.setMode({ mayDma: false, answers: false })
        return true
      default:
        // What DMA may do follows from the state as a whole.
        return true
    }
  }

  #tellEngine(): void {
    const isRunning = this.isRunning
    this.#engine.setMode({ mayDma: isRunning && (this.#state & NDMA) === 0, answers: isRunning })
  }

  get #isResuming(): boolean {
    return (this.#state & VFIO_DEVICE_STATE_MASK) === RESUMING
  }
}
