/**
 * What the drivers of the host make of its functions: disks, network interfaces and consoles, below the
 * directory of each function, and their classes. They are there while such a driver has the function.
 */

import type { PciFunction } from '../devices/pci/pci-function.ts'
import { attribute, type Directory, directory, link, type Node } from '../file/vfs.ts'
import type { Machine } from '../machine/machine.ts'
import { isVfioDriver } from '../spec/drivers.ts'
import type { InterfaceSpec, VolumeSpec } from '../spec/host-spec.ts'

const VIRTUAL = '/sys/devices/virtual'

type Entries = Record<string, () => Node>

/** A device below a function, or a virtual one. */
interface Part {
  readonly class: 'block' | 'net' | 'graphics' | 'tty'
  readonly name: string
  /** Its directory. */
  readonly path: string
  readonly attributes: Entries
}

const isDriven = ({ shownDriver }: PciFunction): boolean =>
  shownDriver !== undefined && !isVfioDriver(shownDriver)

/** The number of every block device, whether or not it is there now. */
export const blockNumbers = ({ spec }: Machine): ReadonlyMap<string, string> => {
  const names = spec.functions.flatMap(({ disks = [] }) =>
    disks.flatMap(({ name, partitions }) => [name, ...partitions]),
  )
  const volumes = spec.host?.volumes ?? []
  return new Map([
    ...names.map((name, n): [string, string] => [name, `259:${n}`]),
    ...volumes.map(({ name }, n): [string, string] => [name, `253:${n}`]),
  ])
}

const text = (line: string) => () => attribute(() => `${line}\n`)

const blockPart = (machine: Machine, name: string, path: string, more: Entries = {}): Part => ({
  class: 'block',
  name,
  path,
  attributes: {
    dev: text(blockNumbers(machine).get(name) ?? ''),
    holders: () =>
      directory(() =>
        Object.fromEntries(
          (machine.spec.host?.volumes ?? [])
            .filter(({ on }) => on.includes(name))
            .map((volume) => [volume.name, () => link(`${VIRTUAL}/block/${volume.name}`)]),
        ),
      ),
    ...more,
  },
})

const interfacePart = (each: InterfaceSpec, folder: string): Part => ({
  class: 'net',
  name: each.name,
  path: `${folder}/${each.path}/${each.name}`,
  attributes: {
    flags: text(each.isUp ? '0x1003' : '0x1002'),
    operstate: text(each.isUp ? 'up' : 'down'),
    ...(each.master !== undefined && {
      master: () => link(`${VIRTUAL}/net/${each.master}`),
    }),
  },
})

const consolePart = (name: string, folder: string): Part => {
  const kind = name.startsWith('fb') ? 'graphics' : 'tty'
  return { class: kind, name, path: `${folder}/${kind}/${name}`, attributes: {} }
}

const partsOf = (machine: Machine, fn: PciFunction): Part[] => {
  if (!isDriven(fn)) return []
  const { disks = [], interfaces = [], consoles = [] } = fn.spec
  return [
    ...disks.flatMap(({ name, path, partitions }) => {
      const folder = `${fn.sysfsPath}/${path}/${name}`
      const parts = partitions.map((each, n) =>
        blockPart(machine, each, `${folder}/${each}`, { partition: text(`${n + 1}`) }),
      )
      return [blockPart(machine, name, folder), ...parts]
    }),
    ...interfaces
      .filter(({ isElsewhere }) => !isElsewhere)
      .map((each) => interfacePart(each, fn.sysfsPath)),
    ...consoles.map((name) => consolePart(name, fn.sysfsPath)),
  ]
}

const volumePart = (machine: Machine, { name, label }: VolumeSpec): Part =>
  blockPart(machine, name, `${VIRTUAL}/block/${name}`, {
    ...(label !== undefined && { dm: () => directory(() => ({ name: text(label) })) }),
  })

const virtualParts = (machine: Machine): Part[] => {
  const { functions, host } = machine.spec
  const masters = functions.flatMap(({ interfaces = [] }) =>
    interfaces.flatMap(({ master }) => master ?? []),
  )
  return [
    ...(host?.volumes ?? []).map((volume) => volumePart(machine, volume)),
    ...[...new Set(masters)].map(
      (name): Part => ({
        class: 'net',
        name,
        path: `${VIRTUAL}/net/${name}`,
        attributes: { flags: text('0x1403') },
      }),
    ),
  ]
}

/** The parts as a tree below a folder; a folder without parts is there where it is named. */
const treeOf = (parts: readonly Part[], folder: string, empty: readonly string[] = []): Entries => {
  const below = (path: string): Entries => {
    const own = parts.find((part) => part.path === path)?.attributes ?? {}
    const paths = [...parts.map((part) => part.path), ...empty]
    const names = paths
      .filter((each) => each.startsWith(`${path}/`))
      .map((each) => each.slice(path.length + 1).split('/')[0] ?? '')
    return {
      ...own,
      ...Object.fromEntries(
        [...new Set(names)].map((name) => [name, () => directory(() => below(`${path}/${name}`))]),
      ),
    }
  }
  return below(folder)
}

/** What a function has besides its attributes. */
export const hostParts = (machine: Machine, fn: PciFunction): Entries => {
  if (!isDriven(fn)) return {}
  const folders = (fn.spec.interfaces ?? []).map(({ path }) => `${fn.sysfsPath}/${path}`)
  return treeOf(partsOf(machine, fn), fn.sysfsPath, folders)
}

/** /sys/devices/virtual/block and net. */
export const virtualHostParts = (machine: Machine): Entries =>
  treeOf(virtualParts(machine), VIRTUAL)

const consoleNames = (machine: Machine): string[] =>
  [...machine.pci.functions.values()]
    .filter(isDriven)
    .flatMap(({ spec }) => [...(spec.consoles ?? [])])

/** /sys/class/block and the other classes of these parts. */
export const hostClasses = (machine: Machine): Entries => {
  const all = () => [
    ...[...machine.pci.functions.values()].flatMap((fn) => partsOf(machine, fn)),
    ...virtualParts(machine),
  ]
  const links = (kind: Part['class']): Entries =>
    Object.fromEntries(
      all()
        .filter((part) => part.class === kind)
        .map(({ name, path }) => [name, () => link(path)]),
    )
  const serial = () => ['tty0', ...consoleNames(machine).filter((name) => name.startsWith('tty'))]
  return {
    block: () => directory(() => links('block')),
    net: () => directory(() => links('net')),
    graphics: () => directory(() => links('graphics')),
    tty: () =>
      directory(() => ({
        ...links('tty'),
        console: () => directory(() => ({ active: text(serial().join(' ')) })),
      })),
    vtconsole: () => directory(() => virtualConsole(machine)),
  }
}

/** Drawn on the first framebuffer there is. */
const virtualConsole = (machine: Machine): Record<string, () => Directory> =>
  consoleNames(machine).some((name) => name.startsWith('fb'))
    ? {
        vtcon1: () => directory(() => ({ name: text('(M) frame buffer device'), bind: text('1') })),
      }
    : {}
