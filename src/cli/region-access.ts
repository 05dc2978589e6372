/** One region of a borrowed device, by its index or its name, read and written piece by piece. */
import { LIMITS } from '../base/limits.ts'
import type { Region__Output as Region } from '../proto/vfiod/v1/Region.ts'
import type { BorrowedDevice } from './borrowed-device.ts'
import { CliError } from './failure.ts'
import type { Width } from './numbers.ts'

/** pci_regs.h, vfio.h: where PCI_COMMAND is, and its bits that let BARs answer. */
const CONFIG_REGION = 7
const PCI_COMMAND = 4
const PCI_COMMAND_IO_AND_MEMORY = 3

const isPresent = ({ size }: Region): boolean => size !== '0'

const find = ({ name, info }: BorrowedDevice, wanted: string): Region => {
  const found = info.regions.find(
    (region) =>
      String(region.index) === wanted || region.name.toLowerCase() === wanted.toLowerCase(),
  )
  if (found !== undefined) return found
  const present = info.regions.filter(isPresent).map((region) => region.name || region.index)
  throw new CliError(`Cannot find region ${wanted} of ${name}: it has ${present.join(', ')}`)
}

export class RegionAccess {
  readonly index: number
  readonly name: string
  /** Bytes. */
  readonly size: bigint
  readonly #borrowed: BorrowedDevice

  private constructor(borrowed: BorrowedDevice, { index, name, size }: Region) {
    this.#borrowed = borrowed
    this.index = index
    this.name = name || `region ${index}`
    this.size = BigInt(size)
  }

  /** Ready for use: a PCI function that does not decode its BARs answers with an I/O error. */
  static async to(borrowed: BorrowedDevice, wanted: string): Promise<RegionAccess> {
    const region = new RegionAccess(borrowed, find(borrowed, wanted))
    const isBar = region.index < CONFIG_REGION
    if (isBar && borrowed.device.bus === 'DEVICE_BUS_PCI') await enableDecoding(borrowed)
    return region
  }

  /** With a width each access is one call of that many bytes, in order. */
  async read(offset: bigint, length: bigint, width?: Width): Promise<Buffer> {
    const { client, name, signal } = this.#borrowed
    requireWhole(length, width)
    const parts: Buffer[] = []
    for (let done = 0n; done < length; ) {
      const piece = Math.min(width ?? LIMITS.regionBytes, Number(length - done))
      const { data } = await client.device.readRegion(
        { name, region: this.index, offset: String(offset + done), length: piece },
        { signal },
      )
      parts.push(data)
      done += BigInt(piece)
    }
    return Buffer.concat(parts)
  }

  async write(offset: bigint, data: Buffer, width?: Width): Promise<void> {
    const { client, name, signal } = this.#borrowed
    requireWhole(BigInt(data.length), width)
    const step = width ?? LIMITS.regionBytes
    for (let done = 0; done < data.length; done += step)
      await client.device.writeRegion(
        {
          name,
          region: this.index,
          offset: String(offset + BigInt(done)),
          data: data.subarray(done, done + step),
        },
        { signal },
      )
  }
}

const requireWhole = (length: bigint, width: Width | undefined): void => {
  if (width === undefined || length % BigInt(width) === 0n) return
  throw new CliError(`Cannot access ${length} bytes by ${width}: it is not a multiple`)
}

const enableDecoding = async ({ client, name, signal }: BorrowedDevice): Promise<void> => {
  const at = { name, region: CONFIG_REGION, offset: String(PCI_COMMAND) }
  const { data } = await client.device.readRegion({ ...at, length: 2 }, { signal })
  const command = Buffer.alloc(2)
  command.writeUInt16LE(data.readUInt16LE(0) | PCI_COMMAND_IO_AND_MEMORY)
  await client.device.writeRegion({ ...at, data: command }, { signal })
}
