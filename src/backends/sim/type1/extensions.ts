/** VFIO_CHECK_EXTENSION of the type1 backend, before and after a container has it. */

import {
  VFIO_DMA_CC_IOMMU,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1_NESTING_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  VFIO_UNMAP_ALL,
  VFIO_UPDATE_VADDR,
} from '../../../abi/container.ts'
import type { MachineSpec } from '../spec/machine-spec.ts'
import { isAtLeast } from '../spec/version.ts'
import type { Type1 } from './type1.ts'

export const checkExtension = (
  extension: number,
  type1: Type1 | undefined,
  { kernelVersion }: MachineSpec,
): 0 | 1 => {
  switch (extension) {
    case VFIO_TYPE1_IOMMU:
    case VFIO_TYPE1v2_IOMMU:
      return 1
    case VFIO_TYPE1_NESTING_IOMMU:
      return isAtLeast(kernelVersion, '6.13') ? 0 : 1
    case VFIO_UNMAP_ALL:
      return isAtLeast(kernelVersion, '5.12') ? 1 : 0
    case VFIO_UPDATE_VADDR:
      return type1?.mayInvalidateVaddr ? 1 : 0
    case VFIO_DMA_CC_IOMMU:
      return type1?.isCacheCoherent ? 1 : 0
    default:
      return 0
  }
}
