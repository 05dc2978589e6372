/** The simulated kernel: a fresh machine for every sequence. */

import { createSim, type Sim, type SimProcess } from '../../src/backends/sim/sim.ts'
import type { Kernel } from '../../src/kernel/port.ts'
import { conformanceMachine, MDEVS, PCI } from './machine.ts'
import type { Memory } from './memory.ts'
import { PLACES, type Place } from './operation.ts'
import type { FirstSide, Location, SecondSide, Side } from './side.ts'

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

/** What is the same for every simulated process. */
class SimProcessSide implements Side {
  readonly memory: Memory
  readonly location: (place: Place) => Location
  protected sim: Sim
  protected process: SimProcess

  constructor(memory: Memory, location: (place: Place) => Location, sim: Sim, process: SimProcess) {
    this.memory = memory
    this.location = location
    this.sim = sim
    this.process = process
  }

  open(path: string): Promise<number> {
    return this.process.kernel.open(path, 2)
  }

  close(fd: number): Promise<number> {
    return this.process.kernel.close(fd)
  }

  dup(fd: number): number {
    return this.process.receive(this.process, fd)
  }

  ioctl(fd: number, request: number, arg: number | Uint8Array | undefined): Promise<number> {
    return this.process.kernel.ioctl(fd, request, arg)
  }

  pread(fd: number, into: Uint8Array, offset: bigint): Promise<number> {
    return this.process.kernel.pread(fd, into, offset)
  }

  pwrite(fd: number, from: Uint8Array, offset: bigint): Promise<number> {
    return this.process.kernel.pwrite(fd, from, offset)
  }

  read(fd: number, into: Uint8Array): Promise<number> {
    return this.process.kernel.read(fd, into)
  }

  write(fd: number, from: Uint8Array): Promise<number> {
    return this.process.kernel.write(fd, from)
  }

  rest(): void {
    for (let left = 100; left > 0 && this.sim.step(); left--);
  }

  locked(): number {
    return Number(this.process.lockedPages)
  }
}

class SimSecond extends SimProcessSide implements SecondSide {
  readonly #first: SimProcess

  constructor(first: SimProcess, ...rest: ConstructorParameters<typeof SimProcessSide>) {
    super(...rest)
    this.#first = first
  }

  receive(fd: number): number {
    return this.process.receive(this.#first, fd)
  }

  send(fd: number): number {
    return this.#first.receive(this.process, fd)
  }

  kill(): void {
    this.process.exit()
  }
}

export class SimSide extends SimProcessSide implements FirstSide {
  readonly secondMemory: Memory

  private constructor(
    memories: readonly [Memory, Memory],
    sim: Sim,
    locations: ReadonlyMap<Place, Location>,
  ) {
    const location = (place: Place): Location => {
      const found = locations.get(place)
      if (!found) throw new Error(`no place ${place}`)
      return found
    }
    super(memories[0], location, sim, sim)
    this.secondMemory = memories[1]
  }

  static async make(memory: Memory, second: Memory): Promise<SimSide> {
    const sim = createSim(conformanceMachine(null), { time: 'poked' })
    return new SimSide([memory, second], sim, await locate(sim.kernel))
  }

  begin(lockPages: number | null): void {
    const memlock = lockPages === null ? null : BigInt(lockPages) * PAGE
    this.sim = createSim(conformanceMachine(memlock), { time: 'poked' })
    this.process = this.sim.spawn({ memory: this.memory.segments })
    this.memory.reset()
  }

  spawn(): SimSecond {
    const { segments } = this.secondMemory
    this.secondMemory.reset()
    const process = this.sim.spawn({ memory: segments })
    return new SimSecond(this.process, this.secondMemory, this.location, this.sim, process)
  }

  end(): void {
    this.process.exit()
  }
}
