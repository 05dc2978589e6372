/** Driving QEMU's edu device (docs/specs/edu) through gRPC, as a client's driver would. */

import { PCI_COMMAND, PCI_COMMAND_MASTER, PCI_COMMAND_MEMORY } from '../../src/abi/pci.ts'
import type { VfiodClient } from '../../src/client/client.ts'
import { BUFFER, REG, START, THEN_IRQ, TO_MEMORY } from '../contract/edu-driver.ts'
import { until } from './world.ts'

const CONFIG = 7

export class Edu {
  readonly #client: VfiodClient
  readonly #name: string

  constructor(client: VfiodClient, name: string) {
    this.#client = client
    this.#name = name
  }

  /** Enable its memory BARs and bus mastering. */
  async enable(): Promise<void> {
    const data = Buffer.alloc(2)
    data.writeUInt16LE(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER)
    await this.#write(CONFIG, BigInt(PCI_COMMAND), data)
  }

  /** The identification register: 0x010000ed. */
  async identification(): Promise<number> {
    const { data } = await this.#client.device.readRegion({
      name: this.#name,
      region: 0,
      offset: '0',
      length: 4,
    })
    return data.readUInt32LE()
  }

  /** Copy from an iova into the device's buffer, and wait until it is done. */
  async copyIn(iova: bigint, length: number): Promise<void> {
    await this.#transfer({ source: iova, destination: BUFFER, length, command: START })
  }

  /** Copy from the device's buffer to an iova, and wait until it is done. */
  async copyOut(iova: bigint, length: number, { interrupt = false } = {}): Promise<void> {
    const command = START | TO_MEMORY | (interrupt ? THEN_IRQ : 0n)
    await this.#transfer({ source: BUFFER, destination: iova, length, command })
  }

  async raiseIrq(bits: number): Promise<void> {
    await this.#write32(REG.irqRaise, bits)
  }

  async acknowledgeIrq(bits: number): Promise<void> {
    await this.#write32(REG.irqAcknowledge, bits)
  }

  async #transfer(what: {
    readonly source: bigint
    readonly destination: bigint
    readonly length: number
    readonly command: bigint
  }): Promise<void> {
    await this.#write64(REG.dmaSource, what.source)
    await this.#write64(REG.dmaDestination, what.destination)
    await this.#write64(REG.dmaCount, BigInt(what.length))
    await this.#write64(REG.dmaCommand, what.command)
    await until(async () => ((await this.#read64(REG.dmaCommand)) & START) === 0n || undefined)
  }

  #write(region: number, offset: bigint, data: Buffer): Promise<unknown> {
    return this.#client.device.writeRegion({
      name: this.#name,
      region,
      offset: offset.toString(),
      data,
    })
  }

  async #write64(offset: bigint, value: bigint): Promise<void> {
    const data = Buffer.alloc(8)
    data.writeBigUInt64LE(value)
    await this.#write(0, offset, data)
  }

  async #write32(offset: bigint, value: number): Promise<void> {
    const data = Buffer.alloc(4)
    data.writeUInt32LE(value)
    await this.#write(0, offset, data)
  }

  async #read64(offset: bigint): Promise<bigint> {
    const { data } = await this.#client.device.readRegion({
      name: this.#name,
      region: 0,
      offset: offset.toString(),
      length: 8,
    })
    return data.readBigUInt64LE()
  }
}
