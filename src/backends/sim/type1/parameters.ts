/** The parameters of the module vfio_iommu_type1, which root may change at any time. */

export interface Type1Parameters {
  /** Mappings per container; a container keeps the number it was opened with. */
  dmaEntryLimit: number
  /** Whether it takes groups whose interrupts are not isolated. */
  allowsUnsafeInterrupts: boolean
}
