/**
 * Every call of the port that an operation makes is failed in turn. Afterwards the books are right,
 * what is refused has changed nothing or says what is left, and nothing is leaked.
 */

import { readFileSync } from 'node:fs'
import { afterEach, beforeAll, expect, test } from 'vitest'
import type { MachineSpec } from '../../src/backends/sim/spec/machine-spec.ts'
import { ERRNO } from '../../src/base/errno.ts'
import { VfiodError } from '../../src/base/error.ts'
import { vendorMachine } from '../contract/vendor-machine.ts'
import { describeModes, MODES, type Mode, TYPE1 } from '../modes.ts'
import { busMachine, FIRST, SECOND } from './bus-machine.ts'
import { EDU, EDU_GROUP, type World, world } from './machine.ts'
import { command, DECODING_OFF, DECODING_ON } from './peer-machine.ts'
import { alice, bob } from './people.ts'
import { requireRightBooks, WatchedKernel } from './watched-kernel.ts'

const PAGE = 0x1000n
const ERRNOS = ['EIO', 'ENOMEM', 'EBUSY'] as const
const LOGGING = '0000:10:01.0'

let at: World

afterEach(() => at.domain.releaseAll('the test is over'))

const item = (page: bigint, count = 1n) => ({
  iova: page * PAGE,
  length: count * PAGE,
  memoryId: 'ram',
  offset: page * PAGE,
  access: 'read-write' as const,
})

const track = (iommu: boolean) => ({ iommu, devices: [], ranges: [], pageSize: 0n })

const bindEdu = () =>
  at.domain.binding.bind(alice, { devices: [EDU], driver: undefined, wholeGroup: false })

/** A space with memory, and a group where one is named. */
async function space(group?: number): Promise<void> {
  await at.domain.memories.allocate(alice, { id: 'ram', length: 16n * PAGE, hugePage: undefined })
  await at.domain.spaces.create(alice, 'space')
  if (group !== undefined) await at.domain.spaces.addGroup(alice, 'space', group)
}

async function mapped(group: number): Promise<void> {
  await space(group)
  await at.domain.spaces.map(alice, 'space', { items: [item(1n), item(2n)], allOrNothing: true })
}

const map = (allOrNothing: boolean) => () =>
  at.domain.spaces.map(alice, 'space', { items: [item(3n), item(4n), item(5n)], allOrNothing })

interface Case {
  readonly name: string
  readonly machine?: Partial<MachineSpec>
  /** Where it is offered; in every mode when missing. */
  readonly modes?: readonly Mode[]
  readonly before: () => Promise<unknown>
  /** Whether a refusal may leave a part of it done: mappings of regions that were removed are. */
  readonly canStop?: boolean
  readonly operation: () => Promise<unknown>
}

const regionItem = (page: bigint) => ({
  ...{ iova: page * PAGE, length: PAGE, offset: page * PAGE },
  ...{ device: EDU, region: 0, access: 'read-write' as const },
})

const openEdu = async () => {
  await at.domain.devices.open(alice, 'space', EDU)
  await command(at, alice, EDU, DECODING_ON)
}

async function withRegion(): Promise<void> {
  await bindEdu()
  await mapped(EDU_GROUP)
  await openEdu()
  const items = [regionItem(6n), regionItem(7n)]
  await at.domain.spaces.map(alice, 'space', { items, allOrNothing: true })
}

const readAndUnmap = async () => {
  const request = { spaceId: 'space', items: 'all', form: 'ranges' } as const
  for await (const _ of at.domain.dirty.readAndUnmap(alice, request, new AbortController().signal));
}

const CASES: readonly Case[] = [
  {
    name: 'Map, all or nothing',
    before: () => bindEdu().then(() => mapped(EDU_GROUP)),
    operation: map(true),
  },
  {
    name: 'Map, each for itself',
    before: () => bindEdu().then(() => mapped(EDU_GROUP)),
    operation: map(false),
  },
  {
    name: 'Unmap',
    before: () => bindEdu().then(() => mapped(EDU_GROUP)),
    operation: () => at.domain.spaces.unmap(alice, 'space', 'all'),
  },
  {
    name: 'AddGroup',
    before: () => bindEdu().then(() => space()),
    operation: () => at.domain.spaces.addGroup(alice, 'space', EDU_GROUP),
  },
  {
    name: 'RemoveGroup',
    before: () => bindEdu().then(() => mapped(EDU_GROUP)),
    operation: () => at.domain.spaces.removeGroup(alice, 'space', EDU_GROUP),
  },
  {
    name: 'OpenDevice',
    before: () => bindEdu().then(() => mapped(EDU_GROUP)),
    operation: () => at.domain.devices.open(alice, 'space', EDU),
  },
  {
    name: 'StartTracking by the container',
    modes: [TYPE1],
    before: () => bindEdu().then(() => mapped(EDU_GROUP)),
    operation: () => at.domain.dirty.start(alice, 'space', track(true)),
  },
  {
    name: 'StartTracking by the log of a device',
    machine: vendorMachine([['mlx5-like']]),
    before: async () => {
      await mapped(100)
      await at.domain.devices.open(alice, 'space', LOGGING)
    },
    operation: () => at.domain.dirty.start(alice, 'space', track(false)),
  },
  {
    name: 'ReadAndUnmap',
    modes: [TYPE1],
    before: async () => {
      await bindEdu()
      await mapped(EDU_GROUP)
      await at.domain.dirty.start(alice, 'space', track(true))
    },
    operation: readAndUnmap,
  },
  {
    name: 'Map of a region, with memory',
    modes: [TYPE1],
    before: () =>
      bindEdu()
        .then(() => mapped(EDU_GROUP))
        .then(openEdu),
    operation: () =>
      at.domain.spaces.map(alice, 'space', {
        items: [item(3n), regionItem(4n), regionItem(5n)],
        allOrNothing: true,
      }),
  },
  {
    name: 'WriteRegion that removes mappings of a region',
    modes: [TYPE1],
    canStop: true,
    before: withRegion,
    operation: () => command(at, alice, EDU, DECODING_OFF),
  },
  {
    name: 'CloseDevice with mappings of a region',
    modes: [TYPE1],
    canStop: true,
    before: withRegion,
    operation: () => at.domain.devices.close(alice, EDU),
  },
  {
    name: 'OpenDevice with a hot reset',
    machine: busMachine,
    before: () => space(FIRST.group),
    operation: () => at.domain.devices.open(alice, 'space', FIRST.name, { mustReset: true }),
  },
  {
    name: 'HotResetDevice of two that are open',
    machine: busMachine,
    before: async () => {
      await space(FIRST.group)
      await at.domain.devices.open(alice, 'space', FIRST.name)
      await at.domain.spaces.create(alice, 'other')
      await at.domain.spaces.addGroup(alice, 'other', SECOND.group)
      await at.domain.devices.open(alice, 'other', SECOND.name)
    },
    operation: async () => {
      await at.domain.devices.hotReset(alice, FIRST.name, true)
    },
  },
  {
    name: 'HotResetDevice of a bus of which nobody has the other device',
    machine: busMachine,
    before: async () => {
      await space(FIRST.group)
      await at.domain.devices.open(alice, 'space', FIRST.name)
    },
    operation: () => at.domain.devices.hotReset(alice, FIRST.name, false),
  },
  { name: 'BindDevices', before: async () => {}, operation: bindEdu },
  {
    name: 'Adopt',
    before: async () => {
      await bindEdu()
      await mapped(EDU_GROUP)
      await at.domain.devices.open(alice, 'space', EDU)
    },
    operation: () => at.domain.adopt(bob, at.domain.handOver(alice, 60_000).token),
  },
]

const memfds = (): number =>
  readFileSync('/proc/self/maps', 'utf8').match(/memfd:vfiod:/g)?.length ?? 0

/** What tests of other files have left in this process, which they share. */
let othersMemfds = 0
beforeAll(() => {
  othersMemfds = memfds()
})

/** What the state says, handovers aside: an offer stands whether or not it was taken. */
const listed = () => ({ ...at.domain.state.snapshot(), offers: undefined })

const driver = async () => (await at.domain.inventory.device(EDU)).driver

/** Runs the operation with one call failed; answers how many calls there were. */
async function run(
  mode: Mode,
  { machine, before, operation, canStop = false }: Case,
  fault?: { readonly call: number; readonly errno: number },
): Promise<number> {
  const watched = new WatchedKernel()
  const options = { mode, time: 'poked', over: watched.over } as const
  at = world(machine, options)
  await before()
  const [was, hadDriver] = [listed(), machine === undefined ? await driver() : undefined]
  watched.arm(fault && ((call) => (call === fault.call ? fault.errno : undefined)))
  const outcome = await operation().catch((error: unknown) => error)
  const { calls } = watched
  watched.arm()

  if (outcome instanceof VfiodError) {
    expect(outcome.reason).not.toBe('BUG')
    if (!canStop && !outcome.message.includes('could not be undone')) {
      expect(listed()).toEqual(was)
      if (machine === undefined) expect(await driver()).toBe(hadDriver)
    }
  } else if (outcome instanceof Error) throw outcome
  requireRightBooks(at)
  await at.domain.releaseAll('the round is over')
  requireRightBooks(at)
  expect([...watched.openFds], 'open fds').toEqual([])
  expect([...watched.segments], 'mapped regions').toEqual([])
  expect(at.pinned(), 'locked pages').toBe(0n)
  // Memory is unmapped on another thread.
  await expect.poll(memfds, { interval: 1 }).toBeLessThanOrEqual(othersMemfds)
  return calls
}

describeModes('a failed call of the kernel leaves the books right and nothing behind', (mode) => {
  test.each(CASES.filter(({ modes = MODES }) => modes.includes(mode)))(
    'in $name',
    async (tried) => {
      const calls = await run(mode, tried)
      expect(calls).toBeGreaterThan(0)

      for (const errno of ERRNOS)
        for (let call = 0; call < calls; call += 1) {
          try {
            await run(mode, tried, { call, errno: ERRNO[errno] })
          } catch (error) {
            throw new Error(`with ${errno} in call ${call}`, { cause: error })
          }
        }
    },
  )
})
