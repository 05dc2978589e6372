/** The `vfio-dev` directory of a device that a vfio driver has: its number among vfio devices. */

import { attribute, type Directory, directory, link } from '../file/vfs.ts'
import type { VfioDevice } from '../vfio/vfio-device.ts'

/** The major number of /dev/vfio/devices/vfioN; whichever the kernel had free. */
const MAJOR = 511

export const vfioDev = ({ index, group }: VfioDevice, devicePath: string): Directory =>
  directory(() => ({
    [`vfio${index}`]: () =>
      directory(() => ({
        // Without an IOMMU there is no cdev.
        ...(!group.isNoIommu && { dev: () => attribute(() => `${MAJOR}:${index}\n`) }),
        device: () => link(devicePath),
      })),
  }))
