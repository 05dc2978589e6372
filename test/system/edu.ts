/** Driving QEMU's edu device (docs/specs/edu) through gRPC, as a client's driver would. */

import type { VfiodClient } from '../../src/client/client.ts'
import { until } from './world.ts'

const CONFIG = 7
const COMMAND = 4
const MEMORY_AND_MASTER = 0x06

const DMA_SOURCE = 0x80n
const DMA_DESTINATION = 0x88n
const DMA_COUNT = 0x90n
const DMA_COMMAND = 0x98n
const START = 1n
const TO_MEMORY = 2n
/** Raise an interrupt when done. */
const THEN_INTERRUPT = 4n
const IRQ_RAISE = 0x60n
const IRQ_ACKNOWLEDGE = 0x64n
/** The device's own buffer, as the DMA engine addresses it. */
const BUFFER = 0x40000n

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
    data.writeUInt16LE(MEMORY_AND_MASTER)
    await this.#write(CONFIG, BigInt(COMMAND), data)
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
    const command = START | TO_MEMORY | (interrupt ? THEN_INTERRUPT : 0n)
    await this.#transfer({ source: BUFFER, destination: iova, length, command })
  }

  async raiseIrq(bits: number): Promise<void> {
    await this.#write32(IRQ_RAISE, bits)
  }

  async acknowledgeIrq(bits: number): Promise<void> {
    await this.#write32(IRQ_ACKNOWLEDGE, bits)
  }

  async #transfer(what: {
    readonly source: bigint
    readonly destination: bigint
    readonly length: number
    readonly command: bigint
  }): Promise<void> {
    await this.#write64(DMA_SOURCE, what.source)
    await this.#write64(DMA_DESTINATION, what.destination)
    await this.#write64(DMA_COUNT, BigInt(what.length))
    await this.#write64(DMA_COMMAND, what.command)
    await until(async () => ((await this.#read64(DMA_COMMAND)) & START) === 0n || undefined)
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
