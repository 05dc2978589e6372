/** Typed calls on a device fd: what it has, its regions, its interrupts, its reset. */

import {
  VFIO_DEVICE_FLAGS_PCI,
  VFIO_DEVICE_FLAGS_RESET,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_RESET,
  VFIO_DEVICE_SET_IRQS,
  VFIO_IRQ_INFO_AUTOMASKED,
  VFIO_IRQ_INFO_EVENTFD,
  VFIO_IRQ_INFO_MASKABLE,
  VFIO_IRQ_INFO_NORESIZE,
  VFIO_IRQ_SET_ACTION_MASK,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_REGION_INFO_FLAG_MMAP,
  VFIO_REGION_INFO_FLAG_READ,
  VFIO_REGION_INFO_FLAG_WRITE,
  vfio_device_info,
  vfio_irq_info,
  vfio_irq_set,
  vfio_region_info,
} from '../abi/device.ts'
import { dataView } from '../abi/layout.ts'
import { hex } from '../base/units.ts'
import type { Kernel } from './port.ts'
import { accept, isErrno } from './refusal.ts'

export interface DeviceFlags {
  readonly isPci: boolean
  readonly canReset: boolean
  readonly regions: number
  readonly irqs: number
}

export async function deviceInfo(kernel: Kernel, deviceFd: number): Promise<DeviceFlags> {
  const arg = vfio_device_info.encode({ argsz: vfio_device_info.size })
  const answer = await kernel.ioctl(deviceFd, VFIO_DEVICE_GET_INFO.number, arg)
  accept(VFIO_DEVICE_GET_INFO.cName, answer, 'read the device information')
  const { flags, num_regions, num_irqs } = vfio_device_info.decode(arg)
  return {
    isPci: (flags & VFIO_DEVICE_FLAGS_PCI) !== 0,
    canReset: (flags & VFIO_DEVICE_FLAGS_RESET) !== 0,
    regions: num_regions,
    irqs: num_irqs,
  }
}

export interface Region {
  readonly index: number
  /** Bytes; zero for a region that the device does not have. */
  readonly size: bigint
  /** Where the region starts in the device fd. */
  readonly fdOffset: bigint
  readonly isReadable: boolean
  readonly isWritable: boolean
  readonly isMappable: boolean
}

/** One region; undefined for an index that this device does not implement (EINVAL, as VGA may be). */
export async function regionInfo(
  kernel: Kernel,
  deviceFd: number,
  index: number,
): Promise<Region | undefined> {
  const arg = vfio_region_info.encode({ argsz: vfio_region_info.size, index })
  const answer = await kernel.ioctl(deviceFd, VFIO_DEVICE_GET_REGION_INFO.number, arg)
  if (isErrno(answer, 'EINVAL')) return undefined
  accept(VFIO_DEVICE_GET_REGION_INFO.cName, answer, `read the information of region ${index}`)
  const { flags, size, offset } = vfio_region_info.decode(arg)
  return {
    index,
    size,
    fdOffset: offset,
    isReadable: (flags & VFIO_REGION_INFO_FLAG_READ) !== 0,
    isWritable: (flags & VFIO_REGION_INFO_FLAG_WRITE) !== 0,
    isMappable: (flags & VFIO_REGION_INFO_FLAG_MMAP) !== 0,
  }
}

export interface IrqIndex {
  readonly index: number
  /** Vectors. */
  readonly count: number
  readonly hasEventfd: boolean
  readonly isMaskable: boolean
  readonly isAutomasked: boolean
  /** The number of armed vectors cannot grow without disabling the index first. */
  readonly isFixedSize: boolean
}

/** One interrupt index; undefined for one that this device does not implement (EINVAL). */
export async function irqInfo(
  kernel: Kernel,
  deviceFd: number,
  index: number,
): Promise<IrqIndex | undefined> {
  const arg = vfio_irq_info.encode({ argsz: vfio_irq_info.size, index })
  const answer = await kernel.ioctl(deviceFd, VFIO_DEVICE_GET_IRQ_INFO.number, arg)
  if (isErrno(answer, 'EINVAL')) return undefined
  accept(VFIO_DEVICE_GET_IRQ_INFO.cName, answer, `read the information of IRQ index ${index}`)
  const { flags, count } = vfio_irq_info.decode(arg)
  return {
    index,
    count,
    hasEventfd: (flags & VFIO_IRQ_INFO_EVENTFD) !== 0,
    isMaskable: (flags & VFIO_IRQ_INFO_MASKABLE) !== 0,
    isAutomasked: (flags & VFIO_IRQ_INFO_AUTOMASKED) !== 0,
    isFixedSize: (flags & VFIO_IRQ_INFO_NORESIZE) !== 0,
  }
}

interface IrqVectors {
  readonly index: number
  readonly start: number
  readonly count: number
}

async function setIrqs(
  kernel: Kernel,
  deviceFd: number,
  set: IrqVectors & {
    readonly flags: number
    readonly fds?: readonly number[]
    readonly act: string
  },
): Promise<void> {
  const fds = set.fds ?? []
  const arg = vfio_irq_set.encode(
    {
      argsz: vfio_irq_set.size + fds.length * 4,
      flags: set.flags,
      index: set.index,
      start: set.start,
      count: set.count,
    },
    fds.length * 4,
  )
  const view = dataView(arg)
  for (const [n, fd] of fds.entries()) view.setInt32(vfio_irq_set.size + n * 4, fd, true)
  const answer = await kernel.ioctl(deviceFd, VFIO_DEVICE_SET_IRQS.number, arg)
  accept(VFIO_DEVICE_SET_IRQS.cName, answer, set.act)
}

/** Let the kernel signal one eventfd per vector, from `start` on; -1 detaches a vector. */
export const armIrqs = (
  kernel: Kernel,
  deviceFd: number,
  { index, start, eventfds }: { index: number; start: number; eventfds: readonly number[] },
): Promise<void> =>
  setIrqs(kernel, deviceFd, {
    index,
    start,
    count: eventfds.length,
    fds: eventfds,
    flags: VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
    act: `arm vectors ${start}..${start + eventfds.length - 1} of IRQ index ${index}`,
  })

/** Disarm every vector of an index. */
export const disableIrqs = (kernel: Kernel, deviceFd: number, index: number): Promise<void> =>
  setIrqs(kernel, deviceFd, {
    index,
    start: 0,
    count: 0,
    flags: VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
    act: `disable IRQ index ${index}`,
  })

const actOnVector =
  (action: number, verb: string) =>
  (kernel: Kernel, deviceFd: number, at: { index: number; vector: number }): Promise<void> =>
    setIrqs(kernel, deviceFd, {
      index: at.index,
      start: at.vector,
      count: 1,
      flags: VFIO_IRQ_SET_DATA_NONE | action,
      act: `${verb} vector ${at.vector} of IRQ index ${at.index}`,
    })

export const maskIrq = actOnVector(VFIO_IRQ_SET_ACTION_MASK, 'mask')
export const unmaskIrq = actOnVector(VFIO_IRQ_SET_ACTION_UNMASK, 'unmask')
/** Raise a vector from software, as if the device had. */
export const triggerIrq = actOnVector(VFIO_IRQ_SET_ACTION_TRIGGER, 'trigger')

/** Reset the function. Mappings of the address space survive. */
export async function resetDevice(kernel: Kernel, deviceFd: number): Promise<void> {
  const answer = await kernel.ioctl(deviceFd, VFIO_DEVICE_RESET.number, undefined)
  accept(VFIO_DEVICE_RESET.cName, answer, 'reset the device')
}

/** Bytes of a region, in one access; the caller keeps inside the region. */
export async function readRegion(
  kernel: Kernel,
  deviceFd: number,
  { region, offset, length }: { region: Region; offset: bigint; length: number },
): Promise<Uint8Array> {
  const bytes = new Uint8Array(length)
  const answer = await kernel.pread(deviceFd, bytes, region.fdOffset + offset)
  accept('pread of a region', answer, `read region ${region.index} at ${hex(offset)}`)
  return bytes.subarray(0, answer)
}

export async function writeRegion(
  kernel: Kernel,
  deviceFd: number,
  { region, offset, data }: { region: Region; offset: bigint; data: Uint8Array },
): Promise<number> {
  const answer = await kernel.pwrite(deviceFd, data, region.fdOffset + offset)
  return accept('pwrite of a region', answer, `write region ${region.index} at ${hex(offset)}`)
}
