/** What a vfio-pci device says about itself, its regions and its interrupts. */

import { vfio_info_cap_header } from '../../../../abi/caps.ts'
import {
  VFIO_DEVICE_FLAGS_PCI,
  VFIO_DEVICE_FLAGS_RESET,
  VFIO_IRQ_INFO_AUTOMASKED,
  VFIO_IRQ_INFO_EVENTFD,
  VFIO_IRQ_INFO_MASKABLE,
  VFIO_IRQ_INFO_NORESIZE,
  VFIO_PCI_BAR5_REGION_INDEX,
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_PCI_ERR_IRQ_INDEX,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_NUM_IRQS,
  VFIO_PCI_NUM_REGIONS,
  VFIO_PCI_ROM_REGION_INDEX,
  VFIO_REGION_INFO_CAP_MSIX_MAPPABLE,
  VFIO_REGION_INFO_CAP_SPARSE_MMAP,
  VFIO_REGION_INFO_CAP_TYPE,
  VFIO_REGION_INFO_FLAG_CAPS,
  VFIO_REGION_INFO_FLAG_MMAP,
  VFIO_REGION_INFO_FLAG_READ,
  VFIO_REGION_INFO_FLAG_WRITE,
  vfio_device_info,
  vfio_irq_info,
  vfio_region_info,
  vfio_region_info_cap_sparse_mmap,
  vfio_region_info_cap_type,
  vfio_region_sparse_mmap_area,
} from '../../../../abi/device.ts'
import {
  PROPOSED_NDMA,
  VFIO_REGION_SUBTYPE_MIGRATION_DEPRECATED,
  VFIO_REGION_TYPE_MIGRATION_DEPRECATED,
} from '../../../../abi/mig-v1.ts'
import { ERRNO } from '../../../../base/errno.ts'
import type { IoctlArg } from '../../../../kernel/port.ts'
import { capChain } from '../../core/cap-chain.ts'
import { copyIn, copyOut } from '../../core/user-memory.ts'
import type { MigV1 } from '../profiles/mig-v1.ts'
import { MIG_V1_WINDOW } from '../profiles/mig-v1-window.ts'
import type { PciFunction } from './pci-function.ts'
import { barOf, isMappable, MIG_V1_REGION_INDEX, regionOffset } from './regions.ts'

const DEVICE_INFO_MIN = vfio_device_info.offsets.cap_offset
const RW = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE

export const deviceInfo = (pci: PciFunction, arg: IoctlArg): number => {
  const info = copyIn(vfio_device_info, arg, DEVICE_INFO_MIN)
  if (info === undefined) return -ERRNO.EFAULT
  if (info.argsz < DEVICE_INFO_MIN) return -ERRNO.EINVAL
  const answer = vfio_device_info.encode({
    argsz: info.argsz,
    flags: VFIO_DEVICE_FLAGS_PCI | (pci.spec.hasReset ? VFIO_DEVICE_FLAGS_RESET : 0),
    num_regions: VFIO_PCI_NUM_REGIONS + (pci.vendor?.v1 ? 1 : 0),
    num_irqs: VFIO_PCI_NUM_IRQS,
  })
  return copyOut(arg, answer, Math.min(info.argsz, answer.length))
}

export const regionInfo = (pci: PciFunction, arg: IoctlArg): number => {
  const info = copyIn(vfio_region_info, arg, vfio_region_info.size)
  if (info === undefined) return -ERRNO.EFAULT
  if (info.argsz < vfio_region_info.size) return -ERRNO.EINVAL
  const { index } = info
  const found = region(pci, index)
  if (found === undefined) return -ERRNO.EINVAL

  const { size } = vfio_region_info
  const chain = capChain(size, found.caps)
  const hasRoom = chain.length > 0 && info.argsz >= size + chain.length
  const answer = vfio_region_info.encode({
    argsz: chain.length > 0 && !hasRoom ? size + chain.length : info.argsz,
    flags: found.flags | (chain.length > 0 ? VFIO_REGION_INFO_FLAG_CAPS : 0),
    index,
    cap_offset: hasRoom ? size : chain.length > 0 ? 0 : info.cap_offset,
    size: found.size,
    offset: regionOffset(index),
  })
  return copyOut(arg, hasRoom ? Buffer.concat([answer, chain]) : answer)
}

interface Region {
  readonly size: bigint
  readonly flags: number
  readonly caps: readonly Uint8Array[]
}

const NO_REGION: Region = { size: 0n, flags: 0, caps: [] }

const region = (pci: PciFunction, index: number): Region | undefined => {
  const v1 = pci.vendor?.v1
  if (v1 && index === MIG_V1_REGION_INDEX)
    return {
      size: BigInt(v1.size),
      flags: RW | (v1.mapsData ? VFIO_REGION_INFO_FLAG_MMAP : 0),
      caps: migV1Caps(v1),
    }
  if (index === VFIO_PCI_CONFIG_REGION_INDEX)
    return { size: BigInt(pci.config.size), flags: RW, caps: [] }
  if (index === VFIO_PCI_ROM_REGION_INDEX) return NO_REGION
  // No function here is a display with the legacy VGA ranges.
  if (index > VFIO_PCI_BAR5_REGION_INDEX) return undefined
  const bar = barOf(pci, index)
  if (bar === undefined) return NO_REGION
  const mayMap = isMappable(bar)
  const hasTable = pci.msixBar === index
  const mappable = vfio_info_cap_header.encode({
    id: VFIO_REGION_INFO_CAP_MSIX_MAPPABLE,
    version: 1,
  })
  return {
    size: bar.size,
    flags: RW | (mayMap ? VFIO_REGION_INFO_FLAG_MMAP : 0),
    caps: mayMap && hasTable ? [mappable] : [],
  }
}

const migV1Caps = ({ hasNdma, mapsData }: MigV1): Uint8Array[] => {
  const type = vfio_region_info_cap_type.encode({
    'header.id': VFIO_REGION_INFO_CAP_TYPE,
    'header.version': 1,
    type: VFIO_REGION_TYPE_MIGRATION_DEPRECATED,
    subtype: VFIO_REGION_SUBTYPE_MIGRATION_DEPRECATED,
  })
  const ndma = vfio_info_cap_header.encode({ id: PROPOSED_NDMA.regionInfoCap, version: 1 })
  const { offset, size } = MIG_V1_WINDOW.data
  const sparse = Buffer.concat([
    vfio_region_info_cap_sparse_mmap.encode({
      'header.id': VFIO_REGION_INFO_CAP_SPARSE_MMAP,
      'header.version': 1,
      nr_areas: 1,
    }),
    vfio_region_sparse_mmap_area.encode({ offset: BigInt(offset), size: BigInt(size) }),
  ])
  return [type, ...(mapsData ? [sparse] : []), ...(hasNdma ? [ndma] : [])]
}

export const irqInfo = (pci: PciFunction, arg: IoctlArg): number => {
  const info = copyIn(vfio_irq_info, arg, vfio_irq_info.size)
  if (info === undefined) return -ERRNO.EFAULT
  const { argsz, index } = info
  if (argsz < vfio_irq_info.size || index >= VFIO_PCI_NUM_IRQS) return -ERRNO.EINVAL
  if (index === VFIO_PCI_ERR_IRQ_INDEX && !pci.spec.isPcie) return -ERRNO.EINVAL
  let more = pci.irqs.isFixed(index) ? VFIO_IRQ_INFO_NORESIZE : 0
  if (index === VFIO_PCI_INTX_IRQ_INDEX) more = VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED
  const flags = VFIO_IRQ_INFO_EVENTFD | more
  return copyOut(arg, vfio_irq_info.encode({ argsz, flags, index, count: pci.irqs.count(index) }))
}
