/** The requests of a container that has the type1 backend. */

import {
  VFIO_IOMMU_DIRTY_PAGES,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_UNMAP_DMA,
} from '../../../abi/container.ts'
import { ERRNO } from '../../../base/errno.ts'
import type { IoctlArg } from '../../../kernel/port.ts'
import type { Caller } from '../file/open-file.ts'
import { dirtyPages } from './dirty-pages.ts'
import { getInfo } from './info.ts'
import { mapDma } from './map.ts'
import type { Type1 } from './type1.ts'
import { unmapDma } from './unmap.ts'

export const type1Ioctl = (
  type1: Type1,
  caller: Caller,
  request: number,
  arg: IoctlArg,
): number => {
  switch (request) {
    case VFIO_IOMMU_GET_INFO.number:
      return getInfo(type1, arg)
    case VFIO_IOMMU_MAP_DMA.number:
      return mapDma(type1, caller, arg)
    case VFIO_IOMMU_UNMAP_DMA.number:
      return unmapDma(type1, caller, arg)
    case VFIO_IOMMU_DIRTY_PAGES.number:
      return dirtyPages(type1, arg)
    default:
      return -ERRNO.ENOTTY
  }
}
