/**
 * What the host has, read from sysfs through the port, and the three writes that move a PCI device
 * between drivers. The files are those of Documentation/ABI: sysfs-kernel-iommu_groups,
 * sysfs-bus-pci, sysfs-bus-vfio-mdev.
 */

import { ERRNO } from '../base/errno.ts'
import { VfiodError } from '../base/error.ts'
import { printable } from '../base/printable.ts'
import type { Kernel } from './port.ts'
import { accept, refusal } from './refusal.ts'

const GROUPS = '/sys/kernel/iommu_groups'
const PCI = '/sys/bus/pci'
const MDEV = '/sys/bus/mdev/devices'

const PCI_ADDRESS = /^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

export type Bus = 'pci' | 'mdev' | 'other'

export interface HostDevice {
  /** A PCI address or an mdev UUID; on another bus the kernel's name. */
  readonly name: string
  readonly bus: Bus
  /** The kernel's name of the bus: `pci`, `mdev`, `platform`. */
  readonly busName: string
  readonly group: number
  /** The bound driver; undefined without one. */
  readonly driver: string | undefined
  /** PCI only: 24-bit class code and ids. */
  readonly pci:
    | { readonly vendor: number; readonly device: number; readonly class: number }
    | undefined
  /** mdev only: the type it was created from. */
  readonly mdevType: string | undefined
  /** SR-IOV: the PF of a VF. */
  readonly physicalFunction: string | undefined
  /** SR-IOV: the VFs of a PF, in their order. */
  readonly virtualFunctions: readonly string[]
  /** PCI only: the ways to reset it that there are. */
  readonly resets: {
    /** Of the function alone. */
    readonly byItself: boolean
    /** Of its bus, by the bridge above it. */
    readonly byBus: boolean
  }
}

const NO_RESETS: HostDevice['resets'] = { byItself: false, byBus: false }

/** Which bus a device name belongs to, by its form. */
export function busOf(name: string): Bus {
  if (PCI_ADDRESS.test(name)) return 'pci'
  return UUID.test(name) ? 'mdev' : 'other'
}

/** Not there, or not of that kind: the other errnos say that it cannot be told. */
const ABSENT = (['ENOENT', 'ENOTDIR', 'EINVAL', 'ENODEV', 'ENXIO'] as const).map(
  (name) => -ERRNO[name],
)

/** What a file, directory or link of sysfs says; undefined where there is none. */
function present<T>(answer: T | number, path: string): T | undefined {
  if (typeof answer !== 'number') return answer
  if (ABSENT.includes(answer)) return undefined
  throw refusal('read sysfs', answer, `read ${path}`)
}

/** The numbers of every IOMMU group, ascending; none on a host without an IOMMU. */
export async function groupNumbers(kernel: Kernel): Promise<number[]> {
  const names = present(await kernel.readDir(GROUPS), GROUPS)
  if (names === undefined) return []
  return names.map(Number).sort((a, b) => a - b)
}

/** sysfs-class-iommu: an entry for each IOMMU that a driver serves. */
const IOMMUS = '/sys/class/iommu'

/** The likely cause of a host without groups, and what to do. */
export async function whyNoGroups(kernel: Kernel): Promise<string> {
  if (typeof (await kernel.readDir(GROUPS)) === 'number')
    return `${GROUPS} is not there: the kernel has no IOMMU support, or sysfs is out of the daemon's sight`
  const iommus = await kernel.readDir(IOMMUS)
  return typeof iommus === 'number' || iommus.length === 0
    ? 'the kernel drives no IOMMU: switch on VT-d, AMD-Vi or the SMMU in the firmware, and boot an Intel host with intel_iommu=on'
    : `no device is behind ${iommus.join(' and ')}`
}

/** The devices of a group, by name; undefined for a group that does not exist. */
export async function groupDevices(kernel: Kernel, group: number): Promise<string[] | undefined> {
  const path = `${GROUPS}/${group}/devices`
  return present(await kernel.readDir(path), path)?.sort()
}

/** The last part of what a link says; undefined where there is none. */
async function linked(kernel: Kernel, path: string): Promise<string | undefined> {
  const link = present(await kernel.readLink(path), path)
  return link?.slice(link.lastIndexOf('/') + 1)
}

/** sysfs-kernel-iommu_groups: the name that the maker of the group gave it; undefined without one. */
export const groupName = (kernel: Kernel, group: number): Promise<string | undefined> =>
  readText(kernel, `${GROUPS}/${group}/name`)

async function readText(kernel: Kernel, path: string): Promise<string | undefined> {
  const bytes = await kernel.readFile(path)
  return typeof bytes === 'number' ? undefined : new TextDecoder().decode(bytes).trim()
}

const directoryOf = (name: string): string =>
  busOf(name) === 'mdev' ? `${MDEV}/${name}` : `${PCI}/devices/${name}`

/** One device that is in an IOMMU group; undefined when there is none of that name. */
export async function hostDevice(kernel: Kernel, name: string): Promise<HostDevice | undefined> {
  const bus = busOf(name)
  if (bus === 'other') return undefined
  const directory = directoryOf(name)
  const group = await linked(kernel, `${directory}/iommu_group`)
  if (group === undefined) return undefined
  return {
    name,
    bus,
    busName: bus,
    group: Number(group),
    driver: await linked(kernel, `${directory}/driver`),
    pci: bus === 'pci' ? await pciIds(kernel, directory) : undefined,
    mdevType: bus === 'mdev' ? await linked(kernel, `${directory}/mdev_type`) : undefined,
    physicalFunction: bus === 'pci' ? await linked(kernel, `${directory}/physfn`) : undefined,
    ...(bus === 'pci'
      ? await listed(kernel, directory)
      : { virtualFunctions: [], resets: NO_RESETS }),
  }
}

/** A device that a group lists, on whichever bus: the kernel counts them all. */
export async function memberDevice(
  kernel: Kernel,
  group: number,
  name: string,
): Promise<HostDevice | undefined> {
  if (busOf(name) !== 'other') return hostDevice(kernel, name)
  const directory = `${GROUPS}/${group}/devices/${name}`
  return {
    name,
    bus: 'other',
    busName: (await linked(kernel, `${directory}/subsystem`)) ?? 'unknown',
    group,
    driver: await linked(kernel, `${directory}/driver`),
    pci: undefined,
    mdevType: undefined,
    physicalFunction: undefined,
    virtualFunctions: [],
    resets: NO_RESETS,
  }
}

/** What a look at the names in the directory of a PCI device tells. */
async function listed(
  kernel: Kernel,
  directory: string,
): Promise<Pick<HostDevice, 'virtualFunctions' | 'resets'>> {
  const names = await kernel.readDir(directory)
  if (typeof names === 'number') return { virtualFunctions: [], resets: NO_RESETS }
  const above = await bridgeAbove(kernel, directory)
  return {
    virtualFunctions: await virtualFunctions(kernel, directory, names),
    resets: {
      // sysfs-bus-pci: the file is there where the kernel knew a way when it found the function.
      byItself: names.includes('reset') && (await resetsAlone(kernel, directory, above)),
      byBus: above !== undefined,
    },
  }
}

/** sysfs-bus-pci `reset_method` (5.15): by its bus a function is reset only while it is alone there. */
async function resetsAlone(
  kernel: Kernel,
  directory: string,
  above: string | undefined,
): Promise<boolean> {
  const methods = (await readText(kernel, `${directory}/reset_method`))?.split(/\s+/)
  if (above === undefined || methods?.some((method) => method !== 'bus') !== false) return true
  const names = await kernel.readDir(`${PCI}/devices/${above}`)
  return typeof names === 'number' || names.filter((name) => PCI_ADDRESS.test(name)).length === 1
}

/** The link of a device in parts: the bridges above it, from the root down, and then the device. */
async function wayTo(kernel: Kernel, directory: string): Promise<string[]> {
  const link = await kernel.readLink(directory)
  return typeof link === 'number' ? [] : link.split('/')
}

/** The bridge whose bus a device is on; undefined on a root bus, which nothing can reset. */
async function bridgeAbove(kernel: Kernel, directory: string): Promise<string | undefined> {
  const above = (await wayTo(kernel, directory)).at(-2)
  return above !== undefined && PCI_ADDRESS.test(above) ? above : undefined
}

/**
 * Every PCI device that a reset of the bus of a device hits: those on the bus, and what is behind
 * bridges there. Undefined where no bridge is above it.
 */
export async function onBusOf(kernel: Kernel, name: string): Promise<string[] | undefined> {
  const above = await bridgeAbove(kernel, `${PCI}/devices/${name}`)
  if (above === undefined) return undefined
  const names = await kernel.readDir(`${PCI}/devices`)
  if (typeof names === 'number') return undefined
  const ways = await Promise.all(names.map((each) => wayTo(kernel, `${PCI}/devices/${each}`)))
  return names.filter((_name, n) => ways[n]?.slice(0, -1).includes(above)).sort()
}

/** sysfs-bus-pci: virtfn0 and so on, each a link to a VF. */
async function virtualFunctions(
  kernel: Kernel,
  directory: string,
  names: readonly string[],
): Promise<string[]> {
  const links = names
    .filter((name) => /^virtfn\d+$/.test(name))
    .sort((a, b) => Number(a.slice(6)) - Number(b.slice(6)))
  const functions = await Promise.all(links.map((name) => linked(kernel, `${directory}/${name}`)))
  return functions.filter((name) => name !== undefined)
}

async function pciIds(kernel: Kernel, directory: string): Promise<HostDevice['pci']> {
  const number = async (file: string) =>
    Number((await readText(kernel, `${directory}/${file}`)) ?? 0)
  return {
    vendor: await number('vendor'),
    device: await number('device'),
    class: await number('class'),
  }
}

/** Whether a PCI driver is loaded. */
export async function hasPciDriver(kernel: Kernel, driver: string): Promise<boolean> {
  return typeof (await kernel.readDir(`${PCI}/drivers/${driver}`)) !== 'number'
}

async function write(
  kernel: Kernel,
  operation: 'write driver_override' | 'write unbind' | 'write drivers_probe',
  { path, data, act }: { readonly path: string; readonly data: string; readonly act: string },
): Promise<void> {
  const answer = await kernel.writeFile(path, data)
  if (answer >= 0) return
  const { message, details } = refusal(operation, answer, act)
  throw new VfiodError('BIND_FAILED', message, details)
}

/** What driver_override says: the only driver that may bind, or undefined for the usual rules. */
export async function driverOverride(kernel: Kernel, name: string): Promise<string | undefined> {
  const text = await readText(kernel, `${PCI}/devices/${name}/driver_override`)
  return text === undefined || text === '(null)' || text === '' ? undefined : text
}

/** Let only this driver bind to the device; undefined clears it. */
export const setDriverOverride = (
  kernel: Kernel,
  name: string,
  driver: string | undefined,
): Promise<void> =>
  write(kernel, 'write driver_override', {
    path: `${PCI}/devices/${name}/driver_override`,
    data: `${driver ?? ''}\n`,
    act: `set driver_override of ${name}`,
  })

/** Take the device from its driver. Sleeps for as long as the driver needs to let go. */
export const unbindDriver = (kernel: Kernel, name: string, driver: string): Promise<void> =>
  write(kernel, 'write unbind', {
    path: `${PCI}/drivers/${driver}/unbind`,
    data: name,
    act: `unbind ${name} from ${driver}`,
  })

/** sysfs-bus-pci: how many a physical function can have; undefined for other devices. */
export async function totalVirtualFunctions(
  kernel: Kernel,
  name: string,
): Promise<number | undefined> {
  const text = await readText(kernel, `${PCI}/devices/${name}/sriov_totalvfs`)
  return text === undefined ? undefined : Number(text)
}

/** Have its driver make or remove them. Sleeps for as long as one that goes is in use. */
export async function setVirtualFunctions(
  kernel: Kernel,
  name: string,
  count: number,
): Promise<void> {
  const answer = await kernel.writeFile(`${PCI}/devices/${name}/sriov_numvfs`, String(count))
  accept('write sriov_numvfs', answer, `set the virtual functions of ${name} to ${count}`)
}

/** Let the kernel find a driver for a device that has none. */
export const probeDriver = (kernel: Kernel, name: string): Promise<void> =>
  write(kernel, 'write drivers_probe', {
    path: `${PCI}/drivers_probe`,
    data: name,
    act: `probe a driver for ${name}`,
  })

/** The character device of a device that vfio owns; undefined where there is none (before 6.6). */
export async function cdevOf(kernel: Kernel, name: string): Promise<string | undefined> {
  const names = await kernel.readDir(`${directoryOf(name)}/vfio-dev`)
  const [cdev] = typeof names === 'number' ? [] : names
  return cdev === undefined ? undefined : `/dev/vfio/devices/${cdev}`
}

/** The command name of a process; undefined when it is gone. */
export const commandOf = async (kernel: Kernel, pid: number): Promise<string | undefined> => {
  const comm = await readText(kernel, `/proc/${pid}/comm`)
  return comm === undefined ? undefined : printable(comm)
}
