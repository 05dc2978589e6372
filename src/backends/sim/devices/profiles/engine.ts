/**
 * The registers of a vendor-like device, one page behind BAR 0, and the DMA engine they control:
 * at every step of time it writes so many pages of its range. The page is memory, so that a peer
 * which has it mapped writes registers as MMIO does. docs/machine-file.md lists them.
 */

import { dataView } from '../../../../abi/layout.ts'
import { ERRNO } from '../../../../base/errno.ts'
import type { MapRequest } from '../../../../kernel/port.ts'
import type { Segment } from '../../../../os/memory.ts'
import { DMA_PATTERNS, type WorkloadSpec } from '../../spec/machine-spec.ts'
import type { RegisterBus, Registers } from '../registers.ts'
import { MappableBytes } from '../shared-pages.ts'

export const ENGINE_PAGE = 4096
export const ENGINE_ID = 0x766f_6e64

export const ENGINE = {
  id: 0x00,
  /** Bit 0 runs the engine. */
  control: 0x08,
  start: 0x10,
  last: 0x18,
  pagesPerStep: 0x20,
  pattern: 0x28,
  cursor: 0x30,
  written: 0x38,
  faults: 0x40,
  random: 0x48,
  /** A device that obeys anyone writes `pokeValue` to `pokeIova` at the next step. */
  pokeIova: 0x50,
  pokeValue: 0x58,
  poke: 0x60,
  /** From here on it is memory, for messages of peers. */
  mailbox: 0x80,
} as const

const RUN = 1
const HOT_SHARE = 16n
const DATA_PAGE = 4096n

export interface EngineMode {
  readonly mayDma: boolean
  /** Whether accesses to registers reach the device. */
  readonly answers: boolean
}

export interface EngineOptions {
  readonly workload: WorkloadSpec | undefined
  readonly restartsOnTouch: boolean
  readonly obeysAnyone: boolean
}

export class Engine implements Registers {
  readonly #bus: RegisterBus
  readonly #options: EngineOptions
  readonly #memory = new MappableBytes(ENGINE_PAGE)
  #mode: EngineMode = { mayDma: true, answers: true }
  /** What the registers were when the device stopped answering. */
  #frozen: Uint8Array | undefined
  #isTouched = false

  constructor(bus: RegisterBus, options: EngineOptions) {
    this.#bus = bus
    this.#options = options
    this.#powerOn()
  }

  map(bar: number, request: MapRequest): Promise<Segment | number> | number {
    return bar === 0 ? this.#memory.map(request) : -ERRNO.EINVAL
  }

  read(bar: number, offset: number, into: Uint8Array): void {
    this.#isTouched = true
    if (bar !== 0 || offset + into.length > ENGINE_PAGE || !this.#mode.answers) into.fill(0xff)
    else into.set(this.#page.subarray(offset, offset + into.length))
  }

  write(bar: number, offset: number, from: Uint8Array): void {
    this.#isTouched = true
    if (bar !== 0 || offset + from.length > ENGINE_PAGE || !this.#mode.answers) return
    if (offset >= ENGINE.control) this.#page.set(from, offset)
  }

  setMode(mode: EngineMode): void {
    if (!mode.answers) this.#frozen ??= this.#page.slice()
    else if (this.#frozen) {
      // What peers wrote meanwhile never reached the device.
      this.#page.set(this.#frozen)
      this.#frozen = undefined
    }
    this.#isTouched = false
    this.#mode = mode
  }

  saved(): Uint8Array {
    return (this.#frozen ?? this.#page).slice()
  }

  load(registers: Uint8Array): void {
    if (this.#frozen) this.#frozen = registers.slice()
    this.#page.set(registers)
  }

  reset(): void {
    this.#frozen = undefined
    this.#powerOn()
  }

  /** One step of time; whether anything happened. */
  step(): boolean {
    const pokes = this.#options.obeysAnyone && this.#take32(ENGINE.poke) !== 0
    if (pokes) this.#poke()
    if (!this.#mode.mayDma && !this.#isRestarted) return pokes
    this.#isTouched = false
    if ((this.#take32(ENGINE.control) & RUN) === 0) return pokes
    const pages = this.#take32(ENGINE.pagesPerStep)
    for (let done = 0; done < pages; done++) this.#writePage()
    return pages > 0 || pokes
  }

  get #page(): Uint8Array {
    return this.#memory.bytes
  }

  /** Whether a register access has restarted the queue of a device that restarts on access. */
  get #isRestarted(): boolean {
    if (!this.#options.restartsOnTouch) return false
    return (
      this.#isTouched ||
      (this.#frozen !== undefined && !Buffer.from(this.#frozen).equals(this.#page))
    )
  }

  #writePage(): void {
    const iova = this.#nextPage()
    if (iova === undefined) return
    const written = this.#take(ENGINE.written) + 1n
    const stamp = new Uint8Array(new BigUint64Array([written]).buffer)
    if (this.#bus.dmaWrite(iova, stamp)) this.#put(ENGINE.written, written)
    else this.#put(ENGINE.faults, this.#take(ENGINE.faults) + 1n)
  }

  #nextPage(): bigint | undefined {
    const start = this.#take(ENGINE.start)
    const last = this.#take(ENGINE.last)
    if (last < start) return undefined
    const pages = (last - start) / DATA_PAGE + 1n
    const cursor = this.#take(ENGINE.cursor)
    this.#put(ENGINE.cursor, cursor + 1n)
    return start + DATA_PAGE * this.#pick(pages, cursor)
  }

  #pick(pages: bigint, cursor: bigint): bigint {
    switch (DMA_PATTERNS[this.#take32(ENGINE.pattern)]) {
      case 'random':
        return this.#random() % pages
      case 'hot': {
        const hot = pages / HOT_SHARE || 1n
        // One write of sixteen goes anywhere.
        return cursor % HOT_SHARE === 0n ? this.#random() % pages : this.#random() % hot
      }
      default:
        return cursor % pages
    }
  }

  #random(): bigint {
    let value = this.#take32(ENGINE.random) | 1
    value ^= value << 13
    value ^= value >>> 17
    value ^= value << 5
    this.#put(ENGINE.random, BigInt(value >>> 0))
    return BigInt(value >>> 0)
  }

  #poke(): void {
    this.#put(ENGINE.poke, 0n)
    const value = this.#page.slice(ENGINE.pokeValue, ENGINE.pokeValue + 8)
    if (!this.#bus.dmaWrite(this.#take(ENGINE.pokeIova), value))
      this.#put(ENGINE.faults, this.#take(ENGINE.faults) + 1n)
  }

  #powerOn(): void {
    this.#page.fill(0)
    this.#put(ENGINE.id, BigInt(ENGINE_ID))
    this.#put(ENGINE.random, 0x2545_f491n)
    const { workload } = this.#options
    if (workload === undefined) return
    this.#put(ENGINE.control, BigInt(RUN))
    this.#put(ENGINE.start, workload.range.start)
    this.#put(ENGINE.last, workload.range.last)
    this.#put(ENGINE.pagesPerStep, BigInt(workload.pagesPerStep))
    this.#put(ENGINE.pattern, BigInt(DMA_PATTERNS.indexOf(workload.pattern)))
  }

  #take(register: number): bigint {
    return dataView(this.#page).getBigUint64(register, true)
  }

  #take32(register: number): number {
    return dataView(this.#page).getUint32(register, true)
  }

  #put(register: number, value: bigint): void {
    dataView(this.#page).setBigUint64(register, value, true)
  }
}
