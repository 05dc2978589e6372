/** Mediated devices in sysfs: /sys/class/mdev_bus for their parents, /sys/bus/mdev for them. */

import { attribute, type Directory, directory, line, link, type Node } from '../file/vfs.ts'
import type { Machine } from '../machine/machine.ts'
import type { Mdev } from '../machine/mdev-bus.ts'
import type { MdevParentSpec, MdevTypeSpec } from '../spec/machine-spec.ts'
import { vfioDev } from './vfio-dev.ts'

const parentPath = ({ kind, name }: MdevParentSpec): string =>
  `/sys/devices/virtual/${kind}/${name}`

export const mdevClass = ({ mdev }: Machine): Directory =>
  directory(() =>
    Object.fromEntries(mdev.parents.map((parent) => [parent.name, () => link(parentPath(parent))])),
  )

export const mdevBus = ({ mdev }: Machine): Directory =>
  directory(() => ({
    devices: () =>
      directory(() =>
        Object.fromEntries(
          [...mdev.mdevs.values()].map(({ uuid, sysfsPath }) => [uuid, () => link(sysfsPath)]),
        ),
      ),
    drivers: () =>
      directory(() =>
        Object.fromEntries(mdev.parents.map(({ kind }) => [kind, () => driver(mdev.mdevs, kind)])),
      ),
  }))

const driver = (mdevs: ReadonlyMap<string, Mdev>, kind: string): Directory =>
  directory(() =>
    Object.fromEntries(
      [...mdevs.values()]
        .filter(({ parent }) => parent.kind === kind)
        .map(({ uuid, sysfsPath }) => [uuid, () => link(sysfsPath)]),
    ),
  )

/** /sys/devices/virtual: one directory per kind of parent. */
export const mdevDevices = (machine: Machine): Record<string, () => Directory> => {
  const { parents } = machine.mdev
  const ofKind = (kind: string): Record<string, () => Node> =>
    Object.fromEntries(
      parents
        .filter((parent) => parent.kind === kind)
        .map((parent) => [parent.name, () => parentDirectory(machine, parent)]),
    )
  return Object.fromEntries(parents.map(({ kind }) => [kind, () => directory(() => ofKind(kind))]))
}

const parentDirectory = (machine: Machine, parent: MdevParentSpec): Directory =>
  directory(() => {
    const nodes: Record<string, () => Node> = {
      mdev_supported_types: () =>
        directory(() =>
          Object.fromEntries(
            parent.types.map((type) => [type.id, () => typeOf(machine, parent, type)]),
          ),
        ),
    }
    for (const mdev of machine.mdev.mdevs.values())
      if (mdev.parent === parent) nodes[mdev.uuid] = () => instance(machine, mdev)
    return nodes
  })

const typeOf = ({ mdev }: Machine, parent: MdevParentSpec, type: MdevTypeSpec): Directory =>
  directory(() => ({
    create: () => attribute(undefined, (data) => mdev.create(parent, type, line(data))),
    available_instances: () => attribute(() => `${mdev.available(parent, type)}\n`),
    name: () => attribute(() => `${type.name}\n`),
    device_api: () => attribute(() => 'vfio-pci\n'),
    devices: () =>
      directory(() =>
        Object.fromEntries(
          [...mdev.mdevs.values()]
            .filter((made) => made.type === type && made.parent === parent)
            .map(({ uuid, sysfsPath }) => [uuid, () => link(sysfsPath)]),
        ),
      ),
  }))

const instance = ({ mdev }: Machine, made: Mdev): Directory =>
  directory(() => ({
    driver: () => link(`/sys/bus/mdev/drivers/${made.parent.kind}`),
    iommu_group: () => link(`/sys/kernel/iommu_groups/${made.iommuGroup.id}`),
    mdev_type: () => link(`${parentPath(made.parent)}/mdev_supported_types/${made.type.id}`),
    remove: () => attribute(undefined, (data) => mdev.remove(made, data)),
    subsystem: () => link('/sys/bus/mdev'),
    'vfio-dev': () => vfioDev(made.device, made.sysfsPath),
  }))
