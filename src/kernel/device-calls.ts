/** Typed calls on a device fd: what it has, its regions, its interrupts, its reset. */

import { capabilities } from '../abi/caps.ts'
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
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_PCI_ERR_IRQ_INDEX,
  VFIO_PCI_REQ_IRQ_INDEX,
  VFIO_REGION_INFO_CAP_SPARSE_MMAP,
  VFIO_REGION_INFO_FLAG_CAPS,
  VFIO_REGION_INFO_FLAG_MMAP,
  VFIO_REGION_INFO_FLAG_READ,
  VFIO_REGION_INFO_FLAG_WRITE,
  vfio_region_info,
  vfio_region_info_cap_sparse_mmap,
  vfio_region_sparse_mmap_area,
} from '../abi/device.ts'
import { dataView } from '../abi/layout.ts'
import { type DeviceFd, hex } from '../base/units.ts'
import type { Segment } from '../os/memory.ts'
import type { Kernel } from './port.ts'
import { accept, refusal, short } from './refusal.ts'
import { request, requestWhole, unless } from './request.ts'

export interface DeviceFlags {
  readonly isPci: boolean
  readonly canReset: boolean
  readonly regions: number
  readonly irqs: number
}

export async function deviceInfo(kernel: Kernel, deviceFd: DeviceFd): Promise<DeviceFlags> {
  const act = 'read the device information'
  const info = await request(kernel, deviceFd, VFIO_DEVICE_GET_INFO, {}, act)
  const { flags, num_regions, num_irqs } = info
  return {
    isPci: (flags & VFIO_DEVICE_FLAGS_PCI) !== 0,
    canReset: (flags & VFIO_DEVICE_FLAGS_RESET) !== 0,
    regions: num_regions,
    irqs: num_irqs,
  }
}

/** A part of a region, in bytes from the start of the region. */
export interface RegionArea {
  readonly offset: bigint
  readonly length: bigint
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
  /** What of it can be mapped: all of a mappable region, or the areas that the kernel names. */
  readonly areas: readonly RegionArea[]
}

/** One region; undefined for an index that this device does not implement (EINVAL, as VGA may be). */
export async function regionInfo(
  kernel: Kernel,
  deviceFd: DeviceFd,
  index: number,
): Promise<Region | undefined> {
  const act = `read the information of region ${index}`
  const asked = requestWhole(kernel, deviceFd, VFIO_DEVICE_GET_REGION_INFO, { index }, act)
  const info = await unless('EINVAL', asked)
  if (info === undefined) return undefined
  const { flags, size, offset } = vfio_region_info.decode(info)
  const isMappable = (flags & VFIO_REGION_INFO_FLAG_MMAP) !== 0
  return {
    index,
    size,
    fdOffset: offset,
    isReadable: (flags & VFIO_REGION_INFO_FLAG_READ) !== 0,
    isWritable: (flags & VFIO_REGION_INFO_FLAG_WRITE) !== 0,
    isMappable,
    areas: isMappable ? (sparseAreas(info) ?? [{ offset: 0n, length: size }]) : [],
  }
}

/** vfio.h: struct vfio_region_info_cap_sparse_mmap; undefined where the region has none. */
function sparseAreas(info: Uint8Array): RegionArea[] | undefined {
  const { flags, cap_offset } = vfio_region_info.decode(info)
  const start = (flags & VFIO_REGION_INFO_FLAG_CAPS) === 0 ? 0 : cap_offset
  for (const { id, offset: at } of capabilities(info, start)) {
    if (id !== VFIO_REGION_INFO_CAP_SPARSE_MMAP) continue
    const { nr_areas } = vfio_region_info_cap_sparse_mmap.decode(info, at)
    const first = at + vfio_region_info_cap_sparse_mmap.size
    return Array.from({ length: nr_areas }, (_, index) => {
      const where = first + index * vfio_region_sparse_mmap_area.size
      const { offset, size } = vfio_region_sparse_mmap_area.decode(info, where)
      return { offset, length: size }
    })
  }
  return undefined
}

/** Map an area of a region into this process: whole pages, and not longer than the area. */
export async function mapArea(
  kernel: Kernel,
  deviceFd: DeviceFd,
  { region, area }: { readonly region: Region; readonly area: RegionArea },
): Promise<Segment> {
  const segment = await kernel.mmap(deviceFd, {
    offset: region.fdOffset + area.offset,
    length: area.length,
    access: region.isWritable ? 'read-write' : 'read',
  })
  if (typeof segment !== 'number') return segment
  throw refusal('mmap of a region', segment, `map region ${region.index} of the device`)
}

/** The IRQ indexes of a PCI device by which the host speaks to its user, each with one vector. */
export const ERROR_IRQ = VFIO_PCI_ERR_IRQ_INDEX
export const REQUEST_IRQ = VFIO_PCI_REQ_IRQ_INDEX
/** The region of a PCI device that has its configuration space. */
export const CONFIG_REGION = VFIO_PCI_CONFIG_REGION_INDEX

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
  deviceFd: DeviceFd,
  index: number,
): Promise<IrqIndex | undefined> {
  const act = `read the information of IRQ index ${index}`
  const asked = request(kernel, deviceFd, VFIO_DEVICE_GET_IRQ_INFO, { index }, act)
  const info = await unless('EINVAL', asked)
  if (info === undefined) return undefined
  const { flags, count } = info
  return {
    index,
    count,
    hasEventfd: (flags & VFIO_IRQ_INFO_EVENTFD) !== 0,
    isMaskable: (flags & VFIO_IRQ_INFO_MASKABLE) !== 0,
    isAutomasked: (flags & VFIO_IRQ_INFO_AUTOMASKED) !== 0,
    isFixedSize: (flags & VFIO_IRQ_INFO_NORESIZE) !== 0,
  }
}

async function setIrqs(
  kernel: Kernel,
  deviceFd: DeviceFd,
  set: {
    readonly index: number
    readonly start: number
    readonly count: number
    readonly flags: number
  },
  act: string,
  fds: readonly number[] = [],
): Promise<void> {
  const tail = new Uint8Array(fds.length * 4)
  const view = dataView(tail)
  for (const [n, fd] of fds.entries()) view.setInt32(n * 4, fd, true)
  await request(kernel, deviceFd, VFIO_DEVICE_SET_IRQS, set, act, tail)
}

/**
 * Let the kernel signal one eventfd per vector, from `start` on; -1 detaches a vector. LIMIT_REACHED
 * where the host has fewer vectors than asked for, and then none of them is armed.
 */
export const armIrqs = (
  kernel: Kernel,
  deviceFd: DeviceFd,
  { index, start, eventfds }: { index: number; start: number; eventfds: readonly number[] },
): Promise<void> =>
  setIrqs(
    kernel,
    deviceFd,
    {
      index,
      start,
      count: eventfds.length,
      flags: VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
    },
    `arm vectors ${start}..${start + eventfds.length - 1} of IRQ index ${index}`,
    eventfds,
  )

/** Let an eventfd of the client unmask a vector whenever it is signalled; -1 ends that. */
export const setUnmaskEventfd = (
  kernel: Kernel,
  deviceFd: DeviceFd,
  { index, vector, eventfd }: { index: number; vector: number; eventfd: number },
): Promise<void> =>
  setIrqs(
    kernel,
    deviceFd,
    {
      index,
      start: vector,
      count: 1,
      flags: VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_UNMASK,
    },
    `let an eventfd unmask vector ${vector} of IRQ index ${index}`,
    [eventfd],
  )

/** Disarm every vector of an index. */
export const disableIrqs = (kernel: Kernel, deviceFd: DeviceFd, index: number): Promise<void> =>
  setIrqs(
    kernel,
    deviceFd,
    { index, start: 0, count: 0, flags: VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER },
    `disable IRQ index ${index}`,
  )

const actOnVector =
  (action: number, verb: string) =>
  (kernel: Kernel, deviceFd: DeviceFd, at: { index: number; vector: number }): Promise<void> =>
    setIrqs(
      kernel,
      deviceFd,
      { index: at.index, start: at.vector, count: 1, flags: VFIO_IRQ_SET_DATA_NONE | action },
      `${verb} vector ${at.vector} of IRQ index ${at.index}`,
    )

export const maskIrq = actOnVector(VFIO_IRQ_SET_ACTION_MASK, 'mask')
export const unmaskIrq = actOnVector(VFIO_IRQ_SET_ACTION_UNMASK, 'unmask')
/** Raise a vector from software, as if the device had. */
export const triggerIrq = actOnVector(VFIO_IRQ_SET_ACTION_TRIGGER, 'trigger')

/** Reset the function. Mappings of the address space survive. */
export async function resetDevice(kernel: Kernel, deviceFd: DeviceFd): Promise<void> {
  await request(kernel, deviceFd, VFIO_DEVICE_RESET, undefined, 'reset the device')
}

/** Bytes of a region, in one access and all of them; the caller keeps inside the region. */
export async function readRegion(
  kernel: Kernel,
  deviceFd: DeviceFd,
  { region, offset, length }: { region: Region; offset: bigint; length: number },
): Promise<Uint8Array> {
  const op = 'pread of a region'
  const act = `read ${length} bytes of region ${region.index} at ${hex(offset)}`
  const bytes = new Uint8Array(length)
  const moved = accept(op, await kernel.pread(deviceFd, bytes, region.fdOffset + offset), act)
  if (moved !== length) throw short(op, act, { asked: length, moved })
  return bytes
}

/** Write all of the bytes in one access. Where the device takes fewer, those are written. */
export async function writeRegion(
  kernel: Kernel,
  deviceFd: DeviceFd,
  { region, offset, data }: { region: Region; offset: bigint; data: Uint8Array },
): Promise<void> {
  const op = 'pwrite of a region'
  const { length } = data
  const act = `write ${length} bytes of region ${region.index} at ${hex(offset)}`
  const moved = accept(op, await kernel.pwrite(deviceFd, data, region.fdOffset + offset), act)
  if (moved !== length) throw short(op, act, { asked: length, moved })
}
