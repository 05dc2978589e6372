/** Driving QEMU's edu device (docs/specs/edu.rst) through the port, by pread and pwrite. */

import { PCI_COMMAND, PCI_COMMAND_MASTER, PCI_COMMAND_MEMORY } from '../../src/abi/pci.ts'
import { must } from './answers.ts'
import type { Machine } from './machine.ts'

const CONFIG = 7n << 40n

export const REG = {
  id: 0x00n,
  liveness: 0x04n,
  factorial: 0x08n,
  status: 0x20n,
  irqStatus: 0x24n,
  irqRaise: 0x60n,
  irqAcknowledge: 0x64n,
  dmaSource: 0x80n,
  dmaDestination: 0x88n,
  dmaCount: 0x90n,
  dmaCommand: 0x98n,
} as const

export const START = 1n
export const TO_MEMORY = 2n
export const THEN_IRQ = 4n
/** The device's own 4 KiB, as its DMA engine addresses them. */
export const BUFFER = 0x40000n

export class EduDriver {
  readonly #machine: Machine
  readonly device: number

  constructor(machine: Machine, device: number) {
    this.#machine = machine
    this.device = device
  }

  /** Memory decoding on, and bus mastering as wanted. */
  async enable({ isMaster = true } = {}): Promise<this> {
    const word = Buffer.alloc(2)
    word.writeUInt16LE(PCI_COMMAND_MEMORY | (isMaster ? PCI_COMMAND_MASTER : 0))
    must(
      await this.#machine.kernel.pwrite(this.device, word, CONFIG + BigInt(PCI_COMMAND)),
      'enable',
    )
    return this
  }

  async read32(at: bigint): Promise<number> {
    const bytes = Buffer.alloc(4)
    must(await this.#machine.kernel.pread(this.device, bytes, at), 'read a register')
    return bytes.readUInt32LE()
  }

  async write32(at: bigint, value: number): Promise<void> {
    const bytes = Buffer.alloc(4)
    bytes.writeUInt32LE(value)
    must(await this.#machine.kernel.pwrite(this.device, bytes, at), 'write a register')
  }

  async read64(at: bigint): Promise<bigint> {
    const bytes = Buffer.alloc(8)
    must(await this.#machine.kernel.pread(this.device, bytes, at), 'read a register')
    return bytes.readBigUInt64LE()
  }

  async write64(at: bigint, value: bigint): Promise<void> {
    const bytes = Buffer.alloc(8)
    bytes.writeBigUInt64LE(value)
    must(await this.#machine.kernel.pwrite(this.device, bytes, at), 'write a register')
  }

  /** Begins a transfer and does not wait for it. */
  async begin(transfer: {
    readonly source: bigint
    readonly destination: bigint
    readonly length: number
    readonly command: bigint
  }): Promise<void> {
    await this.write64(REG.dmaSource, transfer.source)
    await this.write64(REG.dmaDestination, transfer.destination)
    await this.write64(REG.dmaCount, BigInt(transfer.length))
    await this.write64(REG.dmaCommand, transfer.command)
  }

  async done(): Promise<void> {
    await this.#machine.until(async () =>
      ((await this.read64(REG.dmaCommand)) & START) === 0n ? true : undefined,
    )
  }

  /** Memory to the device's buffer. */
  async fetch(iova: bigint, length: number, at = 0n): Promise<void> {
    await this.begin({ source: iova, destination: BUFFER + at, length, command: START })
    await this.done()
  }

  /** The device's buffer to memory. */
  async store(iova: bigint, length: number, at = 0n): Promise<void> {
    const command = START | TO_MEMORY
    await this.begin({ source: BUFFER + at, destination: iova, length, command })
    await this.done()
  }
}
