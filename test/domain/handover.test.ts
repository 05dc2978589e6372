import { beforeEach, describe, expect, test, vi } from 'vitest'
import type { Event } from '../../src/domain/state/events.ts'
import { waitingOffers } from '../../src/domain/state/owner.ts'
import { hostDevice } from '../../src/kernel/sysfs.ts'
import { describeModes } from '../modes.ts'
import { EDU, EDU_GROUP, MTTY, readySpace, type World, world } from './machine.ts'
import { alice, bob, person } from './people.ts'

const PAGE = 0x1000n

describeModes('handing over', (mode) => {
  let at: World

  beforeEach(async () => {
    at = world({}, { mode })
    await at.domain.memories.allocate(alice, { id: 'ram', length: PAGE, hugePage: undefined })
    await readySpace(at, alice)
    await at.domain.spaces.map(alice, 'space', {
      items: [{ iova: 0n, length: PAGE, memoryId: 'ram', offset: 0n, access: 'read-write' }],
      allOrNothing: true,
    })
    await at.domain.devices.open(alice, 'space', EDU)
  })

  const owners = () =>
    [...at.domain.spaces.list(), ...at.domain.state.memories()].map((o) => o.owner.id)

  describe('a handover', () => {
    test('gives everything to who presents the token: mappings and open devices stay', async () => {
      const { token } = at.domain.handOver(alice, 0)

      expect(await at.domain.adopt(bob, token)).toEqual({ spaces: 1, memories: 1 })

      expect(owners()).toEqual(['bob', 'bob'])
      expect(at.pinned()).toBe(1n)
      expect(at.domain.devices.get(bob, EDU).isClosed).toBe(false)
      expect(() => at.domain.devices.get(alice, EDU)).toThrow(
        expect.objectContaining({ reason: 'NOT_MM_OWNER' }),
      )
    })

    test('works when the owner is gone first, until the deadline', async () => {
      const { token } = at.domain.handOver(alice, 0)
      await at.domain.releaseClient(alice, 'it runs another image')
      expect(at.pinned()).toBe(1n)

      await at.domain.adopt(bob, token)

      expect(owners()).toEqual(['bob', 'bob'])
    })

    test('works when the owner goes afterwards: nothing of it is left to release', async () => {
      const { token } = at.domain.handOver(alice, 0)
      await at.domain.adopt(bob, token)

      await at.domain.releaseClient(alice, 'it has exited')

      expect(owners()).toEqual(['bob', 'bob'])
      expect(at.pinned()).toBe(1n)
    })

    test('that no process takes in time is released when the owner is gone, and says so', async () => {
      at.domain.handOver(alice, 5)
      await at.domain.releaseClient(alice, 'it has exited')

      await expect.poll(owners).toEqual([])
      expect(at.pinned()).toBe(0n)
      expect(at.log.map(({ event }) => event)).toEqual([
        'handover-offered',
        'handover-expired',
        'released',
      ])
      expect(at.log[2]?.fields.why).toBe('it has exited, and no client adopted within 5 ms')
    })

    test('is named by a refusal when the owner is gone, with the ways to get what it keeps', async () => {
      at.domain.handOver(alice, 0)
      await at.domain.spaces.create(bob, 'other')
      const refusal = () => at.domain.spaces.addGroup(bob, 'other', EDU_GROUP)
      await expect(refusal()).rejects.toThrow(
        /of pid 101 \(alice\), uid 1000; remove it there first$/,
      )

      await at.domain.releaseClient(alice, 'it has exited')

      const waits =
        /of pid 101 \(alice\), uid 1000, which is gone and has handed it over: it waits \d+ s for the token; adopt it with the token, or have an administrator release client alice$/
      await expect(refusal()).rejects.toThrow(waits)
      await expect(
        at.domain.binding.unbind(bob, { devices: [EDU], wholeGroup: false }),
      ).rejects.toThrow(waits)
      await expect(at.domain.destroySpace(bob, 'space')).rejects.toThrow(
        /it belongs to pid 101 \(alice\), uid 1000, which is gone and has handed it over/,
      )
      expect(waitingOffers(at.domain.state)).toMatchObject([
        { owner: { id: 'alice' }, gone: 'it has exited' },
      ])
    })

    test('ends when an administrator releases the owner that is gone: the token is void', async () => {
      const { token } = at.domain.handOver(alice, 0)
      await at.domain.releaseClient(alice, 'it has exited')

      await at.domain.evict(alice, 'uid 0 said so')

      expect(owners()).toEqual([])
      expect(at.sim.lockedPages).toBe(0n)
      expect(waitingOffers(at.domain.state)).toEqual([])
      expect(at.log.map(({ event }) => event)).toEqual([
        'handover-offered',
        'handover-expired',
        'released',
      ])
      await expect(at.domain.adopt(bob, token)).rejects.toMatchObject({ reason: 'BAD_TICKET' })
    })

    test('that no process takes in time changes nothing when the owner has come back', async () => {
      vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
      at.domain.handOver(alice, 1000)
      await at.domain.releaseClient(alice, 'its lease ran out')

      at.domain.clientReturned(alice)
      expect(waitingOffers(at.domain.state)).toEqual([])
      await vi.advanceTimersByTimeAsync(1000)
      for (let turn = 0; turn < 4; turn += 1) await new Promise(setImmediate)
      vi.useRealTimers()

      expect(owners()).toEqual(['alice', 'alice'])
    })

    test('that no process takes in time changes nothing while the owner lives', async () => {
      const { token } = at.domain.handOver(alice, 1)
      await expect.poll(() => at.log.map(({ event }) => event)).toContain('handover-expired')

      expect(owners()).toEqual(['alice', 'alice'])
      await expect(at.domain.adopt(bob, token)).rejects.toMatchObject({ reason: 'BAD_TICKET' })
    })

    test('works once: the second presenter is refused', async () => {
      const { token } = at.domain.handOver(alice, 0)
      const both = await Promise.allSettled([
        at.domain.adopt(bob, token),
        at.domain.adopt(person('carol', 103), token),
      ])

      expect(both.map(({ status }) => status)).toEqual(['fulfilled', 'rejected'])
      expect(owners()).toEqual(['bob', 'bob'])
    })

    test('voids the offer before it', async () => {
      const first = at.domain.handOver(alice, 0)
      at.domain.handOver(alice, 0)

      await expect(at.domain.adopt(bob, first.token)).rejects.toMatchObject({
        reason: 'BAD_TICKET',
      })
    })

    test('is not for the owner itself', async () => {
      const { token } = at.domain.handOver(alice, 0)

      await expect(at.domain.adopt(alice, token)).rejects.toMatchObject({ reason: 'BAD_ARGUMENT' })
    })

    test('to an identity without room for it changes nothing, and the token stays good', async () => {
      const small = person('dave', 104, { quota: { mappings: 0n } })
      const { token } = at.domain.handOver(alice, 0)

      await expect(at.domain.adopt(small, token)).rejects.toMatchObject({
        reason: 'LIMIT_REACHED',
        details: { quota: { max: 0n, current: 0n, needed: 1n } },
      })

      expect(owners()).toEqual(['alice', 'alice'])
      await expect(at.domain.adopt(bob, token)).resolves.toBeDefined()
    })

    test('to an identity that a device is not allowed to changes nothing, and the token stays good', async () => {
      const other = person('dave', 104, { devices: ['1234:ffff'] })
      const { token } = at.domain.handOver(alice, 0)

      const refused = at.domain.adopt(other, token)
      await expect(refused).rejects.toMatchObject({ reason: 'DEVICE_NOT_ALLOWED' })
      await expect(refused).rejects.toThrow(`the policy does not allow ${EDU}`)

      expect(owners()).toEqual(['alice', 'alice'])
      await expect(at.domain.adopt(bob, token)).resolves.toBeDefined()
    })

    test('takes a migration session along', async () => {
      const device = await hostDevice(at.sim.kernel, MTTY)
      await at.domain.spaces.create(alice, 'serial')
      await at.domain.spaces.addGroup(alice, 'serial', device?.group ?? -1)
      await at.domain.devices.open(alice, 'serial', MTTY)
      await at.domain.migration.setState(alice, MTTY, 'STOP_COPY')

      const { token } = at.domain.handOver(alice, 0)
      await at.domain.adopt(bob, token)
      const pieces: number[] = []
      const whole = { name: MTTY, sessionId: 0n, from: undefined, connection: 'of bob' }
      for await (const event of at.domain.migration.read(
        bob,
        whole,
        new AbortController().signal,
      )) {
        if (event.kind === 'data') pieces.push(event.chunk.length)
      }

      expect(pieces).toEqual([96])
      await expect(at.domain.migration.state(alice, MTTY)).rejects.toMatchObject({
        reason: 'NOT_MM_OWNER',
      })
    })

    test('ends the streams of the former owner', async () => {
      const events = at.domain.irqs.watch(
        alice,
        { name: EDU, index: 1, start: 0, count: 1 },
        new AbortController().signal,
      )
      expect((await events.next()).value).toEqual({ kind: 'armed' })
      const next = events.next()

      await at.domain.adopt(bob, at.domain.handOver(alice, 0).token)

      await expect(next).rejects.toMatchObject({ reason: 'NOT_MM_OWNER' })
    })

    test('refuses what the former owner has in the lane by then', async () => {
      const { token } = at.domain.handOver(alice, 0)
      const space = at.domain.spaces.owned(alice, 'space')
      let goOn = () => {}
      const busy = space.lane.run(
        () =>
          new Promise<void>((resolve) => {
            goOn = resolve
          }),
      )
      const late = at.domain.spaces.unmap(alice, 'space', 'all')
      await at.domain.adopt(bob, token)
      goOn()
      await busy

      await expect(late).rejects.toMatchObject({ reason: 'NOT_MM_OWNER' })
      expect(at.pinned()).toBe(1n)
    })
  })

  test('events tell a watcher what happened, and only what it wants', async () => {
    const stop = new AbortController()
    const seen: Event[] = []
    const watching = (async () => {
      const wanted = (event: Event) => event.clients.includes(bob.id)
      for await (const event of at.domain.watchEvents(bob, wanted, stop.signal)) seen.push(event)
    })()
    await at.domain.adopt(bob, at.domain.handOver(alice, 0).token)
    await at.domain.releaseClient(bob, 'it has exited')
    await expect.poll(() => seen.length).toBe(2)
    stop.abort()
    await watching

    expect(seen).toMatchObject([
      { kind: 'adopted', client: 'pid 102 (bob), uid 1000', spaces: 1, memories: 1 },
      { kind: 'released', why: 'it has exited' },
    ])
  })

  test('an admin may add a group to the space of another, who then uses it', async () => {
    const user = person('user', 105, { role: 'operate', addsGroups: false })
    await at.domain.destroySpace(alice, 'space')
    await at.domain.spaces.create(user, 'delegated')

    const refused = at.domain.spaces.addGroup(user, 'delegated', EDU_GROUP)
    await expect(refused).rejects.toMatchObject({ reason: 'ROLE_NEEDED' })
    expect((await at.domain.spaces.addGroup(alice, 'delegated', EDU_GROUP)).state).toBe('ready')
    await expect(at.domain.devices.open(user, 'delegated', EDU)).resolves.toBeDefined()
  })

  test('a device that the policy does not allow is refused: DEVICE_NOT_ALLOWED', async () => {
    const user = person('user', 105, { role: 'operate', devices: ['1234:ffff'] })
    await at.domain.destroySpace(alice, 'space')
    await at.domain.spaces.create(user, 'his')

    const refused = at.domain.spaces.addGroup(user, 'his', EDU_GROUP)
    await expect(refused).rejects.toMatchObject({ reason: 'DEVICE_NOT_ALLOWED' })
    await expect(refused).rejects.toThrow('the policy does not allow 0000:00:04.0')
    await expect(
      at.domain.binding.unbind(user, { devices: [EDU], wholeGroup: false }),
    ).rejects.toMatchObject({ reason: 'DEVICE_NOT_ALLOWED' })
  })
})
