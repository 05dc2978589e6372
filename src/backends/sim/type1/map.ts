/** VFIO_IOMMU_MAP_DMA: the checks in the kernel's order; the first that fails wins. */

import {
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_VADDR,
  VFIO_DMA_MAP_FLAG_WRITE,
  vfio_iommu_type1_dma_map,
} from '../../../abi/container.ts'
import type { Values } from '../../../abi/layout.ts'
import { ERRNO } from '../../../base/errno.ts'
import type { IoctlArg } from '../../../kernel/port.ts'
import { contains } from '../../../rules/range-map.ts'
import type { Mm } from '../core/mm.ts'
import { copyIn } from '../core/user-memory.ts'
import type { Caller } from '../file/open-file.ts'
import { Mapping } from './mapping.ts'
import { charge, pin, unpin } from './pinning.ts'
import type { Type1 } from './type1.ts'
import { wrapErrno, wraps } from './wrap.ts'

const ACCESS_FLAGS = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE
const FLAGS = ACCESS_FLAGS | VFIO_DMA_MAP_FLAG_VADDR

type DmaMap = Values<(typeof vfio_iommu_type1_dma_map)['types']>

export const mapDma = (type1: Type1, caller: Caller, arg: IoctlArg): number => {
  const map = copyIn(vfio_iommu_type1_dma_map, arg, vfio_iommu_type1_dma_map.size)
  if (map === undefined) return -ERRNO.EFAULT
  if (map.argsz < vfio_iommu_type1_dma_map.size || (map.flags & ~FLAGS) !== 0) return -ERRNO.EINVAL

  const access = map.flags & ACCESS_FLAGS
  const setsVaddr = (map.flags & VFIO_DMA_MAP_FLAG_VADDR) !== 0
  if ((access !== 0) === setsVaddr) return -ERRNO.EINVAL
  if (map.size === 0n || ((map.size | map.iova | map.vaddr) & (type1.granule - 1n)) !== 0n)
    return -ERRNO.EINVAL
  if (wraps(map.iova, map.size) || wraps(map.vaddr, map.size)) return -wrapErrno(type1.machine)

  const range = { start: map.iova, last: map.iova + map.size - 1n }
  const overlap = type1.mappings.overlap(range)
  if (setsVaddr) return setVaddr(type1, overlap, map, caller.mm)
  if (overlap) return -ERRNO.EEXIST
  if (type1.dmaAvail === 0) return -ERRNO.ENOSPC
  if (type1.ranges.length > 0 && !type1.ranges.some((allowed) => contains(allowed, range)))
    return -ERRNO.EINVAL

  const mapping = new Mapping(map, access, caller.mm)
  const pinned = type1.hasPhysical ? pin(mapping, caller.mm) : 0
  if (pinned < 0) return pinned
  const tracked = type1.isTracking ? type1.track(mapping) : 0
  if (tracked < 0) {
    unpin(mapping)
    return tracked
  }
  type1.dmaAvail -= 1
  type1.mappings.insert(mapping)
  return 0
}

/** VFIO_DMA_MAP_FLAG_VADDR: the caller becomes the owner of the mapping and is charged for it. */
const setVaddr = (type1: Type1, mapping: Mapping | undefined, map: DmaMap, caller: Mm): number => {
  if (!mapping) return -ERRNO.ENOENT
  if (!mapping.isVaddrInvalid || mapping.iova !== map.iova || mapping.size !== map.size)
    return -ERRNO.EINVAL
  if (mapping.owner !== caller) {
    // The new owner first, so that a refusal leaves the old one as it was.
    const charged = mapping.isIommuMapped ? charge(caller, mapping.lockedPages) : 0
    if (charged < 0) return charged
    mapping.owner.lockedPages -= mapping.lockedPages
    mapping.owner = caller
  }
  mapping.vaddr = map.vaddr
  mapping.isVaddrInvalid = false
  type1.vaddrInvalidCount -= 1
  return 0
}
