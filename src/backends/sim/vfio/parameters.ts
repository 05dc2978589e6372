/** The parameters of the module vfio, which root may change at any time. */
export interface VfioParameters {
  /** enable_unsafe_noiommu_mode */
  enablesNoIommu: boolean
}
