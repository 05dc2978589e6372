/** How a dirty bitmap reaches the caller: vfio.h, struct vfio_bitmap. */

import type { vfio_bitmap } from '../../../abi/container.ts'
import type { Values } from '../../../abi/layout.ts'
import { ERRNO } from '../../../base/errno.ts'
import { userBytes } from '../core/user-memory.ts'
import type { Mapping } from './mapping.ts'
import type { Type1 } from './type1.ts'

export type Bitmap = Values<(typeof vfio_bitmap)['types']>

/** What max_dirty_bitmap_size of GET_INFO says. */
export const DIRTY_BITMAP_SIZE_MAX = 0x1000_0000n

/** Whether the caller's bitmap has room for a bit per page, in whole words, and is not too large. */
export const isBitmapSize = ({ pgsize, size }: Bitmap, covers: bigint): boolean => {
  const pageSize = pgsize & -pgsize
  const pages = pageSize === 0n ? covers : covers / pageSize
  const needed = ((pages + 63n) / 64n) * 8n
  return pages !== 0n && size !== 0n && size <= DIRTY_BITMAP_SIZE_MAX && size >= needed
}

/**
 * Stores the mapping's bits where they belong in a bitmap that starts at `base`. Whole words are
 * stored; of what the caller had there, only the word that the first bit falls into is merged.
 */
export const reportDirty = (
  type1: Type1,
  mapping: Mapping,
  base: bigint,
  { data, pgsize }: Bitmap,
): number => {
  const { dirty } = mapping
  if (dirty === undefined) return -ERRNO.EINVAL
  // No IOMMU of this machine reports writes to type1, so every page may have been written.
  if (type1.hasPhysical && mapping.isIommuMapped) dirty.setAll()

  const bit = (mapping.iova - base) / pgsize
  const shift = Number(bit % 64n)
  const at = data + (bit / 64n) * 8n
  if (shift > 0) {
    dirty.moveUp(shift)
    const first = userBytes(at, 8)
    if (first === undefined) return -ERRNO.EFAULT
    dirty.mergeFirst(new BigUint64Array(first.slice().buffer)[0] ?? 0n)
  }
  const words = dirty.words(shift)
  const into = userBytes(at, words.byteLength)
  if (into === undefined) return -ERRNO.EFAULT
  into.set(new Uint8Array(words.buffer, words.byteOffset, words.byteLength))
  return 0
}
