import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { type Client, ownerOf } from '../../src/domain/identity/clients.ts'
import { Quotas, type Usage } from '../../src/domain/identity/quotas.ts'
import { State } from '../../src/domain/state/state.ts'
import { hostDevice } from '../../src/kernel/sysfs.ts'
import { defaultQuotas, QUOTAS, type Quota, shareOf } from '../../src/rules/policy.ts'
import { EDU, EDU_GROUP, MTTY, readySpace, world } from './machine.ts'
import { alice, bob, person } from './people.ts'

/** Of a host with 16 GiB. */
const DEFAULTS = defaultQuotas(1n << 34n)

const limited = (quota: Record<string, bigint>) => person('limited', 200, { quota })
const refusal = (limit: string, max: bigint, current: bigint, needed: bigint) =>
  expect.objectContaining({
    reason: 'LIMIT_REACHED',
    details: { quota: { limit, max, current, needed } },
  })

describe('Quotas', () => {
  const quotasOf = (total: Quota = {}) => new Quotas(new State(), () => total, DEFAULTS)
  const used = (usage: readonly Usage[]) => usage.filter(({ current }) => current !== 0n)

  test('are shared by the clients of one identity', () => {
    const quotas = quotasOf()
    const [one, two] = [limited({ devices: 2n }), { ...limited({ devices: 2n }), id: 'second' }]
    const charge = quotas.charge(one, { devices: 1n })
    quotas.charge(two, { devices: 1n })

    expect(() => quotas.charge(two, { devices: 1n })).toThrow(
      refusal('devices of uid of limited', 2n, 2n, 1n),
    )
    charge.release()
    expect(() => quotas.charge(two, { devices: 1n })).not.toThrow()
  })

  test('hold for all together', () => {
    const quotas = quotasOf({ mappings: 1n })
    quotas.charge(alice, { mappings: 1n })

    expect(() => quotas.charge(limited({}), { mappings: 1n })).toThrow(
      refusal('mappings of all clients', 1n, 1n, 1n),
    )
  })

  test('hold all of the amounts or none', () => {
    const quotas = quotasOf()
    const client = limited({ locked_bytes: 10n })

    expect(() => quotas.charge(client, { mappings: 1n, locked_bytes: 11n })).toThrow()
    expect(used(quotas.usage(client))).toEqual([])
    expect(used(quotas.totalUsage())).toEqual([])
  })

  test('take a charge back once, however often it is released', () => {
    const quotas = quotasOf()
    const charge = quotas.charge(alice, { streams: 1n })
    quotas.charge(alice, { streams: 1n })
    charge.release()
    charge.release()

    expect(used(quotas.usage(alice))).toMatchObject([{ name: 'streams', current: 1n }])
  })

  test('count records and charges together', () => {
    const state = new State()
    const quotas = new Quotas(state, () => ({}), DEFAULTS)
    const client = limited({ address_spaces: 2n })
    state.apply({ kind: 'space-created', space: { id: 'a', owner: ownerOf(client) } })
    quotas.charge(client, { address_spaces: 1n })

    expect(() => quotas.charge(client, { address_spaces: 1n })).toThrow(
      refusal('address_spaces of uid of limited', 2n, 2n, 1n),
    )
  })

  test('are told for each account that uses something', () => {
    const state = new State()
    const quotas = new Quotas(state, () => ({}), DEFAULTS)
    state.apply({ kind: 'space-created', space: { id: 'a', owner: ownerOf(alice) } })
    quotas.charge(alice, { address_spaces: 1n, streams: 1n })
    quotas.charge(bob, { watches: 1n }).release()

    expect([...quotas.usageByAccount()]).toEqual([
      [alice.account, { address_spaces: 2n, fds: 1n, streams: 1n }],
    ])
  })

  test('let an identity adopt what it has room for, which is not new to all together', () => {
    const quotas = quotasOf({ mappings: 1n })
    quotas.charge(alice, { mappings: 1n })
    const adopt = (to: Client) => quotas.requireRoomToAdopt(alice.identity, to, { mappings: 1n })

    expect(() => adopt(limited({ mappings: 0n }))).toThrow()
    expect(() => adopt(limited({}))).not.toThrow()
  })
})

describe('over its quota a client is refused', () => {
  const item = {
    iova: 0n,
    length: 0x1000n,
    memoryId: 'ram',
    offset: 0n,
    access: 'read-write' as const,
  }

  test.each([
    ['address_spaces', 0n],
    ['memories', 0n],
    ['allocated_bytes', 0xfffn],
    ['mappings', 0n],
    ['locked_bytes', 0xfffn],
    ['devices', 0n],
    ['sessions', 0n],
    ['streams', 0n],
    ['watches', 0n],
  ])('%s', async (name, max) => {
    const at = world()
    const client = limited({ [name]: max })
    const { domain, sim } = at
    const never = new AbortController().signal

    const everything = async () => {
      await domain.memories.allocate(client, { id: 'ram', length: 0x1000n, hugePage: undefined })
      await readySpace(at, client)
      const { errors } = await domain.spaces.map(client, 'space', {
        items: [item],
        allOrNothing: false,
      })
      if (errors[0] !== undefined) throw errors[0]
      await domain.devices.open(client, 'space', EDU)
      await domain.irqs.watch(client, { name: EDU, index: 1, start: 0, count: 1 }, never).next()
      await domain.spaces.create(client, 'serial')
      const mtty = await hostDevice(sim.kernel, MTTY)
      await domain.spaces.addGroup(client, 'serial', mtty?.group ?? -1)
      await domain.devices.open(client, 'serial', MTTY)
      await domain.migration.setState(client, MTTY, 'STOP_COPY')
      await domain.inventory.watch(client, never).next()
    }

    await expect(everything()).rejects.toMatchObject({
      reason: 'LIMIT_REACHED',
      details: { quota: { limit: `${name} of uid of limited`, max, current: 0n } },
    })
  })

  test('fds: one of each vector that a stream reports, besides those of space and device', async () => {
    const at = world()
    const client = limited({ fds: 4n })
    await readySpace(at, client)
    await at.domain.devices.open(client, 'space', EDU)
    const vectors = { name: EDU, index: 1, start: 0, count: 1 }
    const events = at.domain.irqs.watch(client, vectors, new AbortController().signal)

    await expect(events.next()).rejects.toMatchObject({
      reason: 'LIMIT_REACHED',
      details: { quota: { limit: 'fds of uid of limited', max: 4n, current: 4n, needed: 1n } },
    })
  })

  test('and everything is given back when it is gone', async () => {
    const at = world()
    const client = limited({})
    const { domain, sim } = at
    await domain.memories.allocate(client, { id: 'ram', length: 0x1000n, hugePage: undefined })
    await readySpace(at, client)
    await domain.spaces.map(client, 'space', { items: [item], allOrNothing: true })
    await domain.devices.open(client, 'space', EDU)
    const mtty = await hostDevice(sim.kernel, MTTY)
    await domain.spaces.create(client, 'serial')
    await domain.spaces.addGroup(client, 'serial', mtty?.group ?? -1)
    await domain.devices.open(client, 'serial', MTTY)
    await domain.migration.setState(client, MTTY, 'RESUMING')
    const used = domain.quotas.usage(client).filter(({ current }) => current > 0n)
    expect(used.map(({ name, current }) => [name, current])).toEqual([
      ['locked_bytes', 0x1000n],
      ['mappings', 1n],
      ['address_spaces', 2n],
      ['memories', 1n],
      ['memory_bytes', 0x1000n],
      ['allocated_bytes', 0x1000n],
      ['devices', 2n],
      ['sessions', 1n],
      ['fds', 10n],
    ])

    await domain.releaseClient(client, 'it has exited')

    expect(domain.quotas.totalUsage().filter(({ current }) => current !== 0n)).toEqual([])
  })
})

describe('where the policy says nothing', () => {
  const MEMORY = 1n << 34n
  const { identity, admin, total } = defaultQuotas(MEMORY)

  test.each(QUOTAS.map((name) => [name] as const))('%s has a limit, of one and of all', (name) => {
    expect(identity[name]).toBeGreaterThan(0n)
    expect(admin[name]).toBeGreaterThanOrEqual(identity[name])
    expect(total[name]).toBeGreaterThanOrEqual(admin[name])
    // One identity does not take what is kept for administrators.
    expect(shareOf(total[name], 'operate')).toBeGreaterThan(identity[name])
  })

  test('a share of the memory of the host is left to the host', () => {
    for (const name of ['locked_bytes', 'allocated_bytes'] as const) {
      expect([identity[name], admin[name], total[name]]).toEqual([
        MEMORY / 2n,
        (MEMORY / 8n) * 7n,
        (MEMORY / 8n) * 7n,
      ])
    }
  })

  test('memory of the host is pinned up to the share of an identity: LIMIT_REACHED', async () => {
    const memoryBytes = 1n << 20n
    const at = world({ memoryBytes })
    const tenant = person('tenant', 200, { role: 'operate' })
    const item = (page: bigint, length: bigint) => ({
      iova: page * 0x1000n,
      length,
      memoryId: 'ram',
      offset: 0n,
      access: 'read-write' as const,
    })
    const map = async (page: bigint, length: bigint) => {
      const items = [item(page, length)]
      const { errors } = await at.domain.spaces.map(tenant, 'space', { items, allOrNothing: false })
      return errors[0]
    }
    await at.domain.binding.bind(alice, { devices: [EDU], driver: undefined, wholeGroup: false })
    await at.domain.memories.allocate(tenant, { id: 'ram', length: 0x80000n, hugePage: undefined })
    await at.domain.spaces.create(tenant, 'space')
    await at.domain.spaces.addGroup(tenant, 'space', EDU_GROUP)

    expect(await map(0n, memoryBytes / 2n)).toBeUndefined()
    expect(await map(0x1000n, 0x1000n)).toMatchObject({
      reason: 'LIMIT_REACHED',
      message: expect.stringContaining('is 524288 bytes mapped for devices and 524288 are in use'),
    })
    await at.domain.releaseAll('the test is over')
  })
})

describe('what there is for all', () => {
  const connect = (quotas: Quotas, client: Client) => quotas.charge(client, { connections: 1n })

  test('is kept in part for administrators, who always get in', () => {
    const quotas = new Quotas(new State(), () => ({ connections: 32n }), DEFAULTS)
    const crowd = Array.from({ length: 30 }, (_, n) => person(`user ${n}`, n, { role: 'operate' }))
    const admin = person('admin')
    for (const each of crowd) connect(quotas, each)

    expect(() => connect(quotas, person('late', 99, { role: 'operate' }))).toThrow(
      'the quota of all clients without the role admin is 30 connections',
    )
    expect(() => connect(quotas, admin)).not.toThrow()
    expect(() => connect(quotas, admin)).not.toThrow()
    expect(() => connect(quotas, admin)).toThrow('the quota of all clients is 32 connections')
  })

  test('is not taken by identities without a role, which have 8 connections', () => {
    const quotas = new Quotas(new State(), () => ({}), DEFAULTS)
    const stranger = person('stranger', 1, { role: 'none' })
    for (let n = 0; n < 8; n += 1) connect(quotas, stranger)

    expect(() => connect(quotas, stranger)).toThrow('is 8 connections and 8 are in use')
  })
})

test('every quota is charged somewhere, or asked for as a rate', () => {
  const src = new URL('../../src/', import.meta.url)
  const text = ['domain', 'api']
    .flatMap((room) =>
      readdirSync(new URL(room, src), { recursive: true, encoding: 'utf8' })
        .filter((file) => file.endsWith('.ts'))
        .map((file) => readFileSync(new URL(`${room}/${file}`, src), 'utf8')),
    )
    .join('\n')
  const isUsed = (name: string): boolean =>
    new RegExp(`\\b${name}: (?:1n|BigInt\\(|length\\b|locked\\b)|= '${name}'`).test(text)

  expect(QUOTAS.filter((name) => !isUsed(name))).toEqual([])
})

describe('the addresses of the daemon', () => {
  test('are not used up by memory of which nothing is used: LIMIT_REACHED', async () => {
    const at = world({ memoryBytes: 1n << 46n })
    const greedy = person('greedy')
    const victim = person('victim')
    const allocate = (client: Client, length: bigint) =>
      at.domain.memories.allocate(client, { id: '', length, hugePage: undefined })
    await allocate(greedy, 1n << 44n)

    await expect(allocate(greedy, 0x1000n)).rejects.toMatchObject({
      reason: 'LIMIT_REACHED',
      details: { quota: { limit: 'memory_bytes of uid of greedy', max: 1n << 44n } },
    })
    expect((await allocate(victim, 0x1000n)).length).toBe(0x1000n)
    await at.domain.releaseAll('the test is over')
  })
})
