/** A mediated device of the mtty sample driver: a PCI serial port of one or two UARTs. */

import {
  VFIO_DEVICE_FLAGS_PCI,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_RESET,
  VFIO_DEVICE_SET_IRQS,
  VFIO_IRQ_INFO_AUTOMASKED,
  VFIO_IRQ_INFO_EVENTFD,
  VFIO_IRQ_INFO_MASKABLE,
  VFIO_IRQ_INFO_NORESIZE,
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_MSI_IRQ_INDEX,
  VFIO_PCI_NUM_IRQS,
  VFIO_PCI_NUM_REGIONS,
  VFIO_PCI_ROM_REGION_INDEX,
  VFIO_REGION_INFO_FLAG_READ,
  VFIO_REGION_INFO_FLAG_WRITE,
  vfio_device_info,
  vfio_irq_info,
  vfio_region_info,
} from '../../../../abi/device.ts'
import { ERRNO } from '../../../../base/errno.ts'
import type { IoctlArg } from '../../../../kernel/port.ts'
import { copyIn, copyOut } from '../../core/user-memory.ts'
import type { Caller } from '../../file/open-file.ts'
import type { DmaLoggingOps } from '../../vfio/dma-logging.ts'
import type { VfioGroup } from '../../vfio/group.ts'
import { irqSet } from '../../vfio/irq-set.ts'
import { VfioDevice } from '../../vfio/vfio-device.ts'
import { MTTY_BAR_SIZE, MTTY_CONFIG_SIZE, MttyConfigSpace } from './config-space.ts'
import { MttyIrqs } from './irqs.ts'
import { MttyMigration } from './migration.ts'
import { Uart } from './uart.ts'

const INDEX_SHIFT = 40n
const INFO_MIN = vfio_device_info.offsets.cap_offset

/** Accepts everything and never saw a write: the device does no DMA. */
const NO_DMA: DmaLoggingOps = {
  start: (_ranges, pageSize) => pageSize,
  stop: () => 0,
  report: () => 0,
}

export class MttyDevice extends VfioDevice {
  readonly #ports: readonly Uart[]
  readonly #config: MttyConfigSpace
  readonly #irqs = new MttyIrqs()
  override readonly migration: MttyMigration
  override readonly dmaLogging = NO_DMA
  /** The number of interrupts is 0 until someone has asked for the device's information. */
  #irqCount = 0

  constructor(uuid: string, ports: number, group: VfioGroup, index: number) {
    super(uuid, group, index)
    this.#ports = Array.from({ length: ports }, () => new Uart(() => this.#irqs.trigger()))
    this.#config = new MttyConfigSpace(ports)
    this.migration = new MttyMigration(this.#ports)
  }

  protected override openDevice(): number {
    return 0
  }

  protected override closeDevice(): void {
    this.migration.close()
    this.#irqs.disable()
  }

  override ioctl(_caller: Caller, request: number, arg: IoctlArg): number {
    switch (request) {
      case VFIO_DEVICE_GET_INFO.number:
        return this.#getInfo(arg)
      case VFIO_DEVICE_GET_REGION_INFO.number:
        return this.#getRegionInfo(arg)
      case VFIO_DEVICE_GET_IRQ_INFO.number:
        return this.#getIrqInfo(arg)
      case VFIO_DEVICE_SET_IRQS.number:
        return this.#setIrqs(arg)
      case VFIO_DEVICE_RESET.number:
        this.migration.reset()
        return 0
      default:
        return -ERRNO.ENOTTY
    }
  }

  override read(into: Uint8Array, offset: bigint): number {
    return this.#eachAccess(into, offset, (region, at, piece) => {
      if (region === VFIO_PCI_CONFIG_REGION_INDEX) {
        this.#config.read(at, piece)
        return
      }
      // The device answers one byte, however many were asked for.
      const value = this.#ports[region]?.read(at)
      if (value !== undefined) piece[0] = value
    })
  }

  override write(from: Uint8Array, offset: bigint): number {
    return this.#eachAccess(from, offset, (region, at, piece) => {
      if (region === VFIO_PCI_CONFIG_REGION_INDEX) this.#config.write(at, piece)
      else this.#ports[region]?.write(at, piece[0] ?? 0)
    })
  }

  #getInfo(arg: IoctlArg): number {
    const info = copyIn(vfio_device_info, arg, INFO_MIN)
    if (info === undefined) return -ERRNO.EFAULT
    if (info.argsz < INFO_MIN) return -ERRNO.EINVAL
    this.#irqCount = VFIO_PCI_NUM_IRQS
    const answer = vfio_device_info.encode({
      argsz: info.argsz,
      flags: VFIO_DEVICE_FLAGS_PCI,
      num_regions: VFIO_PCI_NUM_REGIONS,
      num_irqs: VFIO_PCI_NUM_IRQS,
    })
    return copyOut(arg, answer, INFO_MIN)
  }

  #getRegionInfo(arg: IoctlArg): number {
    const info = copyIn(vfio_region_info, arg, vfio_region_info.size)
    if (info === undefined) return -ERRNO.EFAULT
    const { argsz, index } = info
    if (argsz < vfio_region_info.size || index >= VFIO_PCI_NUM_REGIONS) return -ERRNO.EINVAL
    let size = index < this.#ports.length ? MTTY_BAR_SIZE : 0
    if (index === VFIO_PCI_CONFIG_REGION_INDEX) size = MTTY_CONFIG_SIZE
    const answer = vfio_region_info.encode({
      ...info,
      flags: VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE,
      size: BigInt(size),
      offset: BigInt(index) << INDEX_SHIFT,
    })
    return copyOut(arg, answer)
  }

  #getIrqInfo(arg: IoctlArg): number {
    const info = copyIn(vfio_irq_info, arg, vfio_irq_info.size)
    if (info === undefined) return -ERRNO.EFAULT
    const { argsz, index } = info
    if (argsz < vfio_irq_info.size || index >= this.#irqCount) return -ERRNO.EINVAL
    if (index !== VFIO_PCI_INTX_IRQ_INDEX && index !== VFIO_PCI_MSI_IRQ_INDEX) return -ERRNO.EINVAL
    const more =
      index === VFIO_PCI_INTX_IRQ_INDEX
        ? VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED
        : VFIO_IRQ_INFO_NORESIZE
    const flags = VFIO_IRQ_INFO_EVENTFD | more
    return copyOut(arg, vfio_irq_info.encode({ argsz, flags, index, count: 1 }))
  }

  #setIrqs(arg: IoctlArg): number {
    const set = irqSet(arg, { indexes: VFIO_PCI_NUM_IRQS, vectors: () => this.#irqCount })
    return typeof set === 'number' ? set : this.#irqs.set(set.index, set.action, set.data)
  }

  /** In pieces of 4, 2 and 1 as alignment allows; -EFAULT for a region that is not there. */
  #eachAccess(
    bytes: Uint8Array,
    offset: bigint,
    access: (region: number, at: number, piece: Uint8Array) => void,
  ): number {
    for (let done = 0; done < bytes.length; ) {
      const position = offset + BigInt(done)
      const region = Number(position >> INDEX_SHIFT)
      const at = Number(position & ((1n << INDEX_SHIFT) - 1n))
      if (region === VFIO_PCI_ROM_REGION_INDEX || region > VFIO_PCI_CONFIG_REGION_INDEX)
        return -ERRNO.EFAULT
      const left = bytes.length - done
      const width = [4, 2].find((w) => left >= w && at % w === 0) ?? 1
      access(region, at, bytes.subarray(done, done + width))
      done += width
    }
    return bytes.length
  }
}
