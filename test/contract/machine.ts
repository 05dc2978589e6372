/**
 * A machine under test: what it has, and everything a test took from it. `cleanUp` gives back what
 * one test took, `restore` the drivers that the whole suite changed and the devices it made.
 */

import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { VFIO_TYPE1v2_IOMMU } from '../../src/abi/container.ts'
import type { Kernel, MapRequest } from '../../src/kernel/port.ts'
import { eventfdCreate, eventfdRead } from '../../src/os/eventfd.ts'
import { sys } from '../../src/os/libc.ts'
import { freeSegment, mapFd, memfdCreate, type Segment } from '../../src/os/memory.ts'
import { type Mode, TYPE1 } from '../modes.ts'
import { must } from './answers.ts'
import { getDeviceFd, setContainer, setIommu } from './calls.ts'

const O_RDWR = 2
const PCI = '/sys/bus/pci'
const MTTY = '/sys/class/mdev_bus/mtty/mdev_supported_types'
const MDEVS = '/sys/bus/mdev/devices'

export type MttyType = 'mtty-1' | 'mtty-2'

export interface Attached {
  readonly container: number
  readonly group: number
}

export interface Opened extends Attached {
  readonly device: number
}

/** proc(5): VmLck of this process in pages; the file has KiB. */
const ownLockedPages = (): bigint => {
  const status = readFileSync('/proc/self/status', 'utf8')
  return BigInt(status.match(/^VmLck:\s+(\d+) kB$/m)?.[1] ?? 0) / 4n
}

interface MachineOptions {
  readonly mode?: Mode
  readonly lockedPages?: () => bigint
}

export class Machine {
  readonly backend: 'sim' | 'linux'
  readonly mode: Mode
  readonly kernel: Kernel
  /** VmLck of the process that makes the calls, in pages. */
  readonly lockedPages: () => bigint
  readonly #settle: () => Promise<void>
  #fds: number[] = []
  #realFds: number[] = []
  /** The last fd that each device's group was opened as. */
  readonly #groups = new Map<string, number>()
  #segments: Segment[] = []
  readonly #deviceMemory = new Set<Segment>()
  /** Functions that the suite gave to vfio-pci, and the driver each had before. */
  readonly #bound = new Map<string, string | undefined>()
  readonly #mdevs = new Map<string, { readonly forSuite: boolean }>()

  constructor(
    backend: 'sim' | 'linux',
    kernel: Kernel,
    settle: () => Promise<void>,
    { mode = TYPE1, lockedPages = ownLockedPages }: MachineOptions = {},
  ) {
    this.backend = backend
    this.mode = mode
    this.kernel = kernel
    this.lockedPages = lockedPages
    this.#settle = settle
  }

  /** An iommufd stands in for a container. */
  get isCompat(): boolean {
    return this.mode.vfioContainer === 'iommufd'
  }

  /** Lets devices do what they do on their own, until the look finds something. */
  async until<T>(look: () => Promise<T | undefined> | T | undefined): Promise<T> {
    for (;;) {
      await this.#settle()
      const found = await look()
      if (found !== undefined) return found
    }
  }

  /** Closes the fd with the others after the test, unless the test did. */
  track(fd: number): number {
    if (fd >= 0) this.#fds.push(fd)
    return fd
  }

  async open(path: string): Promise<number> {
    return this.track(await this.kernel.open(path, O_RDWR))
  }

  async close(fd: number): Promise<number> {
    this.#fds = this.#fds.filter((open) => open !== fd)
    return this.kernel.close(fd)
  }

  async container(): Promise<number> {
    const path = this.backend === 'linux' ? this.mode.node : '/dev/vfio/vfio'
    return must(await this.open(path), 'open a container')
  }

  async group(name: string): Promise<number> {
    const path = `/dev/vfio/${await this.groupOf(name)}`
    const fd = must(await this.open(path), `open the group of ${name}`)
    this.#groups.set(name, fd)
    return fd
  }

  /** A container with the groups of these devices and the type1 backend. */
  async attached(names: readonly string[], model = VFIO_TYPE1v2_IOMMU): Promise<Attached> {
    const container = await this.container()
    const groups: number[] = []
    for (const name of names) {
      const group = await this.group(name)
      must(await setContainer(this.kernel, group, container), `set the container of ${name}`)
      groups.push(group)
    }
    must(await setIommu(this.kernel, container, model), 'set the IOMMU')
    return { container, group: groups[0] as number }
  }

  /** A container in which the limits of its groups hold: in an iommufd they do once a device of
   * each is open, which is when it is attached. */
  async mappable(names: readonly string[], model?: number): Promise<Attached> {
    const made = await this.attached(names, model)
    for (const name of this.isCompat ? names : [])
      await this.deviceOf(this.#groups.get(name) as number, name)
    return made
  }

  /** Closes the group of a device that `attached` opened. */
  async leave(name: string): Promise<void> {
    const fd = this.#groups.get(name)
    if (fd === undefined) throw new Error(`Cannot leave the group of ${name}: it is not open`)
    await this.close(fd)
  }

  async deviceOf(group: number, name: string): Promise<number> {
    return this.track(must(await getDeviceFd(this.kernel, group, name), `open ${name}`))
  }

  /** A device, open in a container of its own. */
  async opened(name: string): Promise<Opened> {
    const attached = await this.attached([name])
    return { ...attached, device: await this.deviceOf(attached.group, name) }
  }

  /** Shared memory of this process, as a file and as addresses. */
  async memory(length: number): Promise<{ readonly fd: number; readonly segment: Segment }> {
    const fd = must(memfdCreate('vfiod-contract', BigInt(length)), 'make memory')
    this.#realFds.push(fd)
    return { fd, segment: await this.mapped(fd, length) }
  }

  /** The same memory at another address. */
  async mapped(
    fd: number,
    length: number,
    access: 'read' | 'read-write' = 'read-write',
  ): Promise<Segment> {
    const segment = await mapFd(fd, { offset: 0n, length: BigInt(length), access })
    if (typeof segment === 'number') throw new Error(`Cannot map memory: ${segment}`)
    this.#segments.push(segment)
    return segment
  }

  /** Part of a device, unmapped after the test, unless the test did; or -errno. */
  async mmap(fd: number, request: MapRequest): Promise<Segment | number> {
    const segment = await this.kernel.mmap(fd, request)
    if (typeof segment !== 'number') this.#deviceMemory.add(segment)
    return segment
  }

  async munmap(segment: Segment): Promise<number> {
    this.#deviceMemory.delete(segment)
    return this.kernel.munmap(segment)
  }

  free(segment: Segment): void {
    this.#segments = this.#segments.filter((known) => known !== segment)
    freeSegment(segment)
  }

  eventfd(): number {
    const fd = must(eventfdCreate(), 'make an eventfd')
    this.#realFds.push(fd)
    return fd
  }

  /** How often the eventfd was signalled since the last look, once it was. */
  signals(fd: number): Promise<bigint> {
    return this.until(() => {
      const count = eventfdRead(fd)
      return typeof count === 'bigint' ? count : undefined
    })
  }

  /** Whether it was signalled, without waiting for it. */
  wasSignalled(fd: number): boolean {
    return typeof eventfdRead(fd) === 'bigint'
  }

  async text(path: string): Promise<string> {
    const bytes = await this.kernel.readFile(path)
    if (typeof bytes === 'number') throw new Error(`Cannot read ${path}: ${bytes}`)
    return new TextDecoder().decode(bytes).trim()
  }

  async names(path: string): Promise<string[]> {
    const names = await this.kernel.readDir(path)
    if (typeof names === 'number') throw new Error(`Cannot list ${path}: ${names}`)
    return names.sort()
  }

  /** What a link points to, without the way there; undefined when there is no link. */
  async linked(path: string): Promise<string | undefined> {
    const target = await this.kernel.readLink(path)
    return typeof target === 'number' ? undefined : target.slice(target.lastIndexOf('/') + 1)
  }

  async groupOf(name: string): Promise<number> {
    const bus = name.includes('.') ? `${PCI}/devices` : MDEVS
    const group = await this.linked(`${bus}/${name}/iommu_group`)
    if (group === undefined) throw new Error(`Cannot find the group of ${name}`)
    return Number(group)
  }

  driverOf(address: string): Promise<string | undefined> {
    return this.linked(`${PCI}/devices/${address}/driver`)
  }

  /** The PCI functions with these ids, by address. */
  async functions(vendor: number, device: number): Promise<string[]> {
    const found: string[] = []
    for (const address of await this.names(`${PCI}/devices`)) {
      const isVendor = Number(await this.text(`${PCI}/devices/${address}/vendor`)) === vendor
      const isDevice = Number(await this.text(`${PCI}/devices/${address}/device`)) === device
      if (isVendor && isDevice) found.push(address)
    }
    return found
  }

  /** Two of QEMU's edu devices, each alone in its group, bound to vfio-pci. */
  async edus(): Promise<[string, string]> {
    const [first, second] = await this.functions(0x1234, 0x11e8)
    if (first === undefined || second === undefined) throw new Error('Cannot find two edu devices')
    await this.bind(first)
    await this.bind(second)
    return [first, second]
  }

  /** A network card (e1000e) on the root bus, alone in its group, bound to vfio-pci. */
  async card(): Promise<string> {
    const found = await this.functions(0x8086, 0x10d3)
    const card = found.find((address) => address.startsWith('0000:00'))
    if (card === undefined) throw new Error('Cannot find a network card on the root bus')
    await this.bind(card)
    return card
  }

  /** Gives a function to vfio-pci until `restore`. */
  async bind(address: string): Promise<void> {
    const driver = await this.driverOf(address)
    if (driver === 'vfio-pci') return
    const device = `${PCI}/devices/${address}`
    this.#bound.set(address, driver)
    must(await this.kernel.writeFile(`${device}/driver_override`, 'vfio-pci'), 'override')
    if (driver) must(await this.kernel.writeFile(`${device}/driver/unbind`, address), 'unbind')
    must(await this.kernel.writeFile(`${PCI}/drivers_probe`, address), 'probe')
  }

  /** Takes a function from vfio-pci; the driver it had before gets it again. */
  async unbind(address: string): Promise<void> {
    const device = `${PCI}/devices/${address}`
    const before = this.#bound.get(address)
    this.#bound.delete(address)
    must(await this.kernel.writeFile(`${device}/driver_override`, '\n'), 'clear the override')
    if ((await this.driverOf(address)) === 'vfio-pci')
      must(await this.kernel.writeFile(`${device}/driver/unbind`, address), 'unbind')
    if (before) must(await this.kernel.writeFile(`${PCI}/drivers/${before}/bind`, address), 'bind')
  }

  /** A group that a kernel driver spoils: a device for vfio-pci, and the one with the driver. */
  async spoiledGroup(): Promise<{ readonly free: string; readonly spoiler: string }> {
    for (const group of await this.names('/sys/kernel/iommu_groups')) {
      const members = await this.names(`/sys/kernel/iommu_groups/${group}/devices`)
      if (members.length < 2) continue
      const drivers = await Promise.all(members.map((member) => this.driverOf(member)))
      const spoiler = members.find((_, index) => drivers[index] !== undefined)
      const free = members.find((_, index) => drivers[index] === undefined)
      if (spoiler !== undefined && free !== undefined) return { free, spoiler }
    }
    throw new Error('Cannot find a group that a driver spoils')
  }

  /** A new mtty device, removed after the test, or with `restore` if it is for the whole suite. */
  async mtty(type: MttyType, { forSuite = false } = {}): Promise<string> {
    const uuid = randomUUID()
    must(await this.kernel.writeFile(`${MTTY}/${type}/create`, uuid), `create an ${type}`)
    this.#mdevs.set(uuid, { forSuite })
    return uuid
  }

  async removeMdev(uuid: string): Promise<number> {
    this.#mdevs.delete(uuid)
    return this.kernel.writeFile(`${MDEVS}/${uuid}/remove`, '1')
  }

  /** Closes, frees and unmaps what one test took. */
  async cleanUp(): Promise<void> {
    for (const segment of [...this.#deviceMemory]) await this.munmap(segment)
    for (const fd of this.#fds.splice(0).reverse()) await this.kernel.close(fd)
    for (const segment of this.#segments.splice(0)) freeSegment(segment)
    for (const fd of this.#realFds.splice(0)) sys.closeSync(fd)
    for (const [uuid, { forSuite }] of [...this.#mdevs]) if (!forSuite) await this.removeMdev(uuid)
  }

  async restore(): Promise<void> {
    await this.cleanUp()
    for (const uuid of [...this.#mdevs.keys()]) await this.removeMdev(uuid)
    for (const address of [...this.#bound.keys()]) await this.unbind(address)
  }
}
