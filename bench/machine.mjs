/** The machine that every measured vfiod simulates, and the devices of it that are used. */
import { fileURLToPath } from 'node:url'

export const MACHINE_FILE = fileURLToPath(new URL('machine.toml', import.meta.url))

/** The one that migrates. */
export const MDEV = '83b8f4f2-509f-382f-3c1e-e6bfe0fa1001'

/** The one whose IOMMU is in the way of maps. */
export const PCI_DEVICE = '0000:00:04.0'
