/** The files of a simulated machine that vfiod reads and writes: /sys, /dev/vfio, and of /proc who holds them. */

import { ERRNO } from '../../../base/errno.ts'
import { type Attribute, attribute, type Directory, directory, type Node } from '../file/vfs.ts'
import { IommufdFile } from '../iommufd/iommufd-file.ts'
import type { Machine } from '../machine/machine.ts'
import { VFIO_PCI } from '../spec/drivers.ts'
import type { VfioContainer } from '../spec/machine-spec.ts'
import type { Type1Parameters } from '../type1/parameters.ts'
import { CdevFile } from '../vfio/cdev-file.ts'
import { Container } from '../vfio/container.ts'
import type { VfioDevice } from '../vfio/vfio-device.ts'
import type { VfioRegistry } from '../vfio/vfio-registry.ts'
import { hostClasses, virtualHostParts } from './host-parts.ts'
import { iommuGroups } from './iommu-groups.ts'
import { mdevBus, mdevClass, mdevDevices } from './mdev.ts'
import { pciBus, pciDevices } from './pci.ts'
import { platformBus, platformDevices } from './platform.ts'
import { proc } from './proc.ts'
import { vfioClass, vfioGroups } from './vfio-class.ts'

export const fileTree = (machine: Machine): Directory => {
  const sys = directory(() => ({
    bus: () =>
      directory(() => ({
        pci: () => pciBus(machine),
        mdev: () => mdevBus(machine),
        platform: () => platformBus(machine),
      })),
    class: () =>
      directory(() => ({
        ...hostClasses(machine),
        mdev_bus: () => mdevClass(machine),
        vfio: () => vfioClass(machine),
      })),
    devices: () =>
      directory(() => ({
        ...pciDevices(machine),
        platform: () => platformDevices(machine),
        virtual: () =>
          directory(() => ({
            ...virtualHostParts(machine),
            ...mdevDevices(machine),
            vfio: () => vfioGroups(machine),
          })),
      })),
    kernel: () => directory(() => ({ iommu_groups: () => iommuGroups(machine) })),
    module: () => directory(() => modules(machine)),
  }))
  const dev = directory(() => ({
    iommu: () => ({ kind: 'device node', open: () => new IommufdFile(machine) }),
    vfio: () => devVfio(machine),
  }))
  return directory(() => ({ sys: () => sys, dev: () => dev, proc: () => proc(machine) }))
}

/** vfio_iommu_type1 is part of the kernel where it stands behind /dev/vfio/vfio. */
const modules = (machine: Machine): Record<string, () => Node> => ({
  vfio: () => vfioModule(machine),
  iommufd: () => iommufdModule(machine),
  ...(containerOf(machine) === 'type1' && { vfio_iommu_type1: () => type1Module(machine) }),
  ...(machine.spec.drivers.includes(VFIO_PCI) && { vfio_pci: () => vfioPciModule(machine) }),
})

/** A parameter that is a boolean, by its name in `module`. */
const toggle = <Key extends string>(module: Record<Key, boolean>, key: Key): Attribute =>
  attribute(
    () => (module[key] ? 'Y\n' : 'N\n'),
    (data) => {
      const value = kernelBoolean(data)
      if (value === undefined) return -ERRNO.EINVAL
      module[key] = value
      return 0
    },
  )

/** kstrtobool() looks at the first character, or at two. */
const kernelBoolean = (text: string): boolean | undefined => {
  if (/^([yt1]|on)/i.test(text)) return true
  return /^([nf0]|of)/i.test(text) ? false : undefined
}

const iommufdModule = ({ iommufd }: Machine): Directory =>
  directory(() => ({
    parameters: () =>
      directory(() => ({
        allow_unsafe_interrupts: () => toggle(iommufd, 'allowsUnsafeInterrupts'),
      })),
  }))

const vfioModule = ({ vfio }: Machine): Directory =>
  directory(() => ({
    parameters: () =>
      directory(() => ({
        enable_unsafe_noiommu_mode: () => toggle(vfio.parameters, 'enablesNoIommu'),
      })),
  }))

const vfioPciModule = ({ vfioPci }: Machine): Directory =>
  directory(() => ({
    parameters: () => directory(() => ({ enable_sriov: () => toggle(vfioPci, 'enablesSriov') })),
  }))

const type1Module = ({ type1 }: Machine): Directory =>
  directory(() => ({
    parameters: () =>
      directory(() => ({
        allow_unsafe_interrupts: () => toggle(type1, 'allowsUnsafeInterrupts'),
        dma_entry_limit: () =>
          attribute(
            () => `${type1.dmaEntryLimit}\n`,
            (data) => setLimit(type1, data),
          ),
      })),
  }))

/** An unsigned int in any base that C knows; -EINVAL for anything else. */
const setLimit = (type1: Type1Parameters, data: string): number => {
  const limit = Number(data.trim() === '' ? Number.NaN : data)
  if (!Number.isInteger(limit) || limit < 0) return -ERRNO.EINVAL
  if (limit > 0xffff_ffff) return -ERRNO.ERANGE
  type1.dmaEntryLimit = limit
  return 0
}

const containerOf = ({ spec }: Machine): VfioContainer => spec.vfioContainer ?? 'type1'

const containerNode = (machine: Machine): Record<string, () => Node> => {
  const { spec, type1, vfio } = machine
  switch (containerOf(machine)) {
    case 'type1':
      return {
        vfio: () => ({
          kind: 'device node',
          open: () => new Container(spec, type1, vfio.parameters),
        }),
      }
    case 'iommufd':
      // iommufd_fops_open(): as a container it charges each process, as type1 does.
      return { vfio: () => ({ kind: 'device node', open: () => new IommufdFile(machine, 'mm') }) }
    case 'none':
      return {}
  }
}

const devVfio = (machine: Machine): Directory =>
  directory(() => {
    const { vfio } = machine
    const nodes: Record<string, () => Node> = containerNode(machine)
    for (const group of vfio.groups.values())
      nodes[group.nodeName] = () => ({ kind: 'device node', open: () => group.open() })
    if (registered(vfio).length > 0) nodes.devices = () => devVfioDevices(vfio)
    return nodes
  })

/** Those with a cdev, which a device without an IOMMU does not have. */
const registered = ({ devices }: VfioRegistry): VfioDevice[] =>
  [...devices.values()].filter(({ isRegistered, group }) => isRegistered && !group.isNoIommu)

const devVfioDevices = (vfio: VfioRegistry): Directory =>
  directory(() => {
    const nodes: Record<string, () => Node> = {}
    for (const device of registered(vfio))
      nodes[`vfio${device.index}`] = () => ({
        kind: 'device node',
        open: () => new CdevFile(device),
      })
    return nodes
  })
