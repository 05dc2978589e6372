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
  vfio_iommu_type1_info,
  vfio_iommu_type1_info_cap_iova_range,
  vfio_iommu_type1_info_dma_avail,
  vfio_iova_range,
} from '../abi/container.ts'
import { IOMMU_VFIO_IOAS, IOMMU_VFIO_IOAS_GET, iommu_vfio_ioas } from '../abi/iommufd.ts'
import {
  type Access,
  type ContainerFd,
  type IovaRange,
  iova,
  lengthOf,
  PAGE_SIZE,
  rangeText,
  type Vaddr,
} from '../base/units.ts'
import type { Kernel } from './port.ts'
import { accept, isErrno } from './refusal.ts'
import { named, request, requestWhole } from './request.ts'

const O_RDWR = 2

const MAP_FLAGS: Record<Access, number> = {
  read: VFIO_DMA_MAP_FLAG_READ,
  write: VFIO_DMA_MAP_FLAG_WRITE,
  'read-write': VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
}

/** Open /dev/vfio/vfio. It grants nothing until a group is added. */
export async function openContainer(kernel: Kernel): Promise<ContainerFd> {
  const answer = await kernel.open('/dev/vfio/vfio', O_RDWR)
  return accept('open /dev/vfio/vfio', answer, 'create an address space') as ContainerFd
}

/**
 * Whether the container is an iommufd that stands in for one (CONFIG_IOMMUFD_VFIO_CONTAINER): it
 * alone knows IOMMU_VFIO_IOAS, and says ENODEV before its first group. A container of vfio knows no
 * such request: EINVAL.
 */
export async function isIommufd(kernel: Kernel, containerFd: ContainerFd): Promise<boolean> {
  const arg = iommu_vfio_ioas.encode({ size: iommu_vfio_ioas.size, op: IOMMU_VFIO_IOAS_GET })
  const answer = await kernel.ioctl(containerFd, IOMMU_VFIO_IOAS.number, arg)
  return answer >= 0 || isErrno(answer, 'ENODEV')
}

/** Choose type1 v2. The container needs a group first. */
export async function setIommu(kernel: Kernel, containerFd: ContainerFd): Promise<void> {
  const act = 'choose the type1 v2 IOMMU for the address space'
  await request(kernel, containerFd, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU, act)
}

/** Whether vaddrs can be updated. Means something only after setIommu: before, it is always no. */
export async function canUpdateVaddr(kernel: Kernel, containerFd: ContainerFd): Promise<boolean> {
  const act = 'check for VFIO_UPDATE_VADDR'
  return (await request(kernel, containerFd, VFIO_CHECK_EXTENSION, VFIO_UPDATE_VADDR, act)) === 1
}

export interface IommuInfo {
  /** Every page size that can be mapped, one bit each. */
  readonly pageSizes: bigint
  /** Where mappings may lie; undefined where nothing limits them (mediated devices only). */
  readonly apertures: readonly IovaRange[] | undefined
  /** Mappings that can still be made; undefined on kernels that do not say (before 5.10). */
  readonly mappingsAvailable: number | undefined
}

/** What the container can map, and where; it has an IOMMU type by then. */
export async function iommuInfo(kernel: Kernel, containerFd: ContainerFd): Promise<IommuInfo> {
  const act = 'read the limits of the address space'
  return decodeInfo(await requestWhole(kernel, containerFd, VFIO_IOMMU_GET_INFO, {}, act))
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

/** What a range of iovas leads to. */
export interface MapTarget {
  readonly vaddr: Vaddr
  readonly access: Access
}

const mapAct = (range: IovaRange): string => `map iova ${rangeText(range)}`

const mapValues = (range: IovaRange, { vaddr, access }: MapTarget) => ({
  ...{ flags: MAP_FLAGS[access], vaddr },
  ...iovaAndSize(range),
})

/**
 * Map memory of this process for device DMA: all of it or nothing. The memory must stay mapped at
 * `vaddr` for as long as the mapping lives; its pages are pinned and charged to this process.
 */
export async function mapDma(
  kernel: Kernel,
  containerFd: ContainerFd,
  range: IovaRange,
  to: MapTarget,
): Promise<void> {
  await request(kernel, containerFd, VFIO_IOMMU_MAP_DMA, mapValues(range, to), mapAct(range))
}

const MAP_REGION = named('VFIO_IOMMU_MAP_DMA of a region', VFIO_IOMMU_MAP_DMA)

/** The same for a part of a device that is mapped at the vaddr: no memory is pinned or locked. */
export async function mapRegionDma(
  kernel: Kernel,
  containerFd: ContainerFd,
  range: IovaRange,
  to: MapTarget,
): Promise<void> {
  await request(kernel, containerFd, MAP_REGION, mapValues(range, to), mapAct(range))
}

const UPDATE_VADDR = named('VFIO_DMA_MAP_FLAG_VADDR', VFIO_IOMMU_MAP_DMA)
const INVALIDATE_VADDR = named('VFIO_DMA_UNMAP_FLAG_VADDR', VFIO_IOMMU_UNMAP_DMA)

/** Give an invalidated mapping, named by exactly its range, a new vaddr for the same memory. */
export async function updateVaddr(
  kernel: Kernel,
  containerFd: ContainerFd,
  range: IovaRange,
  vaddr: Vaddr,
): Promise<void> {
  const values = { flags: VFIO_DMA_MAP_FLAG_VADDR, vaddr, ...iovaAndSize(range) }
  const act = `update the vaddr of iova ${rangeText(range)}`
  await request(kernel, containerFd, UPDATE_VADDR, values, act)
}

/** Unmap every mapping inside the range, or every one there is; answers the bytes unmapped. */
export async function unmapDma(
  kernel: Kernel,
  containerFd: ContainerFd,
  range: IovaRange | 'all',
): Promise<bigint> {
  const act = `unmap ${whichText(range)}`
  const values = whichOf(range)
  return (await request(kernel, containerFd, VFIO_IOMMU_UNMAP_DMA, values, act)).size
}

/**
 * Mark the vaddr of every mapping inside the range, or of every one there is, as invalid; device
 * DMA goes on. Answers the bytes that they have.
 */
export async function invalidateVaddr(
  kernel: Kernel,
  containerFd: ContainerFd,
  range: IovaRange | 'all',
): Promise<bigint> {
  const act = `invalidate the vaddr of ${whichText(range)}`
  const { flags, ...which } = whichOf(range)
  const values = { flags: flags | VFIO_DMA_UNMAP_FLAG_VADDR, ...which }
  return (await request(kernel, containerFd, INVALIDATE_VADDR, values, act)).size
}

/** How the structs of vfio.h say a range. */
export const iovaAndSize = (range: IovaRange): { iova: bigint; size: bigint } => ({
  iova: range.start,
  size: lengthOf(range),
})

const whichOf = (range: IovaRange | 'all') =>
  range === 'all'
    ? { flags: VFIO_DMA_UNMAP_FLAG_ALL, iova: 0n, size: 0n }
    : { flags: 0, ...iovaAndSize(range) }

const whichText = (range: IovaRange | 'all'): string =>
  range === 'all' ? 'every mapping' : `iova ${rangeText(range)}`
