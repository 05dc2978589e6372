import { beforeEach, describe, expect, test } from 'vitest'
import type { Client } from '../../src/domain/identity/clients.ts'
import { isOfMemory } from '../../src/domain/state/records.ts'
import { hostDevice } from '../../src/kernel/sysfs.ts'
import { MTTY, readySpace, type World, world } from './machine.ts'
import { alice, bob, person } from './people.ts'

const PAGE = 0x1000n

let at: World

beforeEach(async () => {
  at = world()
  await at.domain.memories.allocate(alice, { id: 'ram', length: 4n * PAGE, hugePage: undefined })
  await readySpace(at, alice)
  await at.domain.spaces.map(alice, 'space', {
    items: [0n, 1n].map((n) => ({
      iova: n * 0x10_0000n,
      length: 2n * PAGE,
      memoryId: 'ram',
      offset: n * 2n * PAGE,
      access: 'read-write' as const,
    })),
    allOrNothing: true,
  })
})

const invalidate = (piece: { iova: bigint; length: bigint } | 'all' = 'all', deadlineMs = 0) =>
  at.domain.spaces.invalidate(alice, 'space', { piece, deadlineMs })
const update = async (iova: bigint, length = 2n * PAGE, changes = {}) =>
  (
    await at.domain.spaces.update(alice, 'space', [
      { iova, length, memoryId: '', offset: 0n, ...changes },
    ])
  ).errors[0]?.reason
const valid = () =>
  at.domain.spaces
    .mappings(alice, 'space', { from: 0n, count: 10 })
    .mappings.filter(isOfMemory)
    .map(({ isVaddrValid }) => isVaddrValid)

describe('a remap', () => {
  test('invalidates all, then updates each', async () => {
    expect((await invalidate()).bytes).toBe(4n * PAGE)
    expect(valid()).toEqual([false, false])

    expect(await update(0n)).toBeUndefined()
    expect(valid()).toEqual([true, false])
    expect(await update(0x10_0000n)).toBeUndefined()
    expect(valid()).toEqual([true, true])
  })

  test('gives the mappings another vaddr', async () => {
    const vaddrs = () =>
      at.domain.spaces
        .mappings(alice, 'space', { from: 0n, count: 10 })
        .mappings.filter(isOfMemory)
        .map(({ memoryId, windowId, offset }) =>
          at.domain.memories.runtime(memoryId).windowOf(windowId).at(offset),
        )
    const before = vaddrs()
    await invalidate()

    const { bytes } = await at.domain.spaces.update(alice, 'space', 'all')

    expect(bytes).toBe(4n * PAGE)
    expect(vaddrs()).not.toEqual(before)
    expect(at.sim.lockedPages).toBe(4n)
  })

  test('leaves the memory charged as it was, and twice only while it has two vaddrs', async () => {
    const charged = (client: Client) =>
      at.domain.quotas.usage(client).find(({ name }) => name === 'memory_bytes')?.current
    await invalidate()
    await update(0n)
    expect(charged(alice)).toBe(8n * PAGE)

    const { token } = at.domain.handOver(alice, 0)
    await at.domain.adopt(bob, token)
    expect([charged(alice), charged(bob)]).toEqual([0n, 8n * PAGE])

    await at.domain.spaces.update(bob, 'space', 'all')
    await at.domain.spaces.invalidate(bob, 'space', { piece: 'all', deadlineMs: 0 })
    await at.domain.spaces.update(bob, 'space', 'all')
    expect([charged(alice), charged(bob)]).toEqual([0n, 4n * PAGE])
    await at.domain.releaseAll('the test is over')
    expect(charged(bob)).toBe(0n)
  })

  test('is not adopted by a client without room for both vaddrs: LIMIT_REACHED', async () => {
    await invalidate()
    await update(0n)
    const poor = person('poor', 300, { quota: { memory_bytes: 7n * PAGE } })

    await expect(at.domain.adopt(poor, at.domain.handOver(alice, 0).token)).rejects.toMatchObject({
      reason: 'LIMIT_REACHED',
      details: { quota: { limit: 'memory_bytes of uid of poor', needed: 8n * PAGE } },
    })
  })

  test('invalidates twice only after an update: VADDR_INVALID', async () => {
    await invalidate({ iova: 0n, length: 2n * PAGE })

    await expect(invalidate()).rejects.toMatchObject({ reason: 'VADDR_INVALID' })
    expect(valid()).toEqual([false, true])
  })

  test.each([
    ['a valid mapping', 0x10_0000n, 2n * PAGE, {}, 'VADDR_VALID'],
    ['part of a mapping', 0n, PAGE, {}, 'BAD_RANGE'],
    ['nothing', 0x20_0000n, PAGE, {}, 'IOVA_NOT_MAPPED'],
    ['no memory of that id', 0n, 2n * PAGE, { memoryId: 'none' }, 'NO_SUCH_MEMORY'],
    ['other bytes', 0n, 2n * PAGE, { memoryId: 'ram', offset: PAGE }, 'DIFFERENT_MEMORY'],
  ])('refuses to update %s', async (_, iova, length, changes, reason) => {
    await invalidate({ iova: 0n, length: 2n * PAGE })

    expect(await update(iova, length, changes)).toBe(reason)
    expect(valid()).toEqual([false, true])
  })

  test('refuses to cut a mapping, and where nothing is mapped', async () => {
    await expect(invalidate({ iova: 0n, length: PAGE })).rejects.toMatchObject({
      reason: 'MAPPING_STRADDLES',
    })
    await expect(invalidate({ iova: 0x20_0000n, length: PAGE })).rejects.toMatchObject({
      reason: 'IOVA_NOT_MAPPED',
    })
  })

  test('that is not finished by its deadline is restored', async () => {
    await invalidate('all', 1)

    await expect.poll(valid).toEqual([true, true])
    expect(at.log).toContainEqual({
      event: 'vaddr-restored',
      fields: {
        client: 'pid 101 (alice), uid 1000',
        why: 'vaddrs of "space" were not updated in time: 2 have their former memory again',
        spaces: 1,
        memories: 0,
      },
    })
  })

  test('has one deadline, which a later call does not move, and is told when that is', async () => {
    const first = await invalidate({ iova: 0x10_0000n, length: 0x10_0000n }, 20_000)
    const second = await invalidate({ iova: 0n, length: 0x10_0000n }, 60_000)

    expect(first.deadlineMs).toBe(20_000)
    expect(second.deadlineMs).toBeLessThanOrEqual(20_000)
  })

  test('ends with its space', async () => {
    await invalidate('all', 1)
    await at.domain.destroySpace(alice, 'space')

    expect(at.sim.lockedPages).toBe(0n)
    expect(at.log).toEqual([])
  })

  test('keeps a group out while a vaddr is invalid: REMAP_BLOCKED', async () => {
    await invalidate()
    const device = await hostDevice(at.sim.kernel, MTTY)

    await expect(
      at.domain.spaces.addGroup(alice, 'space', device?.group ?? -1),
    ).rejects.toMatchObject({
      reason: 'REMAP_BLOCKED',
      details: {
        blockers: [
          { found: 'without a valid vaddr', fix: 'update it' },
          { found: 'without a valid vaddr', fix: 'update it' },
        ],
      },
    })
  })

  test('is refused where a mediated device looks memory up by vaddr: REMAP_BLOCKED', async () => {
    const device = await hostDevice(at.sim.kernel, MTTY)
    await at.domain.spaces.addGroup(alice, 'space', device?.group ?? -1)

    await expect(invalidate()).rejects.toMatchObject({
      reason: 'REMAP_BLOCKED',
      details: { blockers: [{ subject: `group ${device?.group}` }] },
    })
    await expect(invalidate()).rejects.toThrow('is of a mediated device')
    expect(valid()).toEqual([true, true])
  })

  test('is refused in a space without a group, which is named as the blocker: REMAP_BLOCKED', async () => {
    await at.domain.spaces.create(alice, 'empty')

    const refused = at.domain.spaces.invalidate(alice, 'empty', { piece: 'all', deadlineMs: 0 })
    await expect(refused).rejects.toMatchObject({
      reason: 'REMAP_BLOCKED',
      details: {
        blockers: [{ subject: 'address space "empty"', found: 'without a group', fix: 'add one' }],
      },
    })
  })
})
