/** What a device reaches through the IOMMU: the memory behind a run of iovas. */

import { VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE } from '../../../abi/container.ts'
import type { MemoryPiece } from '../../../os/pieces.ts'
import type { MappingTree } from './mapping-tree.ts'

export type DmaDirection = 'read' | 'write'

const FLAG: Record<DmaDirection, number> = {
  read: VFIO_DMA_MAP_FLAG_READ,
  write: VFIO_DMA_MAP_FLAG_WRITE,
}

/** The pieces in order, or undefined when any of it is not mapped for that access. */
export const reach = (
  mappings: MappingTree,
  want: { readonly iova: bigint; readonly length: number; readonly access: DmaDirection },
): MemoryPiece[] | undefined => {
  const pieces: MemoryPiece[] = []
  const end = want.iova + BigInt(want.length)
  for (let at = want.iova; at < end; ) {
    const mapping = mappings.translate(at)
    if (!mapping?.isIommuMapped || (mapping.access & FLAG[want.access]) === 0) return undefined
    const last = mapping.last < end - 1n ? mapping.last : end - 1n
    const piece = mapping.piece(at - mapping.iova, Number(last - at) + 1)
    if (piece === undefined) return undefined
    pieces.push(piece)
    at = last + 1n
  }
  return pieces
}
