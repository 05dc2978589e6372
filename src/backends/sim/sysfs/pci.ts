/** /sys/bus/pci and the functions below /sys/devices: what they are, and which driver has them. */

import { ERRNO } from '../../../base/errno.ts'
import type { PciFunction } from '../devices/pci/pci-function.ts'
import { attribute, type Directory, directory, line, link, type Node } from '../file/vfs.ts'
import type { Machine } from '../machine/machine.ts'
import { hostParts } from './host-parts.ts'
import { vfioDev } from './vfio-dev.ts'

const DRIVERS = '/sys/bus/pci/drivers'
/** An attribute holds at most a page, with the newline and the end. */
const OVERRIDE_MAX = 4096 - 1

export const pciBus = (machine: Machine): Directory =>
  directory(() => ({
    devices: () =>
      directory(() =>
        Object.fromEntries(
          [...machine.pci.functions.values()].map((fn) => [fn.name, () => link(fn.sysfsPath)]),
        ),
      ),
    drivers: () =>
      directory(() =>
        Object.fromEntries(machine.pci.drivers.map((name) => [name, () => driver(machine, name)])),
      ),
    drivers_probe: () => attribute(undefined, (data) => machine.pci.probe(line(data))),
    drivers_autoprobe: () => attribute(() => '1\n'),
    rescan: () => attribute(undefined, (data) => machine.hotplug.rescan(data)),
  }))

const driver = ({ pci }: Machine, name: string): Directory =>
  directory(() => {
    const bound = [...pci.functions.values()].filter((fn) => fn.shownDriver === name)
    const nodes: Record<string, () => Node> = {
      bind: () => attribute(undefined, (data) => pci.bind(name, line(data))),
      unbind: () => attribute(undefined, (data) => pci.unbind(name, line(data))),
      uevent: () => attribute(undefined),
      new_id: () => attribute(undefined, (data) => pci.newId(name, data)),
      remove_id: () => attribute(undefined, (data) => pci.removeId(name, data)),
    }
    for (const fn of bound) nodes[fn.name] = () => link(fn.sysfsPath)
    return nodes
  })

/** /sys/devices/pci0000:00 and so on, with what is behind a bridge in the bridge's directory. */
export const pciDevices = (machine: Machine): Record<string, () => Directory> => {
  const functions = [...machine.pci.functions.values()]
  const rootOf = (fn: PciFunction): string => fn.sysfsPath.split('/')[3] ?? ''
  const below = (parent: string | undefined, root: string): Record<string, () => Node> =>
    Object.fromEntries(
      functions
        .filter((fn) => fn.spec.parent === parent && rootOf(fn) === root)
        .map((fn) => [
          fn.name,
          () => directory(() => ({ ...attributes(machine, fn), ...below(fn.name, root) })),
        ]),
    )
  const roots = new Set(functions.map(rootOf))
  return Object.fromEntries(
    [...roots].map((root) => [root, () => directory(() => below(undefined, root))]),
  )
}

const hexDigits = (value: number, digits: number): string =>
  `0x${value.toString(16).padStart(digits, '0')}\n`

const attributes = (machine: Machine, fn: PciFunction): Record<string, () => Node> => {
  const { spec } = fn
  const device = machine.pci.vfioOf(fn)
  const nodes: Record<string, () => Node> = {
    vendor: () => attribute(() => hexDigits(spec.vendor, 4)),
    device: () => attribute(() => hexDigits(spec.device, 4)),
    subsystem_vendor: () => attribute(() => hexDigits(spec.subsystemVendor, 4)),
    subsystem_device: () => attribute(() => hexDigits(spec.subsystemDevice, 4)),
    class: () => attribute(() => hexDigits(spec.classCode, 6)),
    revision: () => attribute(() => hexDigits(spec.revision, 2)),
    resource: () => attribute(() => resources(fn)),
    driver_override: () =>
      attribute(
        () => `${fn.driverOverride ?? '(null)'}\n`,
        (data) => setOverride(fn, data),
      ),
    ...(fn.iommuGroup.members.has(fn) && {
      iommu_group: () => link(`/sys/kernel/iommu_groups/${fn.iommuGroup.id}`),
    }),
    subsystem: () => link('/sys/bus/pci'),
  }
  const bound = fn.shownDriver
  if (bound !== undefined) nodes.driver = () => link(`${DRIVERS}/${bound}`)
  if (spec.hasReset) {
    nodes.reset = () => attribute(undefined, () => machine.pci.locked(fn, () => fn.reset()))
    nodes.reset_method = () => attribute(() => 'flr\n')
  }
  for (const [name, node] of Object.entries(sriov(machine, fn))) nodes[name] = node
  nodes.rescan = () => attribute(undefined, (data) => machine.hotplug.rescan(data, fn))
  // The first write takes the file itself away, however long the rest waits.
  if (!fn.isLeaving)
    nodes.remove = () => attribute(undefined, (data) => machine.hotplug.remove(fn, data))
  for (const [name, node] of Object.entries(hostParts(machine, fn))) nodes[name] = node
  if (device?.isRegistered) nodes['vfio-dev'] = () => vfioDev(device, fn.sysfsPath)
  return nodes
}

/** The files of SR-IOV: those of a physical function, or the link of a virtual one. */
const sriov = (machine: Machine, fn: PciFunction): Record<string, () => Node> => {
  const { spec, virtualFunctions, physicalFunction } = fn
  if (physicalFunction) return { physfn: () => link(physicalFunction.sysfsPath) }
  if (!spec.sriov) return {}
  const { totalVfs, offset, stride, vf } = spec.sriov
  const number = (value: number) => () => attribute(() => `${value}\n`)
  return {
    sriov_totalvfs: number(totalVfs),
    sriov_numvfs: () =>
      attribute(
        () => `${virtualFunctions.length}\n`,
        (data) => machine.hotplug.setVfs(fn, data),
      ),
    sriov_offset: number(offset),
    sriov_stride: number(stride),
    sriov_vf_device: () => attribute(() => `${vf.device.toString(16)}\n`),
    sriov_drivers_autoprobe: number(1),
    ...Object.fromEntries(
      virtualFunctions.map(({ sysfsPath }, n) => [`virtfn${n}`, () => link(sysfsPath)]),
    ),
  }
}

const setOverride = (fn: PciFunction, data: string): number => {
  if (data.length >= OVERRIDE_MAX) return -ERRNO.EINVAL
  const name = line(data)
  fn.driverOverride = name === '' ? undefined : name
  return 0
}

const IORESOURCE_IO = 0x4_0101n
const IORESOURCE_MEMORY = 0x4_0200n
const SHOWN_RESOURCES = 13

/** Start, last and flags of each BAR; the addresses are the sim's own. */
const resources = ({ spec }: PciFunction): string => {
  const rows = Array.from({ length: SHOWN_RESOURCES }, () => [0n, 0n, 0n])
  for (const { index, size, kind } of spec.bars) {
    const start = 0xfe00_0000n + BigInt(index) * 0x10_0000n
    rows[index] = [start, start + size - 1n, kind === 'io' ? IORESOURCE_IO : IORESOURCE_MEMORY]
  }
  const number = (value: bigint): string => `0x${value.toString(16).padStart(16, '0')}`
  return rows.map((row) => `${row.map(number).join(' ')}\n`).join('')
}
