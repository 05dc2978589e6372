/** The simulated kernel: a fresh machine for every sequence. */

import { createSim, type Sim } from '../../src/backends/sim/sim.ts'
import type { Kernel } from '../../src/kernel/port.ts'
import { conformanceMachine, MDEVS, PCI } from './machine.ts'
import type { Memory } from './memory.ts'
import { PLACES, type Place } from './operation.ts'
import type { Location, Side } from './side.ts'

const PAGE = 4096n

const lastOf = (path: string | number): string => String(path).split('/').at(-1) ?? ''

const deviceFolder = (place: Place): string =>
  PCI[place] ? `/sys/bus/pci/devices/${PCI[place]}` : `/sys/bus/mdev/devices/${MDEVS[place]?.uuid}`

/** Where a kernel has its places, by what sysfs says. */
export const locate = async (kernel: Kernel): Promise<ReadonlyMap<Place, Location>> => {
  const found = new Map<Place, Location>([
    ['container', { path: '/dev/vfio/vfio', cdev: '/dev/none', name: 'none' }],
    ['iommufd', { path: '/dev/iommu', cdev: '/dev/none', name: 'none' }],
  ])
  for (const place of PLACES) {
    if (found.has(place)) continue
    const folder = deviceFolder(place)
    const group = lastOf(await kernel.readLink(`${folder}/iommu_group`))
    const cdevs = await kernel.readDir(`${folder}/vfio-dev`)
    found.set(place, {
      path: `/dev/vfio/${group}`,
      cdev: `/dev/vfio/devices/${Array.isArray(cdevs) ? cdevs[0] : 'none'}`,
      name: lastOf(folder),
    })
  }
  return found
}

export class SimSide implements Side {
  readonly memory: Memory
  readonly #locations: ReadonlyMap<Place, Location>
  #sim: Sim

  private constructor(memory: Memory, sim: Sim, locations: ReadonlyMap<Place, Location>) {
    this.memory = memory
    this.#sim = sim
    this.#locations = locations
  }

  static async make(memory: Memory): Promise<SimSide> {
    const sim = createSim(conformanceMachine(null), { time: 'poked' })
    return new SimSide(memory, sim, await locate(sim.kernel))
  }

  get kernel(): Kernel {
    return this.#sim.kernel
  }

  location(place: Place): Location {
    const found = this.#locations.get(place)
    if (!found) throw new Error(`no place ${place}`)
    return found
  }

  begin(lockPages: number | null): void {
    const memlock = lockPages === null ? null : BigInt(lockPages) * PAGE
    this.#sim = createSim(conformanceMachine(memlock), { time: 'poked' })
    this.memory.reset()
  }

  open(path: string): Promise<number> {
    return this.#sim.kernel.open(path, 2)
  }

  close(fd: number): Promise<number> {
    return this.#sim.kernel.close(fd)
  }

  dup(fd: number): number {
    return this.#sim.receive(this.#sim, fd)
  }

  ioctl(fd: number, request: number, arg: number | Uint8Array | undefined): Promise<number> {
    return this.#sim.kernel.ioctl(fd, request, arg)
  }

  pread(fd: number, into: Uint8Array, offset: bigint): Promise<number> {
    return this.#sim.kernel.pread(fd, into, offset)
  }

  pwrite(fd: number, from: Uint8Array, offset: bigint): Promise<number> {
    return this.#sim.kernel.pwrite(fd, from, offset)
  }

  read(fd: number, into: Uint8Array): Promise<number> {
    return this.#sim.kernel.read(fd, into)
  }

  write(fd: number, from: Uint8Array): Promise<number> {
    return this.#sim.kernel.write(fd, from)
  }

  rest(): void {
    for (let left = 100; left > 0 && this.#sim.step(); left--);
  }

  locked(): number {
    return Number(this.#sim.lockedPages)
  }

  end(): void {
    this.#sim.exit()
  }
}
