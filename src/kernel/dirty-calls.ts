/** Typed calls of dirty tracking by a container (vfio.h: VFIO_IOMMU_DIRTY_PAGES, since 5.8). */

import {
  VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
  VFIO_IOMMU_DIRTY_PAGES,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
  VFIO_IOMMU_UNMAP_DMA,
  vfio_bitmap,
  vfio_iommu_type1_dirty_bitmap_get,
} from '../abi/container.ts'
import { type ContainerFd, type IovaRange, lengthOf, rangeText } from '../base/units.ts'
import type { Segment } from '../os/memory.ts'
import { iovaAndSize } from './container-calls.ts'
import type { Kernel } from './port.ts'
import { named, request } from './request.ts'

/**
 * Where a kernel puts dirty bits: one per page, in words of 64, the lowest bit of the first word
 * for the first page that was asked for. It merges with what is there, so hand over zeros.
 */
export interface BitmapSpace {
  readonly pageSize: bigint
  readonly segment: Segment
}

/** Pages of the largest mapping that can be tracked: the bits of one bitmap, an int in the kernel. */
export const TRACKED_PAGES_MAX = 2n ** 31n - 1n

/** Bytes of the bitmap of so many pages: whole words. */
export const bitmapBytes = (pages: bigint): number => Number((pages + 63n) / 64n) * 8

const START = named('VFIO_IOMMU_DIRTY_PAGES_FLAG_START', VFIO_IOMMU_DIRTY_PAGES)
const STOP = named('VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP', VFIO_IOMMU_DIRTY_PAGES)
const GET_BITMAP = named('VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP', VFIO_IOMMU_DIRTY_PAGES)
const UNMAP_READING = named('VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP', VFIO_IOMMU_UNMAP_DMA)

/** Track what every device of the container writes; nothing happens where that is done already. */
export async function startTracking(kernel: Kernel, containerFd: ContainerFd): Promise<void> {
  const values = { flags: VFIO_IOMMU_DIRTY_PAGES_FLAG_START }
  await request(kernel, containerFd, START, values, 'track writes')
}

export async function stopTracking(kernel: Kernel, containerFd: ContainerFd): Promise<void> {
  const values = { flags: VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP }
  await request(kernel, containerFd, STOP, values, 'stop tracking')
}

/**
 * Read and clear the dirty bits of whole mappings. Where it fails, the bitmap has the bits of those
 * mappings that came before, and they are cleared.
 */
export async function readDirty(
  kernel: Kernel,
  containerFd: ContainerFd,
  range: IovaRange,
  into: BitmapSpace,
): Promise<void> {
  const bitmap = bitmapOf(range, into)
  const tail = vfio_iommu_type1_dirty_bitmap_get.encode({
    ...iovaAndSize(range),
    'bitmap.pgsize': bitmap.pgsize,
    'bitmap.size': bitmap.size,
    'bitmap.data': bitmap.data,
  })
  const values = { flags: VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP }
  const act = `read the dirty pages of iova ${rangeText(range)}`
  await request(kernel, containerFd, GET_BITMAP, values, act, tail)
}

/** Unmap whole mappings, and read the bits they had by then; answers the bytes unmapped. */
export async function unmapReadingDirty(
  kernel: Kernel,
  containerFd: ContainerFd,
  range: IovaRange,
  into: BitmapSpace,
): Promise<bigint> {
  const values = { flags: VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP, ...iovaAndSize(range) }
  const tail = vfio_bitmap.encode(bitmapOf(range, into))
  const act = `unmap iova ${rangeText(range)}`
  return (await request(kernel, containerFd, UNMAP_READING, values, act, tail)).size
}

const bitmapOf = (range: IovaRange, { pageSize, segment }: BitmapSpace) => ({
  pgsize: pageSize,
  size: BigInt(bitmapBytes(lengthOf(range) / pageSize)),
  data: segment.address as bigint,
})
