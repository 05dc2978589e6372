/** VFIO_IOMMU_GET_INFO: page sizes, and a chain of capabilities where the caller has the room. */

import {
  VFIO_IOMMU_INFO_CAPS,
  VFIO_IOMMU_INFO_PGSIZES,
  VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
  VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION,
  VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
  vfio_iommu_type1_info,
  vfio_iommu_type1_info_cap_iova_range,
  vfio_iommu_type1_info_cap_migration,
  vfio_iommu_type1_info_dma_avail,
  vfio_iova_range,
} from '../../../abi/container.ts'
import { ERRNO } from '../../../base/errno.ts'
import type { IoctlArg } from '../../../kernel/port.ts'
import { capChain } from '../core/cap-chain.ts'
import { copyIn, copyOut } from '../core/user-memory.ts'
import { DIRTY_BITMAP_SIZE_MAX } from './dirty-report.ts'
import type { Type1 } from './type1.ts'

const MIN = vfio_iommu_type1_info.offsets.cap_offset

export const getInfo = (type1: Type1, arg: IoctlArg): number => {
  const info = copyIn(vfio_iommu_type1_info, arg, MIN)
  if (info === undefined) return -ERRNO.EFAULT
  if (info.argsz < MIN) return -ERRNO.EINVAL

  const { size } = vfio_iommu_type1_info
  const chain = capChain(size, capabilities(type1))
  const hasRoom = info.argsz >= size + chain.length
  const answer = vfio_iommu_type1_info.encode({
    argsz: hasRoom ? info.argsz : size + chain.length,
    flags: VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS,
    iova_pgsizes: type1.pageSizes,
    cap_offset: hasRoom ? size : 0,
  })
  return hasRoom
    ? copyOut(arg, Buffer.concat([answer, chain]))
    : copyOut(arg, answer, Math.min(info.argsz, size))
}

const capabilities = (type1: Type1): Uint8Array[] => {
  const migration = vfio_iommu_type1_info_cap_migration.encode({
    'header.id': VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION,
    'header.version': 1,
    pgsize_bitmap: type1.granule,
    max_dirty_bitmap_size: DIRTY_BITMAP_SIZE_MAX,
  })
  const dmaAvail = vfio_iommu_type1_info_dma_avail.encode({
    'header.id': VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
    'header.version': 1,
    avail: type1.dmaAvail,
  })
  if (type1.ranges.length === 0) return [migration, dmaAvail]
  const head = vfio_iommu_type1_info_cap_iova_range.encode({
    'header.id': VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
    'header.version': 1,
    nr_iovas: type1.ranges.length,
  })
  const ranges = type1.ranges.map(({ start, last }) => vfio_iova_range.encode({ start, end: last }))
  return [migration, dmaAvail, Buffer.concat([head, ...ranges])]
}
