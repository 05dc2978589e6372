/**
 * A driver for QEMU's edu device (docs/specs/edu.rst), by region reads and writes alone: what a
 * client's driver would do with a mapped BAR. The device has a buffer of 4 KiB and a DMA engine
 * that copies between the buffer and iovas.
 */
import type { VfiodClient } from '../client/client.ts'
import type { WatchIrqsResponse__Output as IrqEvent } from '../proto/vfiod/v1/WatchIrqsResponse.ts'

/** vfio.h: VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_MSI_IRQ_INDEX. */
const BAR0 = 0
const CONFIG = 7
const MSI = 1

/** pci_regs.h: PCI_COMMAND, its memory and bus master bits. */
const PCI_COMMAND = 0x04
const MEMORY_AND_BUS_MASTER = 0x06

const ID = 0x00
const IRQ_STATUS = 0x24
const IRQ_ACKNOWLEDGE = 0x64
const DMA_SOURCE = 0x80
const DMA_DESTINATION = 0x88
const DMA_COUNT = 0x90
const DMA_COMMAND = 0x98

const START = 1n
const TO_MEMORY = 2n
const IRQ_WHEN_DONE = 4n

/** Where the device's buffer of 4096 bytes is, as its DMA engine counts. */
const BUFFER = 0x40000n
/** What one transfer moves here. QEMU 7.2 aborts for one that ends with the buffer. */
export const TRANSFER_BYTES = 2048

export class EduDriver {
  readonly #client: VfiodClient
  readonly #name: string
  readonly #interrupts: AsyncIterator<IrqEvent>

  private constructor(client: VfiodClient, name: string) {
    this.#client = client
    this.#name = name
    this.#interrupts = client.device.watchIrqs({ name, index: MSI })[Symbol.asyncIterator]()
  }

  /** Switches the device on and listens for its interrupts. The device is open already. */
  static async start(client: VfiodClient, name: string): Promise<EduDriver> {
    const driver = new EduDriver(client, name)
    await driver.#nextEvent('armed')
    await driver.#write(CONFIG, PCI_COMMAND, { value: BigInt(MEMORY_AND_BUS_MASTER), width: 2 })
    return driver
  }

  /** 0x010000ed: version 1.0, "edu". */
  identification(): Promise<bigint> {
    return this.#read(ID, 4)
  }

  /** Device reads memory: from an iova into its buffer. Answers the interrupts that told the end. */
  readFrom(iova: bigint, length: number): Promise<string> {
    return this.#transfer({ source: iova, destination: BUFFER, length, direction: 0n })
  }

  /** Device writes memory: from its buffer to an iova. */
  writeTo(iova: bigint, length: number): Promise<string> {
    return this.#transfer({ source: BUFFER, destination: iova, length, direction: TO_MEMORY })
  }

  /** Stops listening. */
  async stop(): Promise<void> {
    await this.#interrupts.return?.()
  }

  async #transfer(dma: {
    readonly source: bigint
    readonly destination: bigint
    readonly length: number
    readonly direction: bigint
  }): Promise<string> {
    await this.#write(BAR0, DMA_SOURCE, { value: dma.source, width: 8 })
    await this.#write(BAR0, DMA_DESTINATION, { value: dma.destination, width: 8 })
    await this.#write(BAR0, DMA_COUNT, { value: BigInt(dma.length), width: 8 })
    const command = START | dma.direction | IRQ_WHEN_DONE
    await this.#write(BAR0, DMA_COMMAND, { value: command, width: 8 })
    const { irq } = await this.#nextEvent('irq')
    const raised = await this.#read(IRQ_STATUS, 4)
    await this.#write(BAR0, IRQ_ACKNOWLEDGE, { value: raised, width: 4 })
    return irq?.count ?? '0'
  }

  async #nextEvent(kind: 'armed' | 'irq'): Promise<IrqEvent> {
    const { value, done } = await this.#interrupts.next()
    if (!done && value.event === kind) return value
    throw new Error(`expected ${kind} on the interrupt stream, found ${value?.event ?? 'its end'}`)
  }

  async #read(offset: number, width: 4 | 8): Promise<bigint> {
    const { data } = await this.#client.device.readRegion({
      name: this.#name,
      region: BAR0,
      offset: String(offset),
      length: width,
    })
    return width === 4 ? BigInt(data.readUInt32LE()) : data.readBigUInt64LE()
  }

  async #write(
    region: number,
    offset: number,
    { value, width }: { readonly value: bigint; readonly width: 2 | 4 | 8 },
  ): Promise<void> {
    const bytes = Buffer.alloc(8)
    bytes.writeBigUInt64LE(value)
    const data = bytes.subarray(0, width)
    const at = { name: this.#name, region, offset: String(offset) }
    await this.#client.device.writeRegion({ ...at, data })
  }
}
