/**
 * What iommufd_fail_nth.c of the kernel does with its allocations, done with pages: each scenario
 * runs with room for none, one, two and more locked pages, so that each step that pins is the one
 * that fails. Whatever failed, nothing stays pinned and the next try has its way.
 */

import { afterEach, expect, test } from 'vitest'
import { createSim, type Sim } from '../../src/backends/sim/sim.ts'
import type { Segment } from '../../src/os/memory.ts'
import type { Said } from './answers.ts'
import { describeModelled } from './backends.ts'
import {
  attach,
  type Bound,
  bound,
  detach,
  type Iommufd,
  openIommufd,
  PAGE,
} from './iommufd-calls.ts'
import { Machine } from './machine.ts'
import { PINNER, PinningDriver, pinningMachine } from './pinning-machine.ts'

const describe = describeModelled('root has CAP_IPC_LOCK')

const [EDU, OTHER_EDU] = ['0000:00:04.0', '0000:00:05.0']
const BASE = 0x100_0000n
const PAGES = 3n
/** More than any scenario pins: it must have succeeded by then. */
const ENOUGH = 12n

let machine: Machine | undefined
afterEach(() => machine?.cleanUp())

class World {
  readonly sim: Sim
  readonly machine: Machine
  readonly iommufd: Iommufd
  readonly ioas: number
  readonly memory: Segment

  constructor(sim: Sim, at: Machine, iommufd: Iommufd, ioas: number, memory: Segment) {
    this.sim = sim
    this.machine = at
    this.iommufd = iommufd
    this.ioas = ioas
    this.memory = memory
  }

  map(index: bigint): Promise<Said> {
    const iova = BASE + index * PAGES * PAGE
    const at = { iova, vaddr: this.memory.address, length: PAGES * PAGE }
    return this.iommufd.mapAt(this.ioas, at)
  }

  bound(name: string): Promise<Bound> {
    return bound(this.machine, this.iommufd, name)
  }

  async attach({ device }: Bound): Promise<Said> {
    return (await attach(this.machine, device, this.ioas)).answer
  }
}

const worldWith = async (pages: bigint): Promise<World> => {
  const sim = createSim({ ...pinningMachine, memlockBytes: pages * PAGE }, { time: 'poked' })
  machine = new Machine('sim', sim.kernel, async () => void sim.step())
  await machine.edus()
  const iommufd = await openIommufd(machine)
  const ioas = await iommufd.newIoas()
  const { segment } = await machine.memory(Number(PAGES * PAGE))
  return new World(sim, machine, iommufd, ioas, segment)
}

/** Runs to the first answer that is not 0, and answers that. */
type Scenario = (world: World) => Promise<Said>

const SCENARIOS: Record<string, Scenario> = {
  basic_fail_nth: async (world) => {
    for (const index of [0n, 1n]) expect(await world.map(index)).toBe(0)
    return 0
  },
  map_domain: async (world) => {
    const edu = await world.bound(EDU)
    for (const step of [() => world.map(0n), () => world.attach(edu), () => world.map(1n)]) {
      const answer = await step()
      if (answer !== 0) return answer
    }
    return 0
  },
  map_two_domains: async (world) => {
    const edus = [await world.bound(EDU), await world.bound(OTHER_EDU)]
    const [first, second] = edus as [Bound, Bound]
    const steps = [
      () => world.attach(first),
      () => world.map(0n),
      () => world.attach(second),
      () => world.map(1n),
    ]
    for (const step of steps) {
      const answer = await step()
      if (answer !== 0) return answer
    }
    return 0
  },
  access_rw: async (world) => {
    const pinner = await world.bound(PINNER)
    const driver = new PinningDriver(world.sim.kernel, pinner.device)
    expect([await world.map(0n), await world.attach(pinner)]).toEqual([0, 0])
    // It is no pin that lasts, so no limit is in its way.
    expect(await driver.write(BASE, Uint8Array.of(1, 2))).toBe(0)
    expect(await driver.read(BASE, 2)).toEqual(Uint8Array.of(1, 2))
    return 0
  },
  access_pin: async (world) => {
    const pinner = await world.bound(PINNER)
    const driver = new PinningDriver(world.sim.kernel, pinner.device)
    expect([await world.map(0n), await world.attach(pinner)]).toEqual([0, 0])
    const first = await driver.pin({ iova: BASE, pages: 2 })
    return first === 0 ? driver.pin({ iova: BASE + PAGE, pages: 2 }) : first
  },
  access_pin_domain: async (world) => {
    const [pinner, edu] = [await world.bound(PINNER), await world.bound(EDU)]
    const driver = new PinningDriver(world.sim.kernel, pinner.device)
    expect([await world.map(0n), await world.attach(pinner)]).toEqual([0, 0])
    const first = await driver.pin({ iova: BASE + PAGE, pages: 2 })
    if (first !== 0) return first
    const joined = await world.attach(edu)
    return joined === 0 ? driver.pin({ iova: BASE, pages: 2 }) : joined
  },
  device: async (world) => {
    const edu = await world.bound(EDU)
    expect(await world.map(0n)).toBe(0)
    const made = await world.iommufd.hwpt({ dev_id: edu.id, pt_id: world.ioas })
    if (made.answer !== 0) return made.answer
    const { answer } = await attach(world.machine, edu.device, made.out_hwpt_id)
    expect(await detach(world.machine, edu.device)).toBe(0)
    return answer
  },
}

/** From how many locked pages on each has its way. */
const NEEDED: Record<string, bigint> = {
  basic_fail_nth: 0n,
  map_domain: 6n,
  map_two_domains: 6n,
  access_rw: 0n,
  access_pin: 3n,
  access_pin_domain: 3n,
  device: 3n,
}

describe('a page too few to lock', () => {
  test.each(Object.entries(SCENARIOS))(
    'ends %s with ENOMEM, and leaves nothing',
    async (name, run) => {
      for (let pages = 0n; pages <= ENOUGH; pages++) {
        const world = await worldWith(pages)

        expect(await run(world)).toBe(pages < (NEEDED[name] ?? 0n) ? 'ENOMEM' : 0)

        expect(world.sim.pinnedPages).toBeLessThanOrEqual(pages)
        await world.iommufd.unmapAll(world.ioas)
        expect(world.sim.pinnedPages).toBe(0n)
        // What failed is not half there: the same place can be mapped.
        const one = { iova: BASE, vaddr: world.memory.address, length: PAGE }
        expect(await world.iommufd.mapAt(world.ioas, one)).toBe(
          pages === 0n && world.sim.pinnedPages === 0n && (await hasDomain(world)) ? 'ENOMEM' : 0,
        )
        await world.machine.cleanUp()
        expect(world.sim.pinnedPages).toBe(0n)
      }
    },
  )
})

/** Whether the ioas has a page table, which pins what is mapped: only then it cannot be destroyed. */
const hasDomain = async ({ iommufd, ioas }: World): Promise<boolean> =>
  (await iommufd.ranges(ioas)).ranges.at(-1)?.last !== (1n << 64n) - 1n
