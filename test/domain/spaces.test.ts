import { beforeEach, describe, expect, test } from 'vitest'
import { VFIO_IOMMU_GET_INFO, VFIO_IOMMU_MAP_DMA, VFIO_SET_IOMMU } from '../../src/abi/container.ts'
import { defaultMachine } from '../../src/backends/sim/spec/default-machine.ts'
import type { MachineSpec } from '../../src/backends/sim/spec/machine-spec.ts'
import { ERRNO } from '../../src/base/errno.ts'
import { LIMITS } from '../../src/base/limits.ts'
import type { MapItem } from '../../src/domain/space/mapping.ts'
import { unless } from '../contract/backends.ts'
import { describeModes, TYPE1 } from '../modes.ts'
import {
  EDU,
  EDU_GROUP,
  failIoctl,
  OTHER_EDU,
  OTHER_EDU_GROUP,
  readySpace,
  type World,
  world,
} from './machine.ts'
import { alice, bob } from './people.ts'

const PAGE = 0x1000n
const item = (iova: bigint, changes: Partial<MapItem> = {}): MapItem => ({
  iova,
  length: PAGE,
  memoryId: 'ram',
  offset: 0n,
  access: 'read-write',
  ...changes,
})
const each = (items: readonly MapItem[]) => ({ items, allOrNothing: false })

describeModes('address spaces', (mode) => {
  const newWorld = (changes: Partial<MachineSpec> = {}) => world(changes, { mode })
  const ofType1 = (why: string) => unless(mode !== TYPE1, why)
  let at: World

  beforeEach(async () => {
    at = newWorld()
    await at.domain.memories.allocate(alice, { id: 'ram', length: 16n * PAGE, hugePage: undefined })
  })

  const map = (...items: MapItem[]) => at.domain.spaces.map(alice, 'space', each(items))
  const reasons = async (...items: MapItem[]) =>
    (await map(...items)).errors.map((error) => error?.reason)
  const mapped = () =>
    at.domain.spaces
      .mappings(alice, 'space', { from: 0n, count: 100 })
      .mappings.map(({ start }) => start)

  describe('creating an address space', () => {
    test('twice gives the same one to the same client', async () => {
      const first = await at.domain.spaces.create(alice, 'space')

      expect(await at.domain.spaces.create(alice, 'space')).toBe(first)
      expect(await at.domain.spaces.create(alice, '')).not.toBe(first)
    })

    test('by the id of another client is refused, and names that client', async () => {
      await at.domain.spaces.create(alice, 'space')

      const refused = at.domain.spaces.create(bob, 'space')

      await expect(refused).rejects.toMatchObject({ reason: 'NOT_MM_OWNER' })
      await expect(refused).rejects.toThrow('it belongs to pid 101 (alice), uid 1000')
    })

    test.each(['a b', '-x', '../x', 'x'.repeat(65), 'ü'])('refuses the id "%s"', async (id) => {
      await expect(at.domain.spaces.create(alice, id)).rejects.toMatchObject({
        reason: 'BAD_ARGUMENT',
        details: { field: 'space_id' },
      })
    })
  })

  describe('adding a group', () => {
    test('that another space has is refused, and names the owner', async () => {
      await readySpace(at, alice)
      await at.domain.spaces.create(bob, 'other')

      const refused = at.domain.spaces.addGroup(bob, 'other', EDU_GROUP)

      await expect(refused).rejects.toMatchObject({ reason: 'GROUP_IN_USE' })
      await expect(refused).rejects.toThrow('a member of "space" of pid 101 (alice)')
    })

    test('twice does nothing', async () => {
      const space = await readySpace(at, alice)

      expect(await at.domain.spaces.addGroup(alice, 'space', EDU_GROUP)).toBe(space)
      expect(space.groups).toEqual([EDU_GROUP])
    })

    test('that does not exist is refused: NO_SUCH_GROUP', async () => {
      await at.domain.spaces.create(alice, 'space')

      await expect(at.domain.spaces.addGroup(alice, 'space', 999)).rejects.toMatchObject({
        reason: 'NO_SUCH_GROUP',
      })
    })

    test.each([
      ['VFIO_SET_IOMMU', VFIO_SET_IOMMU],
      ['VFIO_IOMMU_GET_INFO', VFIO_IOMMU_GET_INFO],
    ])('that fails at %s leaves the group free and the space empty', async (_, request) => {
      await at.domain.binding.bind(alice, { devices: [EDU], driver: undefined, wholeGroup: false })
      await at.domain.spaces.create(alice, 'space')
      failIoctl(at.sim, request, ERRNO.EIO)

      await expect(at.domain.spaces.addGroup(alice, 'space', EDU_GROUP)).rejects.toMatchObject({
        details: { errno: 'EIO' },
      })

      expect((await at.domain.spaces.get('space')).state).toBe('empty')
      const again = await at.domain.spaces.addGroup(alice, 'space', EDU_GROUP)
      expect(again.state).toBe('ready')
    })

    test('gives the space two groups, and removing one keeps the mappings', async () => {
      await at.domain.binding.bind(alice, {
        devices: [OTHER_EDU],
        driver: undefined,
        wholeGroup: false,
      })
      await readySpace(at, alice)
      await at.domain.spaces.addGroup(alice, 'space', OTHER_EDU_GROUP)
      await map(item(0x1000n))

      const one = await at.domain.spaces.removeGroup(alice, 'space', EDU_GROUP)
      expect([one.state, mapped()]).toEqual(['ready', [0x1000n]])

      const none = await at.domain.spaces.removeGroup(alice, 'space', OTHER_EDU_GROUP)
      expect([none.state, mapped()]).toEqual(['empty', []])
    })

    test('is undone only when none of its devices is open: SPACE_IN_USE', async () => {
      await readySpace(at, alice)
      await at.domain.devices.open(alice, 'space', EDU)

      const refused = at.domain.spaces.removeGroup(alice, 'space', EDU_GROUP)

      await expect(refused).rejects.toMatchObject({ reason: 'SPACE_IN_USE' })
      await at.domain.devices.close(alice, EDU)
      await expect(at.domain.spaces.removeGroup(alice, 'space', EDU_GROUP)).resolves.toBeDefined()
    })
  })

  describe('mapping', () => {
    test('into a space without groups is refused: SPACE_NOT_READY', async () => {
      await at.domain.spaces.create(alice, 'space')

      await expect(map(item(0n))).rejects.toMatchObject({ reason: 'SPACE_NOT_READY' })
      await expect(map(item(0n))).rejects.toThrow('it has no group; add one first')
    })

    test('refuses what is wrong with an item, each by its reason, and maps the others', async () => {
      await readySpace(at, alice)
      // In some modes apertures are known only then.
      await at.domain.devices.open(alice, 'space', EDU)

      expect(
        await reasons(
          item(0x1000n),
          item(0x1000n),
          item(0x2001n),
          item(0x2000n, { length: 0n }),
          item(0x2000n, { length: 100n }),
          item(0x2000n, { offset: 100n }),
          item(0x2000n, { offset: 16n * PAGE }),
          item(0x2000n, { memoryId: 'none' }),
          item(0xfee0_0000n),
          item(0x100_0000_0000n),
          item(0xffff_ffff_ffff_f000n),
          item(0x2000n),
        ),
      ).toEqual([
        undefined,
        'IOVA_IN_USE',
        'BAD_RANGE',
        'BAD_RANGE',
        'BAD_RANGE',
        'BAD_RANGE',
        'OUT_OF_MEMORY_OBJECT',
        'NO_SUCH_MEMORY',
        'IOVA_OUT_OF_APERTURE',
        'IOVA_OUT_OF_APERTURE',
        'BAD_RANGE',
        undefined,
      ])
      expect(mapped()).toEqual([0x1000n, 0x2000n])
    })

    test("refuses another client's memory: NOT_MM_OWNER", async () => {
      await readySpace(at, alice)
      await at.domain.memories.allocate(bob, { id: 'his', length: PAGE, hugePage: undefined })

      expect(await reasons(item(0n, { memoryId: 'his' }))).toEqual(['NOT_MM_OWNER'])
    })

    test('all or nothing undoes what it mapped, and fails with the reason', async () => {
      await readySpace(at, alice)
      const items = [item(0x1000n), item(0x2000n), item(0x1000n)]

      const refused = at.domain.spaces.map(alice, 'space', { items, allOrNothing: true })

      await expect(refused).rejects.toMatchObject({ reason: 'IOVA_IN_USE' })
      expect(mapped()).toEqual([])
      expect(at.pinned()).toBe(0n)
    })

    test('keeps nothing of an item that the kernel refuses', async () => {
      await readySpace(at, alice)
      failIoctl(at.sim, VFIO_IOMMU_MAP_DMA, ERRNO.EFAULT)

      expect(await reasons(item(0x1000n))).toEqual(['MEMORY_NOT_PINNABLE'])
      expect(mapped()).toEqual([])
      expect(at.domain.state.mappingsOfMemory('ram')).toBe(0)
      expect(await reasons(item(0x1000n))).toEqual([undefined])
    })

    ofType1('iommufd pins when a device is opened')(
      'over RLIMIT_MEMLOCK is refused: MEMLOCK_EXCEEDED',
      async () => {
        at = newWorld({ memlockBytes: 2n * PAGE })
        await at.domain.memories.allocate(alice, {
          id: 'ram',
          length: 4n * PAGE,
          hugePage: undefined,
        })
        await readySpace(at, alice)

        expect(await reasons(item(0n, { length: 2n * PAGE }), item(0x4000n))).toEqual([
          undefined,
          'MEMLOCK_EXCEEDED',
        ])
      },
    )

    ofType1('iommufd has no dma_entry_limit')(
      'over dma_entry_limit is refused with limit, current and needed',
      async () => {
        at = newWorld({ dmaEntryLimit: 2 })
        await at.domain.memories.allocate(alice, {
          id: 'ram',
          length: 4n * PAGE,
          hugePage: undefined,
        })
        await readySpace(at, alice)

        const { errors } = await map(item(0x1000n), item(0x2000n), item(0x3000n))

        expect(errors[2]).toMatchObject({
          reason: 'TOO_MANY_MAPPINGS',
          details: { quota: { max: 2n, current: 2n, needed: 1n } },
        })
      },
    )

    test('refuses an empty batch and one that is too large', async () => {
      await readySpace(at, alice)
      const many = Array.from({ length: LIMITS.batchItems + 1 }, (_, n) => item(BigInt(n) * PAGE))

      await expect(map()).rejects.toMatchObject({ reason: 'BAD_ARGUMENT' })
      await expect(map(...many)).rejects.toMatchObject({ reason: 'BATCH_TOO_LARGE' })
    })
  })

  describe('unmapping', () => {
    test('removes every mapping inside the range and counts their bytes', async () => {
      await readySpace(at, alice)
      await map(item(0x1000n), item(0x3000n), item(0x10_0000n))

      const { errors, bytes } = await at.domain.spaces.unmap(alice, 'space', [
        { iova: 0n, length: 0x10_0000n },
      ])

      expect([errors, bytes]).toEqual([[undefined], 0x2000n])
      expect(mapped()).toEqual([0x10_0000n])
    })

    test('refuses to cut a mapping, and names it: MAPPING_STRADDLES', async () => {
      await readySpace(at, alice)
      await map(item(0x1000n, { length: 0x2000n }))

      const { errors } = await at.domain.spaces.unmap(alice, 'space', [
        { iova: 0x2000n, length: PAGE },
      ])

      expect(errors[0]).toMatchObject({ reason: 'MAPPING_STRADDLES' })
      expect(errors[0]?.message).toContain('0x1000..0x2fff of memory "ram"')
      expect(mapped()).toEqual([0x1000n])
    })

    test('everything leaves nothing pinned', async () => {
      await readySpace(at, alice)
      await at.domain.devices.open(alice, 'space', EDU)
      await map(item(0x1000n), item(0x3000n))
      expect(at.pinned()).toBe(2n)

      const { bytes } = await at.domain.spaces.unmap(alice, 'space', 'all')

      expect([bytes, at.pinned(), mapped()]).toEqual([0x2000n, 0n, []])
    })

    test('in a space without groups finds nothing', async () => {
      await at.domain.spaces.create(alice, 'space')

      expect((await at.domain.spaces.unmap(alice, 'space', 'all')).bytes).toBe(0n)
    })
  })

  describe('paging through the mappings', () => {
    test('goes on from an iova, and says whether there are more', async () => {
      await readySpace(at, alice)
      await map(item(0x1000n), item(0x2000n), item(0x3000n))

      const first = at.domain.spaces.mappings(alice, 'space', { from: 0n, count: 2 })
      const rest = at.domain.spaces.mappings(alice, 'space', { from: 0x3000n, count: 2 })

      expect([first.mappings.length, first.more]).toEqual([2, true])
      expect([rest.mappings.length, rest.more]).toEqual([1, false])
    })
  })

  describe('releasing memory', () => {
    test('that is mapped is refused, and works once it is not', async () => {
      await readySpace(at, alice)
      await map(item(0x1000n))

      expect(() => at.domain.memories.release(alice, 'ram')).toThrow(
        expect.objectContaining({ reason: 'MEMORY_IN_USE' }),
      )
      await at.domain.spaces.unmap(alice, 'space', 'all')
      at.domain.memories.release(alice, 'ram')
      expect(at.domain.memories.list(alice)).toEqual([])
    })
  })

  describe('a client that is gone', () => {
    test('loses devices, mappings, groups and memory, and no other client does', async () => {
      await at.domain.binding.bind(alice, {
        devices: [OTHER_EDU],
        driver: undefined,
        wholeGroup: false,
      })
      await readySpace(at, alice)
      await map(item(0x1000n))
      await at.domain.devices.open(alice, 'space', EDU)
      await at.domain.spaces.create(bob, 'his')
      await at.domain.spaces.addGroup(bob, 'his', OTHER_EDU_GROUP)

      await at.domain.releaseClient(alice, 'it has exited')

      expect(at.pinned()).toBe(0n)
      expect(at.domain.spaces.list().map(({ id }) => id)).toEqual(['his'])
      expect(at.domain.state.memories()).toEqual([])
      expect(at.log).toContainEqual({
        event: 'released',
        fields: {
          client: 'pid 101 (alice), uid 1000',
          why: 'it has exited',
          spaces: 1,
          memories: 1,
        },
      })
      const taken = await at.domain.spaces.addGroup(bob, 'his', EDU_GROUP)
      expect(taken.state).toBe('ready')
    })

    test('whose call waits in the lane finds the space gone: NO_SUCH_SPACE', async () => {
      await readySpace(at, alice)
      const destroyed = at.domain.destroySpace(alice, 'space')
      const late = map(item(0x1000n))

      await destroyed
      await expect(late).rejects.toMatchObject({ reason: 'NO_SUCH_SPACE' })
    })
  })
})

test('the built-in machine has the edu devices that these tests use', () => {
  const groups = defaultMachine.functions
    .filter(({ kind }) => kind === 'edu')
    .map(({ address, group }) => [address, group])

  expect(groups).toEqual([
    [EDU, EDU_GROUP],
    [OTHER_EDU, OTHER_EDU_GROUP],
  ])
})
