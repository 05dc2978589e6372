/**
 * An iommufd that stands in for a container: the type1 requests act on its compat ioas. Where the
 * rules of an ioas differ from those of type1, the ioas wins.
 */

import {
  VFIO_API_VERSION,
  VFIO_CHECK_EXTENSION,
  VFIO_DMA_CC_IOMMU,
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_GET_API_VERSION,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_NOIOMMU_IOMMU,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  VFIO_UNMAP_ALL,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
} from '../../../abi/container.ts'
import { IOMMU_IOAS_MAP_READABLE, IOMMU_IOAS_MAP_WRITEABLE } from '../../../abi/iommufd.ts'
import { ERRNO } from '../../../base/errno.ts'
import { U64_MAX } from '../../../base/units.ts'
import type { IoctlArg } from '../../../kernel/port.ts'
import { copyIn, copyOut } from '../core/user-memory.ts'
import type { Caller } from '../file/open-file.ts'
import { isAtLeast } from '../spec/version.ts'
import { compatInfo } from './compat-info.ts'
import type { IommufdContext } from './context.ts'
import type { IoPagetable } from './io-pagetable.ts'
import type { Ioas } from './ioas.ts'
import { userPages } from './user-pages.ts'

export const compatIoctl = (
  context: IommufdContext,
  caller: Caller,
  request: number,
  arg: IoctlArg,
): number => {
  switch (request) {
    case VFIO_GET_API_VERSION.number:
      return VFIO_API_VERSION
    case VFIO_CHECK_EXTENSION.number:
      return checkExtension(context, Number(arg ?? 0))
    case VFIO_SET_IOMMU.number:
      return setIommu(context, Number(arg ?? 0))
    case VFIO_IOMMU_GET_INFO.number:
      return compatInfo(() => context.vfioIoas, arg)
    case VFIO_IOMMU_MAP_DMA.number:
      return mapDma(context, caller, arg)
    case VFIO_IOMMU_UNMAP_DMA.number:
      return unmapDma(context, arg)
    default:
      return -ERRNO.ENOTTY
  }
}

const checkExtension = ({ vfioIoas }: IommufdContext, extension: number): number => {
  switch (extension) {
    case VFIO_TYPE1_IOMMU:
    case VFIO_TYPE1v2_IOMMU:
    case VFIO_UNMAP_ALL:
    // A kernel that could do without an IOMMU says so, whether or not anyone asked it to.
    case VFIO_NOIOMMU_IOMMU:
      return 1
    case VFIO_DMA_CC_IOMMU:
      return vfioIoas === undefined ? -ERRNO.ENODEV : isCoherent(vfioIoas)
    default:
      return 0
  }
}

const isCoherent = ({ hwpts }: Ioas): number =>
  [...hwpts].every(({ enforcesCoherency }) => enforcesCoherency) ? 1 : 0

const setIommu = ({ vfioIoas }: IommufdContext, model: number): number => {
  if (model !== VFIO_TYPE1_IOMMU && model !== VFIO_TYPE1v2_IOMMU) return -ERRNO.EINVAL
  if (vfioIoas === undefined) return -ERRNO.ENODEV
  // v1 lets clients unmap in the middle, which large pages do not.
  return model === VFIO_TYPE1_IOMMU ? vfioIoas.iopt.disableLargePages() : 0
}

const mapDma = (context: IommufdContext, caller: Caller, arg: IoctlArg): number => {
  const { size: min } = vfio_iommu_type1_dma_map
  const map = copyIn(vfio_iommu_type1_dma_map, arg, min)
  if (map === undefined) return -ERRNO.EFAULT
  const known = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE
  if (map.argsz < min || (map.flags & ~known) !== 0) return -ERRNO.EINVAL
  const ioas = context.vfioIoas
  if (ioas === undefined) return -ERRNO.ENODEV
  const isWritable = (map.flags & VFIO_DMA_MAP_FLAG_WRITE) !== 0
  const isReadable = (map.flags & VFIO_DMA_MAP_FLAG_READ) !== 0
  const memory = { address: map.vaddr, length: map.size }
  const slice = userPages(context, caller, memory, isWritable)
  if (typeof slice === 'number') return slice
  const access =
    (isReadable ? IOMMU_IOAS_MAP_READABLE : 0) | (isWritable ? IOMMU_IOAS_MAP_WRITEABLE : 0)
  const iova = ioas.iopt.map([slice], map.size, { iova: map.iova, access })
  slice.pages.put()
  return iova < 0n ? Number(iova) : 0
}

const unmapDma = ({ vfioIoas, machine }: IommufdContext, arg: IoctlArg): number => {
  const { size: min } = vfio_iommu_type1_dma_unmap
  const unmap = copyIn(vfio_iommu_type1_dma_unmap, arg, min)
  if (unmap === undefined) return -ERRNO.EFAULT
  if (unmap.argsz < min || (unmap.flags & ~VFIO_DMA_UNMAP_FLAG_ALL) !== 0) return -ERRNO.EINVAL
  if (vfioIoas === undefined) return -ERRNO.ENODEV
  const { iopt } = vfioIoas
  const isAll = (unmap.flags & VFIO_DMA_UNMAP_FLAG_ALL) !== 0
  if (isAll && (unmap.iova !== 0n || unmap.size !== 0n)) return -ERRNO.EINVAL
  if (!isAll && !iopt.usesLargePages) {
    const cut = cutAround(iopt, unmap.iova, unmap.size)
    if (cut < 0) return cut
  }
  const done = isAll
    ? iopt.unmap({ start: 0n, last: U64_MAX })
    : unmapRange(iopt, unmap.iova, unmap.size)
  const isRefused = done.bytes === 0n && !isAll && !emptyUnmapSucceeds(machine.kernelVersion)
  const answer = done.answer === 0 && isRefused ? -ERRNO.ENOENT : done.answer
  // What was unmapped is said even when the rest was refused.
  const copied = copyOut(arg, vfio_iommu_type1_dma_unmap.encode({ ...unmap, size: done.bytes }))
  return copied < 0 ? copied : answer
}

const cutAround = (iopt: IoPagetable, iova: bigint, size: bigint): number => {
  const last = BigInt.asUintN(64, iova + size - 1n)
  const cut = iopt.cutAfter(last)
  return cut < 0 || iova === 0n ? cut : iopt.cutAfter(iova - 1n)
}

const unmapRange = (iopt: IoPagetable, iova: bigint, size: bigint) => {
  if (size === 0n) return { answer: -ERRNO.EINVAL, bytes: 0n }
  const last = iova + size - 1n
  if (last > U64_MAX) return { answer: -ERRNO.EOVERFLOW, bytes: 0n }
  return iopt.unmap({ start: iova, last })
}

/** Unmapping nothing was ENOENT until 6.18, and the stable kernels from 6.12.59 and 6.17.9. */
const emptyUnmapSucceeds = (version: string): boolean => {
  if (isAtLeast(version, '6.18')) return true
  const [, minor, patch] = version.split('.').map(Number)
  if (minor === 12) return patch === undefined || patch >= 59
  return minor === 17 && patch !== undefined && patch >= 9
}
