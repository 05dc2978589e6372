/** Typed calls on a type1 container (vfio.h: VFIO_IOMMU_*). Only the v2 type is used. */

import { capabilities } from '../abi/caps.ts'
import {
  VFIO_CHECK_EXTENSION,
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_VADDR,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_DMA_UNMAP_FLAG_VADDR,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_INFO_CAPS,
  VFIO_IOMMU_INFO_PGSIZES,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
  VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_SET_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  VFIO_UPDATE_VADDR,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
  vfio_iommu_type1_info,
  vfio_iommu_type1_info_cap_iova_range,
  vfio_iommu_type1_info_dma_avail,
  vfio_iova_range,
} from '../abi/container.ts'
import {
  type Access,
  type Iova,
  type IovaRange,
  iova,
  PAGE_SIZE,
  rangeText,
  type Vaddr,
} from '../base/units.ts'
import type { Kernel } from './port.ts'
import { accept } from './refusal.ts'

const O_RDWR = 2

const MAP_FLAGS: Record<Access, number> = {
  read: VFIO_DMA_MAP_FLAG_READ,
  write: VFIO_DMA_MAP_FLAG_WRITE,
  'read-write': VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
}

/** A range given as its first address and its length in bytes, which is never zero. */
export interface Extent {
  readonly iova: Iova
  readonly length: bigint
}

/** `0x1000..0x1fff`: how an extent reads in messages. */
export const extentText = (extent: Extent): string =>
  rangeText({ start: extent.iova, last: iova(extent.iova + extent.length - 1n) })

/** Open /dev/vfio/vfio. It grants nothing until a group is added. */
export async function openContainer(kernel: Kernel): Promise<number> {
  const answer = await kernel.open('/dev/vfio/vfio', O_RDWR)
  return accept('open /dev/vfio/vfio', answer, 'create an address space')
}

/** Choose type1 v2. The container needs a group first. */
export async function setIommu(kernel: Kernel, containerFd: number): Promise<void> {
  const answer = await kernel.ioctl(containerFd, VFIO_SET_IOMMU.number, VFIO_TYPE1v2_IOMMU)
  accept(VFIO_SET_IOMMU.cName, answer, 'choose the type1 v2 IOMMU for the address space')
}

/** Whether vaddrs can be updated. Means something only after setIommu: before, it is always no. */
export async function canUpdateVaddr(kernel: Kernel, containerFd: number): Promise<boolean> {
  const answer = await kernel.ioctl(containerFd, VFIO_CHECK_EXTENSION.number, VFIO_UPDATE_VADDR)
  return accept(VFIO_CHECK_EXTENSION.cName, answer, 'check for VFIO_UPDATE_VADDR') === 1
}

export interface IommuInfo {
  /** Every page size that can be mapped, one bit each. */
  readonly pageSizes: bigint
  /** Where mappings may lie; undefined where nothing limits them (mediated devices only). */
  readonly apertures: readonly IovaRange[] | undefined
  /** Mappings that can still be made; undefined on kernels that do not say (before 5.10). */
  readonly mappingsAvailable: number | undefined
}

/** VFIO_IOMMU_GET_INFO, asked twice: the first answer says how large the second one is. */
export async function iommuInfo(kernel: Kernel, containerFd: number): Promise<IommuInfo> {
  let info = vfio_iommu_type1_info.encode({ argsz: vfio_iommu_type1_info.size })
  const ask = async () => {
    const answer = await kernel.ioctl(containerFd, VFIO_IOMMU_GET_INFO.number, info)
    accept(VFIO_IOMMU_GET_INFO.cName, answer, 'read the limits of the address space')
    return vfio_iommu_type1_info.decode(info)
  }
  const needed = (await ask()).argsz
  if (needed > info.length) {
    info = new Uint8Array(needed)
    vfio_iommu_type1_info.write(info, { argsz: needed })
    await ask()
  }
  return decodeInfo(info)
}

function decodeInfo(info: Uint8Array): IommuInfo {
  const { flags, iova_pgsizes, cap_offset } = vfio_iommu_type1_info.decode(info)
  let apertures: IovaRange[] | undefined
  let mappingsAvailable: number | undefined
  for (const { id, offset } of capabilities(info, flags & VFIO_IOMMU_INFO_CAPS ? cap_offset : 0)) {
    if (id === VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE) apertures = decodeApertures(info, offset)
    if (id === VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL) {
      mappingsAvailable = vfio_iommu_type1_info_dma_avail.decode(info, offset).avail
    }
  }
  const pageSizes = flags & VFIO_IOMMU_INFO_PGSIZES ? iova_pgsizes : PAGE_SIZE
  return { pageSizes, apertures, mappingsAvailable }
}

function decodeApertures(info: Uint8Array, offset: number): IovaRange[] {
  const { nr_iovas } = vfio_iommu_type1_info_cap_iova_range.decode(info, offset)
  const first = offset + vfio_iommu_type1_info_cap_iova_range.size
  return Array.from({ length: nr_iovas }, (_, n) => {
    const { start, end } = vfio_iova_range.decode(info, first + n * vfio_iova_range.size)
    return { start: iova(start), last: iova(end) }
  })
}

/**
 * Map memory of this process for device DMA: all of it or nothing. The memory must stay mapped at
 * `vaddr` for as long as the mapping lives; its pages are pinned and charged to this process.
 */
export async function mapDma(
  kernel: Kernel,
  containerFd: number,
  map: Extent & { readonly vaddr: Vaddr; readonly access: Access },
): Promise<void> {
  const arg = vfio_iommu_type1_dma_map.encode({
    argsz: vfio_iommu_type1_dma_map.size,
    flags: MAP_FLAGS[map.access],
    vaddr: map.vaddr,
    iova: map.iova,
    size: map.length,
  })
  const answer = await kernel.ioctl(containerFd, VFIO_IOMMU_MAP_DMA.number, arg)
  accept(VFIO_IOMMU_MAP_DMA.cName, answer, `map iova ${extentText(map)}`)
}

/** Give an invalidated mapping, named by exactly its extent, a new vaddr for the same memory. */
export async function updateVaddr(
  kernel: Kernel,
  containerFd: number,
  map: Extent & { readonly vaddr: Vaddr },
): Promise<void> {
  const arg = vfio_iommu_type1_dma_map.encode({
    argsz: vfio_iommu_type1_dma_map.size,
    flags: VFIO_DMA_MAP_FLAG_VADDR,
    vaddr: map.vaddr,
    iova: map.iova,
    size: map.length,
  })
  const answer = await kernel.ioctl(containerFd, VFIO_IOMMU_MAP_DMA.number, arg)
  accept('VFIO_DMA_MAP_FLAG_VADDR', answer, `update the vaddr of iova ${extentText(map)}`)
}

async function unmap(
  kernel: Kernel,
  containerFd: number,
  what: { readonly extent: Extent | 'all'; readonly flags: number; readonly op: string },
): Promise<bigint> {
  const { extent } = what
  const all = extent === 'all'
  const arg = vfio_iommu_type1_dma_unmap.encode({
    argsz: vfio_iommu_type1_dma_unmap.size,
    flags: what.flags | (all ? VFIO_DMA_UNMAP_FLAG_ALL : 0),
    iova: all ? 0n : extent.iova,
    size: all ? 0n : extent.length,
  })
  const verb = what.flags ? 'invalidate the vaddr of' : 'unmap'
  const answer = await kernel.ioctl(containerFd, VFIO_IOMMU_UNMAP_DMA.number, arg)
  accept(what.op, answer, `${verb} ${all ? 'every mapping' : `iova ${extentText(extent)}`}`)
  return vfio_iommu_type1_dma_unmap.decode(arg).size
}

/** Unmap every mapping inside the extent, or every one there is; answers the bytes unmapped. */
export const unmapDma = (
  kernel: Kernel,
  containerFd: number,
  extent: Extent | 'all',
): Promise<bigint> =>
  unmap(kernel, containerFd, { extent, flags: 0, op: VFIO_IOMMU_UNMAP_DMA.cName })

/** Mark the vaddr of every mapping inside the extent as invalid; device DMA goes on. */
export const invalidateVaddr = (
  kernel: Kernel,
  containerFd: number,
  extent: Extent | 'all',
): Promise<bigint> =>
  unmap(kernel, containerFd, {
    extent,
    flags: VFIO_DMA_UNMAP_FLAG_VADDR,
    op: 'VFIO_DMA_UNMAP_FLAG_VADDR',
  })
