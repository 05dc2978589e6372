/** VFIO_IOMMU_GET_INFO of an iommufd: each capability is written as far as there is room for it. */

import {
  VFIO_IOMMU_INFO_CAPS,
  VFIO_IOMMU_INFO_PGSIZES,
  VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
  VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
  vfio_iommu_type1_info,
  vfio_iommu_type1_info_cap_iova_range,
  vfio_iommu_type1_info_dma_avail,
  vfio_iova_range,
} from '../../../abi/container.ts'
import { ERRNO } from '../../../base/errno.ts'
import { PAGE_SIZE, U64_MAX } from '../../../base/units.ts'
import type { IoctlArg } from '../../../kernel/port.ts'
import { argAfter, copyIn, copyOut } from '../core/user-memory.ts'
import type { IoPagetable } from './io-pagetable.ts'
import type { Ioas } from './ioas.ts'

const MIN = vfio_iommu_type1_info.offsets.cap_offset
const DMA_AVAIL_AT = vfio_iommu_type1_info.size
const IOVA_RANGE_AT = DMA_AVAIL_AT + 16
const NO_LIMIT = 0xffff_ffff

export const compatInfo = (ioasOf: () => Ioas | undefined, arg: IoctlArg): number => {
  const info = copyIn(vfio_iommu_type1_info, arg, MIN)
  if (info === undefined) return -ERRNO.EFAULT
  if (info.argsz < MIN) return -ERRNO.EINVAL
  const ioas = ioasOf()
  if (ioas === undefined) return -ERRNO.ENODEV

  const { argsz } = info
  const ranges = ioas.iopt.ranges.map(({ start, last }) =>
    vfio_iova_range.encode({ start, end: last }),
  )
  const rangesAt = IOVA_RANGE_AT + vfio_iommu_type1_info_cap_iova_range.size
  const total = rangesAt + ranges.length * vfio_iova_range.size
  const pieces: [at: number, bytes: Uint8Array, fits: boolean][] = [
    [DMA_AVAIL_AT, dmaAvail(argsz), argsz >= DMA_AVAIL_AT + vfio_iommu_type1_info_dma_avail.size],
    ...ranges.map((bytes, index): [number, Uint8Array, boolean] => {
      const at = rangesAt + index * vfio_iova_range.size
      return [at, bytes, argsz >= at + vfio_iova_range.size]
    }),
    [IOVA_RANGE_AT, iovaRange(ranges.length), argsz >= total],
  ]
  for (const [at, bytes, fits] of pieces) {
    const copied = fits ? copyOut(argAfter(arg, at), bytes) : 0
    if (copied < 0) return copied
  }
  const answer = vfio_iommu_type1_info.encode({
    argsz: total,
    flags: VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS,
    iova_pgsizes: pageSizesOf(ioas.iopt),
    cap_offset: argsz >= total ? vfio_iommu_type1_info.size : 0,
  })
  return copyOut(arg, answer, Math.min(argsz, vfio_iommu_type1_info.size))
}

/** It leads on to the ranges as soon as there is room for their beginning. */
const dmaAvail = (argsz: number): Uint8Array =>
  vfio_iommu_type1_info_dma_avail.encode({
    'header.id': VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
    'header.version': 1,
    'header.next': argsz >= IOVA_RANGE_AT ? IOVA_RANGE_AT : 0,
    avail: NO_LIMIT,
  })

const iovaRange = (count: number): Uint8Array =>
  vfio_iommu_type1_info_cap_iova_range.encode({
    'header.id': VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
    'header.version': 1,
    nr_iovas: count,
  })

const pageSizesOf = ({ domains, alignment }: IoPagetable): bigint => {
  const all = domains.reduce((bits, { iommu }) => bits & iommu.pageSizes, U64_MAX)
  const isFiner = (all & (PAGE_SIZE - 1n)) !== 0n
  const shown = isFiner ? (all & -PAGE_SIZE) | PAGE_SIZE : all
  return shown > alignment ? shown : alignment
}
