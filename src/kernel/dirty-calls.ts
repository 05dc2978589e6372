/** Typed calls of dirty tracking by a container (vfio.h: VFIO_IOMMU_DIRTY_PAGES, since 5.8). */

import {
  VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
  VFIO_IOMMU_DIRTY_PAGES,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
  VFIO_IOMMU_UNMAP_DMA,
  vfio_bitmap,
  vfio_iommu_type1_dirty_bitmap,
  vfio_iommu_type1_dirty_bitmap_get,
  vfio_iommu_type1_dma_unmap,
} from '../abi/container.ts'
import type { Segment } from '../os/memory.ts'
import { type Extent, extentText } from './container-calls.ts'
import type { Kernel } from './port.ts'
import { accept } from './refusal.ts'

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

/** Track what every device of the container writes; nothing happens where that is done already. */
export async function startTracking(kernel: Kernel, containerFd: number): Promise<void> {
  const op = 'VFIO_IOMMU_DIRTY_PAGES_FLAG_START'
  const arg = controlOf(VFIO_IOMMU_DIRTY_PAGES_FLAG_START)
  accept(op, await kernel.ioctl(containerFd, VFIO_IOMMU_DIRTY_PAGES.number, arg), 'track writes')
}

export async function stopTracking(kernel: Kernel, containerFd: number): Promise<void> {
  const op = 'VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP'
  const arg = controlOf(VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP)
  accept(op, await kernel.ioctl(containerFd, VFIO_IOMMU_DIRTY_PAGES.number, arg), 'stop tracking')
}

/**
 * Read and clear the dirty bits of whole mappings. Where it fails, the bitmap has the bits of those
 * mappings that came before, and they are cleared.
 */
export async function readDirty(
  kernel: Kernel,
  containerFd: number,
  extent: Extent,
  into: BitmapSpace,
): Promise<void> {
  const { size: head } = vfio_iommu_type1_dirty_bitmap
  const { size: payload } = vfio_iommu_type1_dirty_bitmap_get
  const bitmap = bitmapOf(extent, into)
  const arg = vfio_iommu_type1_dirty_bitmap.encode(
    { argsz: head + payload, flags: VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP },
    payload,
  )
  vfio_iommu_type1_dirty_bitmap_get.write(
    arg,
    {
      iova: extent.iova,
      size: extent.length,
      'bitmap.pgsize': bitmap.pgsize,
      'bitmap.size': bitmap.size,
      'bitmap.data': bitmap.data,
    },
    head,
  )
  const answer = await kernel.ioctl(containerFd, VFIO_IOMMU_DIRTY_PAGES.number, arg)
  const op = 'VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP'
  accept(op, answer, `read what was written in iova ${extentText(extent)}`)
}

/** Unmap whole mappings, and read the bits they had by then; answers the bytes unmapped. */
export async function unmapReadingDirty(
  kernel: Kernel,
  containerFd: number,
  extent: Extent,
  into: BitmapSpace,
): Promise<bigint> {
  const { size: head } = vfio_iommu_type1_dma_unmap
  const arg = vfio_iommu_type1_dma_unmap.encode(
    {
      argsz: head + vfio_bitmap.size,
      flags: VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
      iova: extent.iova,
      size: extent.length,
    },
    vfio_bitmap.size,
  )
  vfio_bitmap.write(arg, bitmapOf(extent, into), head)
  const answer = await kernel.ioctl(containerFd, VFIO_IOMMU_UNMAP_DMA.number, arg)
  accept('VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP', answer, `unmap iova ${extentText(extent)}`)
  return vfio_iommu_type1_dma_unmap.decode(arg).size
}

const controlOf = (flags: number): Uint8Array =>
  vfio_iommu_type1_dirty_bitmap.encode({ argsz: vfio_iommu_type1_dirty_bitmap.size, flags })

const bitmapOf = ({ length }: Extent, { pageSize, segment }: BitmapSpace) => ({
  pgsize: pageSize,
  size: BigInt(bitmapBytes(length / pageSize)),
  data: segment.address as bigint,
})
