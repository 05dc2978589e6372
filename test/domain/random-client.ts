/**
 * Random clients of the domain: a seeded source of operations on a simulated machine, most of which
 * are legal. A refusal is an answer like any other; a bug is not.
 */

import fc from 'fast-check'
import { VfiodError } from '../../src/base/error.ts'
import { TYPE1 } from '../modes.ts'
import { EDU, EDU_GROUP, MTTY, OTHER_EDU, OTHER_EDU_GROUP, type World } from './machine.ts'
import { alice, bob } from './people.ts'

const PAGE = 0x1000n

type Operation = (at: World) => unknown

const client = fc.constantFrom(alice, bob)
const spaceId = fc.constantFrom('a', 'b')
const memoryId = fc.constantFrom('ram', 'rom')
const edu = fc.constantFrom([EDU, EDU_GROUP] as const, [OTHER_EDU, OTHER_EDU_GROUP] as const)
const page = fc.nat({ max: 15 }).map(BigInt)

const mapItem = fc.record({
  iova: page.map((n) => n * PAGE),
  length: fc.constantFrom(PAGE, 2n * PAGE, 3n * PAGE),
  memoryId,
  offset: page.map((n) => n * PAGE),
  access: fc.constantFrom('read', 'write', 'read-write'),
})

const regionItem = fc.record({
  iova: page.map((n) => n * PAGE),
  length: fc.constantFrom(PAGE, 2n * PAGE),
  device: fc.constantFrom(EDU, OTHER_EDU),
  region: fc.constantFrom(0, 0, 0, 7),
  offset: page.map((n) => n * PAGE),
  access: fc.constantFrom('read', 'write', 'read-write'),
})

/** COMMAND with memory decoding on, and off. */
const command = fc.constantFrom(6, 6, 4)

const piece = fc.record({
  iova: page.map((n) => n * PAGE),
  length: fc.constantFrom(PAGE, 4n * PAGE, 16n * PAGE),
})
const pieces = fc.oneof(
  fc.constant('all' as const),
  fc.array(piece, { minLength: 1, maxLength: 3 }),
)

const states = fc.constantFrom('STOP', 'RUNNING', 'STOP_COPY', 'RESUMING', 'PRE_COPY')

/** Reads to the end and throws away what it reads. */
async function drain(events: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of events);
}

const on = <Args extends readonly unknown[]>(
  arbitraries: { [N in keyof Args]: fc.Arbitrary<Args[N]> },
  run: (at: World, ...args: Args) => unknown,
): fc.Arbitrary<Operation> =>
  fc
    .tuple(...(arbitraries as unknown as fc.Arbitrary<unknown>[]))
    .map((args) => (at) => run(at, ...(args as unknown as Args)))

const everything = new AbortController().signal

const operations: readonly fc.WeightedArbitrary<Operation>[] = [
  {
    weight: 3,
    arbitrary: on([client, spaceId], ({ domain }, who, id) => domain.spaces.create(who, id)),
  },
  {
    weight: 1,
    arbitrary: on([client, spaceId], ({ domain }, who, id) => domain.destroySpace(who, id)),
  },
  {
    weight: 4,
    arbitrary: on([client, spaceId, edu], ({ domain }, who, id, [, group]) =>
      domain.spaces.addGroup(who, id, group),
    ),
  },
  {
    weight: 2,
    arbitrary: on([client, spaceId], async ({ domain }, who, id) => {
      const { group } = await domain.inventory.device(MTTY)
      return domain.spaces.addGroup(who, id, group)
    }),
  },
  {
    weight: 1,
    arbitrary: on([client, spaceId, edu], ({ domain }, who, id, [, group]) =>
      domain.spaces.removeGroup(who, id, group),
    ),
  },
  {
    weight: 3,
    arbitrary: on([client, memoryId], ({ domain }, who, id) =>
      domain.memories.allocate(who, { id, length: 16n * PAGE, hugePage: undefined }),
    ),
  },
  {
    weight: 1,
    arbitrary: on([client, memoryId], async ({ domain }, who, id) =>
      domain.memories.release(who, id),
    ),
  },
  {
    weight: 6,
    arbitrary: on(
      [client, spaceId, fc.array(mapItem, { minLength: 1, maxLength: 4 }), fc.boolean()],
      ({ domain }, who, id, items, allOrNothing) =>
        domain.spaces.map(who, id, { items, allOrNothing }),
    ),
  },
  {
    weight: 4,
    arbitrary: on(
      [client, spaceId, fc.array(fc.oneof(regionItem, mapItem), { minLength: 1, maxLength: 3 })],
      ({ domain }, who, id, items) => domain.spaces.map(who, id, { items, allOrNothing: false }),
    ),
  },
  {
    weight: 2,
    arbitrary: on([client, edu, command], ({ domain }, who, [name], value) =>
      domain.devices.write(who, {
        ...{ name, region: 7, offset: 4n, data: new Uint8Array([value, 0]) },
      }),
    ),
  },
  {
    weight: 3,
    arbitrary: on([client, spaceId, pieces], ({ domain }, who, id, items) =>
      domain.spaces.unmap(who, id, items),
    ),
  },
  {
    weight: 1,
    arbitrary: on([client, spaceId], ({ domain }, who, id) =>
      domain.spaces.invalidate(who, id, { piece: 'all', deadlineMs: 60_000 }),
    ),
  },
  {
    weight: 2,
    arbitrary: on([client, spaceId], ({ domain }, who, id) => domain.spaces.update(who, id, 'all')),
  },
  {
    weight: 4,
    arbitrary: on(
      [client, spaceId, fc.constantFrom(EDU, OTHER_EDU, MTTY)],
      ({ domain }, who, id, name) => domain.devices.open(who, id, name),
    ),
  },
  {
    weight: 1,
    arbitrary: on([client, fc.constantFrom(EDU, OTHER_EDU, MTTY)], ({ domain }, who, name) =>
      domain.devices.close(who, name),
    ),
  },
  { weight: 1, arbitrary: on([client], ({ domain }, who) => domain.devices.reset(who, MTTY)) },
  {
    weight: 4,
    arbitrary: on([client, states], ({ domain }, who, state) =>
      domain.migration.setState(who, MTTY, state),
    ),
  },
  {
    weight: 2,
    arbitrary: on([client, spaceId], ({ domain }, who, id) =>
      domain.dirty.start(who, id, { iommu: true, devices: [], ranges: [], pageSize: 0n }),
    ),
  },
  {
    weight: 1,
    arbitrary: on([client, spaceId], ({ domain }, who, id) => domain.dirty.stop(who, id)),
  },
  {
    weight: 2,
    arbitrary: on([client, spaceId, pieces], ({ domain }, who, id, items) =>
      drain(domain.dirty.readAndUnmap(who, { spaceId: id, items, form: 'ranges' }, everything)),
    ),
  },
  {
    weight: 1,
    arbitrary: on([client], ({ domain }, who) => {
      const to = who.id === alice.id ? bob : alice
      return domain.adopt(to, domain.handOver(who, 60_000).token)
    }),
  },
  {
    weight: 1,
    arbitrary: on([client], ({ domain }, who) => domain.releaseClient(who, 'it has exited')),
  },
  {
    weight: 2,
    arbitrary: on([edu], ({ domain }, [name]) =>
      domain.binding.bind(alice, { devices: [name], driver: undefined, wholeGroup: false }),
    ),
  },
]

/** A run of operations, and which calls of the port fail meanwhile. */
export const runs = fc.record({
  operations: fc.array(fc.oneof(...operations), { minLength: 10, maxLength: 40 }),
  faults: fc.array(fc.nat({ max: 600 }), { maxLength: 4 }),
  concurrency: fc.constantFrom(1, 1, 3),
})

/**
 * What a run begins with: two spaces, one with an IOMMU and one without, memory, open devices, and a
 * mapping of a region where there are such mappings.
 */
export async function settle({ domain, mode }: World): Promise<void> {
  await domain.binding.bind(alice, { devices: [EDU], driver: undefined, wholeGroup: false })
  await domain.memories.allocate(alice, { id: 'ram', length: 16n * PAGE, hugePage: undefined })
  await domain.spaces.create(alice, 'a')
  await domain.spaces.addGroup(alice, 'a', EDU_GROUP)
  await domain.devices.open(alice, 'a', EDU)
  if (mode === TYPE1) {
    const source = { device: EDU, region: 0, offset: 0n, access: 'read-write' } as const
    const items = [{ iova: 8n * PAGE, length: PAGE, ...source }]
    await domain.spaces.map(alice, 'a', { items, allOrNothing: true })
  }
  await domain.spaces.create(alice, 'b')
  await domain.spaces.addGroup(alice, 'b', (await domain.inventory.device(MTTY)).group)
  await domain.devices.open(alice, 'b', MTTY)
}

/** Makes the operations, so many at a time; throws for what is not a refusal. */
export async function perform(
  at: World,
  operations: readonly Operation[],
  concurrency: number,
): Promise<void> {
  for (let next = 0; next < operations.length; next += concurrency) {
    const batch = operations.slice(next, next + concurrency)
    const outcomes = await Promise.allSettled(batch.map(async (operation) => operation(at)))
    for (const outcome of outcomes) {
      if (outcome.status === 'fulfilled') continue
      const { reason } = outcome
      if (!(reason instanceof VfiodError) || reason.reason === 'BUG') throw reason
    }
  }
}
