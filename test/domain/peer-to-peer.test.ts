/** Peer to peer: a region of a device as the source of a mapping, for the DMA of another device. */

import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { VFIO_IOMMU_MAP_DMA } from '../../src/abi/container.ts'
import { ERRNO } from '../../src/base/errno.ts'
import { bytesAt } from '../../src/os/memory.ts'
import { vendorMachine } from '../contract/vendor-machine.ts'
import { COMPAT, TYPE1 } from '../modes.ts'
import { EDU, failIoctl, OTHER_EDU, type World, world } from './machine.ts'
import {
  CARD,
  CONFIG,
  command,
  DECODING_OFF,
  DECODING_ON,
  MEMORY_IOVA,
  map,
  mappedRegions,
  memory,
  PAGE,
  PEER_IOVA,
  PeerDma,
  PORT_BAR,
  peers,
  region,
} from './peer-machine.ts'
import { alice, bob } from './people.ts'
import { requireCleanEnd, WatchedKernel } from './watched-kernel.ts'

/** The register of edu that answers the complement of what was written. */
const LIVENESS = 4n
const ID = 0x0100_00ed

let at: World
let watched: WatchedKernel

function start(options: Parameters<typeof world>[1] = {}, changes = {}): void {
  watched = new WatchedKernel()
  at = world(changes, { mode: TYPE1, time: 'poked', over: watched.over, ...options })
}

beforeEach(() => start())

afterEach(() => requireCleanEnd(at, watched))

const allocate = (id = 'ram') =>
  at.domain.memories.allocate(alice, { id, length: 4n * PAGE, hugePage: undefined })

/** The first word of the memory. */
const inMemory = (): number => {
  const bytes = bytesAt(at.domain.memories.runtime('ram').window.at(0n), 4)
  return Buffer.from(bytes ?? []).readUInt32LE()
}

const word = async (name: string, offset: bigint): Promise<number> => {
  const at32 = { name, region: 0, offset, length: 4 }
  return Buffer.from(await at.domain.devices.read(alice, at32)).readUInt32LE()
}

const putWord = (name: string, offset: bigint, value: number) => {
  const data = new Uint8Array(new Uint32Array([value]).buffer)
  return at.domain.devices.write(alice, { name, region: 0, offset, data })
}

describe('a mapping of a region', () => {
  test('lets another device of the space read and write its registers', async () => {
    await allocate()
    await peers(at, alice)
    const both = [region(), memory()]
    await at.domain.spaces.map(alice, 'space', { items: both, allOrNothing: true })
    const dma = new PeerDma(at, alice)

    await dma.fetch(PEER_IOVA, 4)
    await dma.store(MEMORY_IOVA, 4)
    await dma.store(PEER_IOVA + LIVENESS, 4)

    expect(inMemory()).toBe(ID)
    expect(await word(OTHER_EDU, LIVENESS)).toBe(~ID >>> 0)
  })

  test('leads to the part of the region that it names', async () => {
    await peers(at, alice, [EDU, CARD])
    await map(at, alice, region({ device: CARD, offset: 2n * PAGE }))
    const dma = new PeerDma(at, alice)
    await putWord(CARD, 2n * PAGE + 8n, 0x1234_5678)

    await dma.fetch(PEER_IOVA + 8n, 4)
    await dma.store(PEER_IOVA + 0x10n, 4)

    expect(await word(CARD, 2n * PAGE + 0x10n)).toBe(0x1234_5678)
    expect(await word(CARD, 0x10n)).toBe(0)
  })

  test('gives a device no more access than it says', async () => {
    await peers(at, alice, [EDU, CARD])
    await map(at, alice, region({ device: CARD, access: 'read' }))
    await putWord(CARD, 0n, 7)
    const dma = new PeerDma(at, alice)

    await dma.fetch(PEER_IOVA, 4)
    await dma.store(PEER_IOVA + 8n, 4)

    expect(await word(CARD, 8n)).toBe(0)
  })

  test('is a mapping without locked memory, listed with its source', async () => {
    await peers(at, alice)
    await map(at, alice, region({ length: 2n * PAGE, offset: PAGE }))

    const { mappings } = at.domain.spaces.mappings(alice, 'space', { from: 0n, count: 10 })
    expect(mappings).toEqual([
      {
        ...{ start: PEER_IOVA, last: PEER_IOVA + 2n * PAGE - 1n, access: 'read-write' },
        ...{ device: OTHER_EDU, region: 0, offset: PAGE },
      },
    ])
    expect(at.pinned()).toBe(0n)
    const usage = at.domain.state.usageOf(alice.account)
    expect([usage.of('mappings'), usage.of('locked_bytes')]).toEqual([1n, 0n])
  })

  test('is unmapped like any other, and all of them by all', async () => {
    await allocate()
    await peers(at, alice)
    const items = [region(), region({ iova: PEER_IOVA + PAGE, offset: PAGE }), memory()]
    await at.domain.spaces.map(alice, 'space', { items, allOrNothing: true })

    const [first] = items
    expect((await at.domain.spaces.unmap(alice, 'space', [first ?? region()])).bytes).toBe(PAGE)
    expect((await at.domain.spaces.unmap(alice, 'space', 'all')).bytes).toBe(2n * PAGE)
    expect(at.domain.state.mappings('space').size).toBe(0)
  })

  test('goes to another owner with its space, who is the one that its end is reported to', async () => {
    await peers(at, alice)
    await map(at, alice)
    await at.domain.adopt(bob, at.domain.handOver(alice, 60_000).token)

    expect(mappedRegions(at)).toHaveLength(1)
    await expect(command(at, alice, OTHER_EDU, DECODING_OFF)).rejects.toMatchObject({
      reason: 'NOT_MM_OWNER',
    })
    expect(mappedRegions(at)).toHaveLength(1)
    expect(await command(at, bob, OTHER_EDU, DECODING_OFF)).toBe(1)
    expect(at.log.at(-1)).toMatchObject({
      event: 'regions-unmapped',
      fields: { client: expect.stringContaining('bob'), device: OTHER_EDU },
    })
  })
})

describe('a region is not mapped', () => {
  const refusal = (item: Parameters<typeof map>[2]) =>
    map(at, alice, item).catch((error: unknown) => error)

  beforeEach(() => peers(at, alice, [EDU, CARD]))

  test.each([
    ['of a device that is not open', { device: OTHER_EDU }, 'DEVICE_NOT_OPEN'],
    ['that the device does not have', { device: CARD, region: 5 }, 'NO_SUCH_REGION'],
    ['of ports', { device: CARD, region: PORT_BAR, length: PAGE }, 'OUT_OF_REGION'],
    ['that is the configuration space', { device: EDU, region: CONFIG }, 'OUT_OF_REGION'],
    ['from a part of a page', { device: CARD, offset: 0x800n }, 'BAD_RANGE'],
    ['beyond its end', { device: CARD, offset: 0x2_0000n }, 'OUT_OF_REGION'],
    ['for part of a page', { device: CARD, length: 0x800n }, 'BAD_RANGE'],
    ['beyond the aperture', { device: CARD, iova: 1n << 40n }, 'IOVA_OUT_OF_APERTURE'],
  ] as const)('%s: %s', async (_what, changes, reason) => {
    expect(await refusal(region(changes))).toMatchObject({ reason })
    expect(mappedRegions(at)).toEqual([])
  })

  test('where a mapping is: IOVA_IN_USE, with its name', async () => {
    await map(at, alice, region({ device: CARD }))

    expect(await refusal(region({ device: CARD, region: 1 }))).toMatchObject({
      reason: 'IOVA_IN_USE',
      message: expect.stringContaining(`of region 0 of ${CARD}`),
    })
  })

  test('of a device of another client: NOT_MM_OWNER', async () => {
    await peers(at, bob, [OTHER_EDU], 'his')

    expect(await refusal(region())).toMatchObject({ reason: 'NOT_MM_OWNER' })
  })

  test('of a device that is open in another space of the client: DEVICE_NOT_OPEN, which says where', async () => {
    await peers(at, alice, [OTHER_EDU], 'other')

    expect(await refusal(region())).toMatchObject({
      reason: 'DEVICE_NOT_OPEN',
      message: expect.stringContaining('it is open in "other"'),
    })
  })

  test('while the device does not decode: DECODING_OFF', async () => {
    await command(at, alice, CARD, DECODING_OFF)

    expect(await refusal(region({ device: CARD }))).toMatchObject({ reason: 'DECODING_OFF' })
    expect(mappedRegions(at)).toEqual([])

    await command(at, alice, CARD, DECODING_ON)
    await map(at, alice, region({ device: CARD }))
  })

  test('where the kernel cannot map it into the daemon: the refusal of mmap, and nothing is held', async () => {
    at.sim.fault = ({ name }) => (name === 'mmap' ? -ERRNO.EBUSY : undefined)

    expect(await refusal(region({ device: CARD }))).toMatchObject({
      details: { op: 'mmap of a region', errno: 'EBUSY' },
    })
    at.sim.fault = undefined
    await map(at, alice, region({ device: CARD }))
  })

  test('outside the areas that the kernel lets be mapped: BAD_RANGE, which names them', async () => {
    start({}, vendorMachine([['v1-ndma']]))
    const [name] = vendorMachine([['v1-ndma']]).addresses
    await at.domain.spaces.create(alice, 'space')
    await at.domain.spaces.addGroup(alice, 'space', 100)
    const device = await at.domain.devices.open(alice, 'space', name ?? '')
    const sparse = device.regions.find(
      ({ areas, size }) => areas.length > 0 && areas[0]?.length !== size,
    )
    const [area] = sparse?.areas ?? []
    const item = { device: device.name, region: sparse?.index ?? -1 }

    expect(area?.offset).toBeGreaterThan(0n)
    expect(await refusal(region(item))).toMatchObject({
      reason: 'BAD_RANGE',
      message: expect.stringContaining(`from 0x${area?.offset.toString(16)} on can be mapped`),
    })
    await map(at, alice, region({ ...item, offset: area?.offset ?? 0n }))
  })
})

test('where the container is that of iommufd a region is not mapped: UNSUPPORTED, and the kernel is not asked', async () => {
  start({ mode: COMPAT })
  await peers(at, alice)
  watched.arm()

  await expect(map(at, alice)).rejects.toMatchObject({
    reason: 'UNSUPPORTED',
    message: expect.stringContaining('the one of iommufd, which maps memory only'),
  })
  expect(watched.names).not.toContain('mmap')
})

describe('a batch with a region', () => {
  test('is undone where a later item fails: the region too', async () => {
    await allocate()
    await peers(at, alice)
    const items = [region(), memory(PEER_IOVA)]

    await expect(
      at.domain.spaces.map(alice, 'space', { items, allOrNothing: true }),
    ).rejects.toMatchObject({ reason: 'IOVA_IN_USE' })

    expect(at.domain.state.mappings('space').size).toBe(0)
    await expect(at.domain.devices.reset(alice, OTHER_EDU)).rejects.toMatchObject({
      reason: 'UNSUPPORTED',
    })
    await map(at, alice)
  })

  test('of which the kernel refuses the region keeps the others, where each is for itself', async () => {
    await allocate()
    await peers(at, alice)
    failIoctl(at.sim, VFIO_IOMMU_MAP_DMA, ERRNO.ENOSPC)

    const batch = { items: [region(), memory()], allOrNothing: false }
    const { errors } = await at.domain.spaces.map(alice, 'space', batch)

    expect(errors.map((error) => error?.reason)).toEqual(['TOO_MANY_MAPPINGS', undefined])
    expect(at.domain.state.mappings('space').all()).toMatchObject([{ start: MEMORY_IOVA }])
  })
})

describe('a remap', () => {
  beforeEach(async () => {
    await allocate()
    await peers(at, alice)
    const items = [region(), memory()]
    await at.domain.spaces.map(alice, 'space', { items, allOrNothing: true })
  })

  const invalidate = (piece: 'all' | { readonly iova: bigint; readonly length: bigint }) =>
    at.domain.spaces.invalidate(alice, 'space', { piece, deadlineMs: 0 })

  test('is refused for a region, which has no vaddr: REMAP_BLOCKED, and nothing is invalid', async () => {
    for (const piece of ['all', region()] as const) {
      await expect(invalidate(piece)).rejects.toMatchObject({
        reason: 'REMAP_BLOCKED',
        message: expect.stringContaining(`of region 0 of ${OTHER_EDU}`),
      })
    }
    expect(at.domain.state.mappings('space').invalid).toBe(0)
    const item = { ...memory(PEER_IOVA), memoryId: 'ram' }
    const { errors } = await at.domain.spaces.update(alice, 'space', [item])
    expect(errors[0]).toMatchObject({ reason: 'REMAP_BLOCKED' })
  })

  test('of the memory beside it goes on', async () => {
    await invalidate(memory())
    const { errors } = await at.domain.spaces.update(alice, 'space', 'all')

    expect(errors).toEqual([undefined])
    expect(mappedRegions(at)).toHaveLength(1)
  })
})

describe('dirty tracking', () => {
  const track = { iommu: true, devices: [], ranges: [], pageSize: 0n }
  const signal = new AbortController().signal

  const pagesOf = async (events: AsyncIterable<object>): Promise<unknown[]> => {
    const seen: unknown[] = []
    for await (const event of events) seen.push(event)
    return seen
  }

  beforeEach(async () => {
    await allocate()
    await peers(at, alice)
    const items = [region(), memory()]
    await at.domain.spaces.map(alice, 'space', { items, allOrNothing: true })
    await at.domain.dirty.start(alice, 'space', track)
  })

  test('reports pages of memory only', async () => {
    const request = {
      ...{ spaceId: 'space', piece: { iova: 0n, length: 0n }, isPeek: false, again: false },
      form: 'ranges' as const,
    }
    const events = await pagesOf(at.domain.dirty.read(alice, request, signal))

    expect(events.at(-1)).toMatchObject({ kind: 'end', pages: 1 })
  })

  test('unmaps a region by a read that unmaps, without pages of it', async () => {
    const request = { spaceId: 'space', items: 'all', form: 'ranges' } as const
    const events = await pagesOf(at.domain.dirty.readAndUnmap(alice, request, signal))

    expect(events.at(-1)).toMatchObject({
      ...{ kind: 'end', pages: 1, result: { bytes: 2n * PAGE } },
    })
    expect(at.domain.state.mappings('space').size).toBe(0)
    // Nothing holds the device any more: this takes no lane of the space.
    expect(await command(at, alice, OTHER_EDU, DECODING_OFF)).toBe(0)
  })
})
