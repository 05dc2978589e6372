/** Events: every kind that the proto promises is sent when it happens, and to whom it concerns. */

import { readFileSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { EVENT_KINDS, type Event, eventOf } from '../../src/domain/state/events.ts'
import { EDU, OTHER_EDU, readySpace, type World, world } from './machine.ts'
import { command, DECODING_OFF, map, peers, region } from './peer-machine.ts'
import { alice, bob, person } from './people.ts'

let at: World
let seen: Event[]

beforeEach(async () => {
  at = world()
  seen = []
  at.domain.state.listen((change) => {
    const event = eventOf(change)
    if (event !== undefined) seen.push(event)
  })
  await at.domain.memories.allocate(alice, { id: 'ram', length: 0x1000n, hugePage: undefined })
  await readySpace(at, alice)
})

afterEach(() => at.domain.releaseAll('the test is over'))

/** The host wants a device back that is in error and lost, and its owner does nothing. */
async function loseDevice(): Promise<void> {
  const [hasty, device] = [person('hasty', 103, { releaseAskedAfterMs: 1 }), '0000:00:07.0']
  const { domain, sim } = at
  await domain.binding.bind(hasty, { devices: [device], driver: undefined, wholeGroup: false })
  await domain.spaces.create(hasty, 'lost')
  await domain.spaces.addGroup(hasty, 'lost', (await domain.inventory.device(device)).group)
  await domain.devices.open(hasty, 'lost', device)
  for (const kind of ['aer', 'lose'] as const) {
    sim.faults.inject({ name: 'fault', nth: 1, times: 1, effect: { kind, device } })
    await domain.inventory.device(device)
  }
  await expect.poll(kinds).toContain('device-taken')
  await sim.kernel.writeFile('/sys/bus/pci/drivers/vfio-pci/unbind', device)
  await domain.spaces.get('lost')
}

const kinds = () => seen.map(({ kind }) => kind)

/** Maps a page whose vaddr is invalid for a millisecond. */
async function invalidate(): Promise<void> {
  const item = { iova: 0n, length: 0x1000n, memoryId: 'ram', offset: 0n, access: 'read' } as const
  await at.domain.spaces.map(alice, 'space', { items: [item], allOrNothing: true })
  await at.domain.spaces.invalidate(alice, 'space', { piece: 'all', deadlineMs: 1 })
}

describe('an event', () => {
  test('names the released resources, and why', async () => {
    await at.domain.releaseClient(alice, 'it has exited')

    expect(seen).toEqual([
      {
        kind: 'released',
        clients: ['alice'],
        client: 'pid 101 (alice), uid 1000',
        why: 'it has exited',
        spaces: 1,
        memories: 1,
      },
    ])
  })

  test('says that a handover was offered and adopted, to both', async () => {
    const { token } = at.domain.handOver(alice, 1000)
    await at.domain.adopt(bob, token)

    expect(seen).toMatchObject([
      { kind: 'handover-offered', clients: ['alice'], why: 'for 1000 ms' },
      { kind: 'adopted', clients: ['bob', 'alice'], spaces: 1, memories: 1 },
    ])
  })

  test('says that no process adopted in time', async () => {
    at.domain.handOver(alice, 1)

    await expect.poll(kinds).toEqual(['handover-offered', 'handover-expired'])
  })

  test('says that vaddrs were restored at their deadline', async () => {
    await invalidate()

    await expect.poll(kinds).toEqual(['vaddr-restored'])
    expect(seen[0]).toMatchObject({ clients: ['alice'], spaces: 1, memories: 0 })
  })

  test('says that a lease ran out, before it says what that released', async () => {
    await at.domain.expireLease(alice, 'its lease ran out')

    expect(kinds()).toEqual(['lease-expired', 'released'])
  })

  test('comes to a watcher that wants it, until its signal', async () => {
    const end = new AbortController()
    const events = at.domain.watchEvents(bob, ({ clients }) => clients.includes('bob'), end.signal)
    const { token } = at.domain.handOver(alice, 1000)
    await at.domain.adopt(bob, token)
    const first = await events[Symbol.asyncIterator]().next()
    end.abort()

    expect(first.value).toMatchObject({ kind: 'adopted' })
    const watches = at.domain.quotas.usage(bob).find(({ name }) => name === 'watches')
    expect(watches?.current).toBe(0n)
  })

  test('is sent for every kind that the proto has', async () => {
    const proto = readFileSync('proto/vfiod/v1/ownership.proto', 'utf8')
    const names = [...proto.matchAll(/^ {2}EVENT_KIND_(\w+) = [1-9]/gm)].map(([, name]) => name)

    expect(names.map((name) => name?.toLowerCase().replaceAll('_', '-')).sort()).toEqual(
      [...EVENT_KINDS].sort(),
    )
    await invalidate()
    at.domain.handOver(alice, 1)
    await expect.poll(kinds).toContain('vaddr-restored')
    await expect.poll(kinds).toContain('handover-expired')
    await at.domain.adopt(bob, at.domain.handOver(alice, 1000).token)
    await at.domain.spaces.create(bob, 'last')
    await peers(at, bob, [OTHER_EDU], 'peers')
    await map(at, bob, region(), 'peers')
    await command(at, bob, OTHER_EDU, DECODING_OFF)
    await loseDevice()
    await at.domain.expireLease(bob, 'its lease ran out')
    expect([...new Set(kinds())].sort()).toEqual([...EVENT_KINDS].sort())
  })
})

describe('a device that is open', () => {
  test('is of who adopted it', async () => {
    await at.domain.devices.open(alice, 'space', EDU)
    const { token } = at.domain.handOver(alice, 1000)
    await at.domain.adopt(bob, token)

    expect(at.domain.devices.get(bob, EDU).name).toBe(EDU)
    expect(() => at.domain.devices.get(alice, EDU)).toThrow('it belongs to pid 102')
  })
})
