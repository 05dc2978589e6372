/** /sys/bus/platform: devices besides those of PCI that are in groups, and their drivers. */

import { attribute, type Directory, directory, line, link, type Node } from '../file/vfs.ts'
import type { Machine } from '../machine/machine.ts'
import type { PlatformDevice } from '../machine/platform-bus.ts'

const BUS = '/sys/bus/platform'

const links = (devices: Iterable<PlatformDevice>): Record<string, () => Node> =>
  Object.fromEntries([...devices].map(({ name, sysfsPath }) => [name, () => link(sysfsPath)]))

export const platformBus = ({ platform }: Machine): Directory =>
  directory(() => ({
    devices: () => directory(() => links(platform.devices.values())),
    drivers: () =>
      directory(() =>
        Object.fromEntries(
          platform.drivers.map((name) => [
            name,
            () =>
              directory(() => ({
                bind: () => attribute(undefined, (data) => platform.bind(name, line(data))),
                unbind: () => attribute(undefined, (data) => platform.unbind(name, line(data))),
                ...links([...platform.devices.values()].filter(({ driver }) => driver === name)),
              })),
          ]),
        ),
      ),
  }))

/** /sys/devices/platform. */
export const platformDevices = ({ platform }: Machine): Directory =>
  directory(() =>
    Object.fromEntries(
      [...platform.devices.values()].map((device) => [device.name, () => one(device)]),
    ),
  )

const one = ({ driver, iommuGroup }: PlatformDevice): Directory =>
  directory(() => ({
    iommu_group: () => link(`/sys/kernel/iommu_groups/${iommuGroup.id}`),
    subsystem: () => link(BUS),
    ...(driver !== undefined && { driver: () => link(`${BUS}/drivers/${driver}`) }),
  }))
