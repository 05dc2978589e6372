/** What the names of drivers say: vfio-pci and its variants, such as mlx5-vfio-pci, have vfio in theirs. */

export const VFIO_PCI = 'vfio-pci'

export const isVfioDriver = (name: string): boolean => name.includes('vfio')

/** driver_managed_dma: the driver leaves the DMA of the group to its owner. */
export const managesDma = (name: string): boolean =>
  isVfioDriver(name) || name === 'pcieport' || name === 'pci-stub'
