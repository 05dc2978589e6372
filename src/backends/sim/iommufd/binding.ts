/** A vfio device that is bound to an iommufd, whether hardware or the kernel does its DMA. */

import type { EmulatedDma } from '../iommu/emulated-dma.ts'

export interface Binding {
  /** The id of its object. */
  readonly id: number
  /** To an ioas or a hwpt, or from one to another: the id that is used then, or -errno. */
  attach(ptId: number): number
  /** Where its driver does its DMA. */
  readonly emulatedDma?: EmulatedDma
  /** Nothing happens to a device that is not attached. */
  detach(): void
  unbind(): void
}
