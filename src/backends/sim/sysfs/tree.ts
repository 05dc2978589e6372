/** The files of a simulated machine that vfiod reads and writes: /sys and /dev/vfio. */

import { Container } from '../container.ts'
import type { Machine } from '../machine-state.ts'
import { attribute, type Directory, directory, type Node } from '../vfs.ts'
import { iommuGroups } from './iommu-groups.ts'
import { mdevBus, mdevClass, mdevDevices } from './mdev.ts'
import { pciBus, pciDevices } from './pci.ts'

export const fileTree = (machine: Machine): Directory => {
  const sys = directory(() => ({
    bus: () => directory(() => ({ pci: () => pciBus(machine), mdev: () => mdevBus(machine) })),
    class: () => directory(() => ({ mdev_bus: () => mdevClass(machine) })),
    devices: () =>
      directory(() => ({
        ...pciDevices(machine),
        virtual: () => directory(() => mdevDevices(machine)),
      })),
    kernel: () => directory(() => ({ iommu_groups: () => iommuGroups(machine) })),
    module: () => directory(() => ({ vfio_iommu_type1: () => type1Module(machine) })),
  }))
  const dev = directory(() => ({ vfio: () => devVfio(machine) }))
  return directory(() => ({ sys: () => sys, dev: () => dev }))
}

const type1Module = ({ spec }: Machine): Directory =>
  directory(() => ({
    parameters: () =>
      directory(() => ({
        allow_unsafe_interrupts: () => attribute(() => 'N\n'),
        dma_entry_limit: () => attribute(() => `${spec.dmaEntryLimit}\n`),
      })),
  }))

const devVfio = ({ spec, vfio }: Machine): Directory =>
  directory(() => {
    const nodes: Record<string, () => Node> = {
      vfio: () => ({ kind: 'device node', open: () => new Container(spec) }),
    }
    for (const [id, group] of vfio.groups)
      nodes[id] = () => ({ kind: 'device node', open: () => group.open() })
    return nodes
  })
