/**
 * DMA that a driver does in the place of its mediated device: vfio_pin_pages(), vfio_unpin_pages()
 * and vfio_dma_rw() of the kernel, for a device in a container or in an iommufd.
 */

import type { Range } from '../../../rules/range-map.ts'

/** A driver that may have pages pinned. */
export interface PinUser {
  /** Something in the range is about to be unmapped: it must unpin all that it has there. */
  unmapped(range: Range<bigint>): void
}

export interface PinRequest {
  /** Of the first page. */
  readonly iova: bigint
  readonly pages: number
  readonly isWritten: boolean
}

export interface EmulatedDma {
  /** Pins all of the pages: 0, or -errno and none is pinned. */
  pin(request: PinRequest): number
  /** What pin() pinned. */
  unpin(request: PinRequest): void
  /** Reads memory into the bytes, or writes them to it: 0 or -errno. */
  transfer(iova: bigint, bytes: Uint8Array, access: 'read' | 'write'): number
}

/** VFIO_PIN_PAGES_MAX_ENTRIES: as many as one page has room for pointers to. */
const PIN_PAGES_MAX = 512

export const isPinnableCount = (pages: number): boolean => pages > 0 && pages <= PIN_PAGES_MAX
