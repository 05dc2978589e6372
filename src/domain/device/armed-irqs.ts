/**
 * Which interrupt vectors of one device are armed, and for whom. The kernel does not say, so this is
 * the only list; it changes only after the kernel has said yes.
 *
 * The first vectors that are armed make the kernel allocate all up to the last of them; the index is
 * *enabled* from then on, until it is disabled. An index of fixed size takes no more afterwards.
 */

import { VfiodError } from '../../base/error.ts'
import type { IrqIndex } from '../../kernel/device-calls.ts'

/** Who hears a vector: an eventfd of the client, or a stream, which ends when it is disarmed. */
export type IrqListener = 'eventfd' | { readonly disarmed: () => void }

export interface VectorRange {
  readonly start: number
  readonly count: number
}

interface Enabled {
  /** Vectors from 0 on that the kernel has allocated. */
  allocated: number
  readonly listeners: Map<number, IrqListener>
}

/** vfio.h: VFIO_PCI_INTX_IRQ_INDEX and the ones after it, in their order. */
const PCI_NAMES = ['INTX', 'MSI', 'MSIX', 'ERR', 'REQ']
/** A PCI function uses one of INTx, MSI and MSI-X at a time. */
const EXCLUSIVE = 3

export class ArmedIrqs {
  readonly #device: string
  readonly #isPci: boolean
  readonly #enabled = new Map<number, Enabled>()

  constructor(device: { readonly name: string; readonly isPci: boolean }) {
    this.#device = device.name
    this.#isPci = device.isPci
  }

  /** The indexes that are enabled. */
  get indexes(): number[] {
    return [...this.#enabled.keys()]
  }

  /** `MSIX` for PCI; empty where an index has no name. */
  nameOf(index: number): string {
    return this.#isPci ? (PCI_NAMES[index] ?? '') : ''
  }

  isEnabled(index: number): boolean {
    return this.#enabled.has(index)
  }

  /** Vectors that the kernel has allocated for an index; 0 while it is not enabled. */
  allocated(index: number): number {
    return this.#enabled.get(index)?.allocated ?? 0
  }

  /** The vectors of an index that have a listener, ascending. */
  vectors(index: number): number[] {
    return [...(this.#enabled.get(index)?.listeners.keys() ?? [])].sort((a, b) => a - b)
  }

  isArmed(index: number, vector: number): boolean {
    return this.#enabled.get(index)?.listeners.has(vector) ?? false
  }

  /**
   * Throw unless the vectors can be armed now: no other kind of interrupt is enabled, none of them has a
   * stream, none has an eventfd where a stream wants it, and the index may grow that far.
   */
  requireArmable(irq: IrqIndex, range: VectorRange, as: 'eventfds' | 'stream'): void {
    const act = `Cannot arm ${this.#text(irq.index, range)}`
    const other = this.#excluding(irq.index)
    if (other !== undefined) {
      throw this.#inUse(
        other,
        `${act}: ${this.#indexText(other)} is enabled, and a device has one of INTX, MSI and MSIX at a time; disable it first`,
      )
    }
    for (const [vector, listener] of this.#enabled.get(irq.index)?.listeners ?? []) {
      if (vector < range.start || vector >= range.start + range.count) continue
      if (listener === 'eventfd' && as === 'eventfds') continue
      const holder = listener === 'eventfd' ? 'has an eventfd; detach it' : 'has a stream; end that'
      throw this.#inUse(irq.index, `${act}: vector ${vector} is armed already and ${holder} first`)
    }
    const allocated = this.allocated(irq.index)
    if (allocated === 0 || !irq.isFixedSize || range.start + range.count <= allocated) return
    throw this.#inUse(
      irq.index,
      `${act}: the index was enabled with ${allocated} vectors and cannot grow; disable it, and allocate as many as are needed when it is armed again`,
    )
  }

  /** Throw NO_SUCH_IRQ unless the vector has a listener. */
  requireArmed(index: number, vector: number): void {
    if (this.isArmed(index, vector)) return
    const armed = this.vectors(index)
    const others = armed.length === 0 ? 'none of the index is' : `only ${listText(armed)} are`
    throw new VfiodError(
      'NO_SUCH_IRQ',
      `Cannot use vector ${vector} of ${this.#indexText(index)} of ${this.#device}: it is not armed, ${others}; watch it or give it an eventfd first`,
      { field: 'vector' },
    )
  }

  /** The vectors that one listener hears, as ranges, and whether others hear vectors of the index. */
  heardBy(index: number, listener: IrqListener): { ranges: VectorRange[]; hasOthers: boolean } {
    const all = this.vectors(index)
    const own = all.filter((vector) => this.#enabled.get(index)?.listeners.get(vector) === listener)
    const ranges: { start: number; count: number }[] = []
    for (const vector of own) {
      const last = ranges.at(-1)
      if (last !== undefined && last.start + last.count === vector) last.count += 1
      else ranges.push({ start: vector, count: 1 })
    }
    return { ranges, hasOthers: own.length < all.length }
  }

  /** The kernel took listeners for vectors, and allocated so many of the index by the first call. */
  arm(
    index: number,
    { start, count }: VectorRange,
    listener: IrqListener,
    allocated: number,
  ): void {
    const enabled = this.#enabled.get(index) ?? { allocated: 0, listeners: new Map() }
    this.#enabled.set(index, enabled)
    enabled.allocated = Math.max(enabled.allocated, allocated, start + count)
    for (let n = 0; n < count; n += 1) enabled.listeners.set(start + n, listener)
  }

  /** The kernel let go of vectors; the index stays enabled. */
  detach(index: number, { start, count }: VectorRange): void {
    const listeners = this.#enabled.get(index)?.listeners
    const gone = new Set<IrqListener>()
    for (let vector = start; vector < start + count; vector += 1) {
      const listener = listeners?.get(vector)
      if (listener !== undefined) gone.add(listener)
      listeners?.delete(vector)
    }
    for (const listener of gone) if (listener !== 'eventfd') listener.disarmed()
  }

  /** The kernel disabled an index. */
  disable(index: number): void {
    this.detach(index, { start: 0, count: this.allocated(index) })
    this.#enabled.delete(index)
  }

  #excluding(index: number): number | undefined {
    if (!this.#isPci || index >= EXCLUSIVE) return undefined
    return this.indexes.find((other) => other !== index && other < EXCLUSIVE)
  }

  #inUse(index: number, message: string): VfiodError {
    return new VfiodError('DEVICE_IN_USE', message, {
      resource: { type: 'irq', name: `${this.#device}#${index}` },
    })
  }

  #indexText(index: number): string {
    const name = this.nameOf(index)
    return name === '' ? `IRQ index ${index}` : `IRQ index ${index} (${name})`
  }

  #text(index: number, { start, count }: VectorRange): string {
    return `vectors ${start}..${start + count - 1} of ${this.#indexText(index)} of ${this.#device}`
  }
}

/** The first few of many. */
const listText = (vectors: readonly number[]): string =>
  vectors.length <= 8 ? vectors.join(', ') : `${vectors.slice(0, 8).join(', ')}, ...`
