/** Reading and writing the regions of a vfio-pci device: the index is in the high bits. */

import {
  VFIO_PCI_BAR5_REGION_INDEX,
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_PCI_NUM_REGIONS,
} from '../../../../abi/device.ts'
import { ERRNO } from '../../../../base/errno.ts'
import { PAGE_SIZE } from '../../../../base/units.ts'
import type { MapRequest } from '../../../../kernel/port.ts'
import type { MemoryPiece } from '../../../../os/pieces.ts'
import type { DeviceMemory } from '../../core/mm.ts'
import type { BarSpec } from '../../spec/machine-spec.ts'
import type { PciFunction } from './pci-function.ts'

const INDEX_SHIFT = 40n

/** Regions of a driver's own come behind those of the bus. */
export const MIG_V1_REGION_INDEX = VFIO_PCI_NUM_REGIONS

export const regionOffset = (index: number): bigint => BigInt(index) << INDEX_SHIFT

export const regionAt = (offset: bigint): { readonly index: number; readonly at: bigint } => ({
  index: Number(offset >> INDEX_SHIFT),
  at: offset & ((1n << INDEX_SHIFT) - 1n),
})

export const readRegion = (pci: PciFunction, into: Uint8Array, offset: bigint): number => {
  if (into.length === 0) return 0
  const { index, at } = regionAt(offset)
  if (index === MIG_V1_REGION_INDEX) return pci.vendor?.v1?.read(into, Number(at)) ?? -ERRNO.EINVAL
  if (index >= VFIO_PCI_NUM_REGIONS) return -ERRNO.EINVAL
  if (index === VFIO_PCI_CONFIG_REGION_INDEX) return pci.config.read(Number(at), into)
  return readBar(pci, into, { index, at })
}

const readBar = (
  pci: PciFunction,
  into: Uint8Array,
  { index, at }: { readonly index: number; readonly at: bigint },
): number => {
  const length = barLength(pci, index, at, into.length)
  if (length < 0) return length
  return eachAccess(Number(at), into.subarray(0, length), (where, piece) =>
    pci.registers.read(index, where, piece),
  )
}

export const writeRegion = (pci: PciFunction, from: Uint8Array, offset: bigint): number => {
  if (from.length === 0) return 0
  const { index, at } = regionAt(offset)
  if (index === MIG_V1_REGION_INDEX) return pci.vendor?.v1?.write(from, Number(at)) ?? -ERRNO.EINVAL
  if (index >= VFIO_PCI_NUM_REGIONS) return -ERRNO.EINVAL
  if (index === VFIO_PCI_CONFIG_REGION_INDEX) return pci.writeConfig(Number(at), from)
  return writeBar(pci, from, { index, at })
}

/** How much was written, or -errno: -EIO while the function does not decode memory. */
export const writeBar = (
  pci: PciFunction,
  from: Uint8Array,
  { index, at }: { readonly index: number; readonly at: bigint },
): number => {
  const length = barLength(pci, index, at, from.length)
  if (length < 0) return length
  return eachAccess(Number(at), from.subarray(0, length), (where, piece) =>
    pci.registers.write(index, where, piece),
  )
}

/** The bytes that a client maps: whole pages of a BAR, or of what a driver says is mappable. */
export const mapRegion = async (
  pci: PciFunction,
  request: MapRequest,
): Promise<DeviceMemory | number> => {
  const { index, at } = regionAt(request.offset)
  const within = { ...request, offset: at }
  if (index === MIG_V1_REGION_INDEX && pci.vendor?.v1) {
    const window = await pci.vendor.v1.map(within)
    return typeof window === 'number' ? window : { segment: window, isDecoded: () => true }
  }
  const bar = index <= VFIO_PCI_BAR5_REGION_INDEX ? barOf(pci, index) : undefined
  if (bar === undefined || !isMappable(bar) || at + request.length > bar.size) return -ERRNO.EINVAL
  const segment = (await pci.registers.map?.(index, within)) ?? -ERRNO.ENODEV
  if (typeof segment === 'number') return segment
  return {
    segment,
    isDecoded: () => pci.config.isMemoryEnabled,
    piece: (offset, length) => peerPiece(pci, { index, at: at + BigInt(offset), length }),
  }
}

/** What a peer reads and writes there: the registers, where the function decodes them. */
const peerPiece = (
  pci: PciFunction,
  where: { readonly index: number; readonly at: bigint; readonly length: number },
): MemoryPiece => ({
  length: where.length,
  read: (into) => !pci.isLost && readBar(pci, into, where) === into.length,
  write: (from) => !pci.isLost && writeBar(pci, from, where) === from.length,
})

/** Less than a page cannot be mapped without its neighbours. */
export const isMappable = ({ kind, size }: BarSpec): boolean => kind !== 'io' && size >= PAGE_SIZE

export const barOf = (pci: PciFunction, index: number): BarSpec | undefined =>
  pci.spec.bars.find((bar) => bar.index === index)

/** How much of the access lies in the BAR, or -errno. */
const barLength = (pci: PciFunction, index: number, at: bigint, length: number): number => {
  const bar = index <= VFIO_PCI_BAR5_REGION_INDEX ? barOf(pci, index) : undefined
  if (bar === undefined || at >= bar.size) return -ERRNO.EINVAL
  if (bar.kind !== 'io' && !pci.config.isMemoryEnabled) return -ERRNO.EIO
  const room = bar.size - at
  return room < BigInt(length) ? Number(room) : length
}

/** As wide as the alignment and what is left allow, which is how the kernel goes through a buffer. */
const eachAccess = (
  start: number,
  bytes: Uint8Array,
  access: (at: number, piece: Uint8Array) => void,
): number => {
  for (let done = 0; done < bytes.length; ) {
    const at = start + done
    const width = [8, 4, 2, 1].find((w) => at % w === 0 && bytes.length - done >= w) ?? 1
    access(at, bytes.subarray(done, done + width))
    done += width
  }
  return bytes.length
}
