/**
 * QEMU's edu device (docs/specs/edu.rst), register for register: an identification, an inverter, a
 * factorial that takes its time, an interrupt line one can pull, and a DMA engine with a buffer.
 * Registers below 0x80 take accesses of 4 bytes, those from there on of 4 or 8; any other reads as
 * all ones and writes nothing.
 */

import { dataView } from '../../../abi/layout.ts'
import { U64_MAX } from '../../../base/units.ts'
import type { MapRequest } from '../../../kernel/port.ts'
import type { Segment } from '../../../os/memory.ts'
import type { RegisterBus, Registers } from './registers.ts'
import { SharedPages } from './shared-pages.ts'

const ID = 0x010000ed
const REG = {
  id: 0x00,
  liveness: 0x04,
  factorial: 0x08,
  status: 0x20,
  irqStatus: 0x24,
  irqRaise: 0x60,
  irqAcknowledge: 0x64,
  dmaSource: 0x80,
  dmaDestination: 0x88,
  dmaCount: 0x90,
  dmaCommand: 0x98,
} as const

const STATUS_COMPUTING = 0x01
const STATUS_IRQ_WHEN_COMPUTED = 0x80

const DMA_START = 1n
const DMA_TO_MEMORY = 2n
const DMA_IRQ_WHEN_DONE = 4n

const IRQ_FACTORIAL = 0x001
const IRQ_DMA = 0x100

const BUFFER_START = 0x40000n
const BUFFER_SIZE = 4096
const BAR_SIZE = 1 << 20

const factorialOf = (value: number): number => {
  let product = 1
  for (let factor = value; factor > 0; factor--) {
    product = Math.imul(product, factor) >>> 0
    // Once it is 0 modulo 2^32 it stays so.
    if (product === 0) return 0
  }
  return product
}

export class Edu implements Registers {
  readonly #bus: RegisterBus
  readonly #buffer = new Uint8Array(BUFFER_SIZE)
  #liveness = 0
  #factorial = 0
  #status = 0
  #irqStatus = 0
  #source = 0n
  #destination = 0n
  #count = 0n
  #command = 0n
  #isStopped = false
  /** What a mapping shows to a processor, which does not reach the registers by it: all ones. */
  #shown: SharedPages | undefined

  constructor(bus: RegisterBus) {
    this.#bus = bus
  }

  stop(): void {
    this.#isStopped = true
  }

  read(_bar: number, offset: number, into: Uint8Array): void {
    into.fill(0)
    // Narrower accesses than 4 bytes do not reach the device at all.
    if (into.length < 4) return
    const value = isTaken(offset, into.length) ? this.#get(offset) : U64_MAX
    const bytes = new Uint8Array(new BigUint64Array([value]).buffer)
    into.set(bytes.subarray(0, into.length))
  }

  map(_bar: number, request: MapRequest): Promise<Segment | number> {
    this.#shown ??= new SharedPages(BAR_SIZE)
    this.#shown.view(0, BAR_SIZE).fill(0xff)
    return this.#shown.map(request)
  }

  write(_bar: number, offset: number, from: Uint8Array): void {
    if (from.length < 4 || !isTaken(offset, from.length)) return
    const view = dataView(from)
    this.#set(
      offset,
      from.length === 8 ? view.getBigUint64(0, true) : BigInt(view.getUint32(0, true)),
    )
  }

  #get(offset: number): bigint {
    switch (offset) {
      case REG.id:
        return BigInt(ID)
      case REG.liveness:
        return BigInt(this.#liveness)
      case REG.factorial:
        return BigInt(this.#factorial)
      case REG.status:
        return BigInt(this.#status)
      case REG.irqStatus:
        return BigInt(this.#irqStatus)
      case REG.dmaSource:
        return this.#source
      case REG.dmaDestination:
        return this.#destination
      case REG.dmaCount:
        return this.#count
      case REG.dmaCommand:
        return this.#command
      default:
        return U64_MAX
    }
  }

  #set(offset: number, value: bigint): void {
    const low = Number(value & 0xffff_ffffn)
    switch (offset) {
      case REG.liveness:
        this.#liveness = ~low >>> 0
        break
      case REG.factorial:
        this.#compute(low)
        break
      case REG.status:
        this.#status = (this.#status & STATUS_COMPUTING) | (low & STATUS_IRQ_WHEN_COMPUTED)
        break
      case REG.irqRaise:
        this.#raise(low)
        break
      case REG.irqAcknowledge:
        this.#irqStatus = (this.#irqStatus & ~low) >>> 0
        if (this.#irqStatus === 0 && !this.#bus.isMsiEnabled) this.#bus.setIntx(false)
        break
      default:
        this.#setDma(offset, value)
    }
  }

  /** The DMA registers hold still while a transfer is under way. */
  #setDma(offset: number, value: bigint): void {
    if ((this.#command & DMA_START) !== 0n) return
    if (offset === REG.dmaSource) this.#source = value
    else if (offset === REG.dmaDestination) this.#destination = value
    else if (offset === REG.dmaCount) this.#count = value
    else if (offset === REG.dmaCommand && (value & DMA_START) !== 0n) {
      this.#command = value
      this.#later(() => this.#transfer())
    }
  }

  #compute(value: number): void {
    if ((this.#status & STATUS_COMPUTING) !== 0) return
    this.#factorial = value
    this.#status |= STATUS_COMPUTING
    this.#later(() => {
      this.#factorial = factorialOf(this.#factorial)
      this.#status &= ~STATUS_COMPUTING
      if ((this.#status & STATUS_IRQ_WHEN_COMPUTED) !== 0) this.#raise(IRQ_FACTORIAL)
    })
  }

  #later(action: () => void): void {
    this.#bus.later(() => {
      if (!this.#isStopped) action()
    })
  }

  #transfer(): void {
    if ((this.#command & DMA_TO_MEMORY) === 0n) {
      const into = this.#bufferAt(this.#destination)
      if (into) this.#bus.dmaRead(this.#source, into)
    } else {
      const from = this.#bufferAt(this.#source)
      if (from) this.#bus.dmaWrite(this.#destination, from)
    }
    this.#command &= ~DMA_START
    if ((this.#command & DMA_IRQ_WHEN_DONE) !== 0n) this.#raise(IRQ_DMA)
  }

  /**
   * The part of the buffer that a transfer is about, or undefined where QEMU 7.2 would abort the
   * whole machine: edu_check_range() wants at least one byte, and an end before that of the buffer.
   */
  #bufferAt(address: bigint): Uint8Array | undefined {
    const offset = address - BUFFER_START
    const room = BigInt(BUFFER_SIZE) - offset
    if (offset < 0n || this.#count === 0n || this.#count >= room) return undefined
    return this.#buffer.subarray(Number(offset), Number(offset + this.#count))
  }

  #raise(bits: number): void {
    this.#irqStatus = (this.#irqStatus | bits) >>> 0
    if (this.#irqStatus === 0) return
    if (this.#bus.isMsiEnabled) this.#bus.sendMsi(0)
    else this.#bus.setIntx(true)
  }
}

const isTaken = (offset: number, width: number): boolean =>
  offset < REG.dmaSource ? width === 4 : width === 4 || width === 8
