/** Hot resets: of a device that cannot be reset by itself, as it changes hands or as its owner asks. */

import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { FaultSpec } from '../../src/backends/sim/spec/fault-spec.ts'
import { VfiodError } from '../../src/base/error.ts'
import type { Client } from '../../src/domain/identity/clients.ts'
import { hotResetScope } from '../../src/kernel/hot-reset-calls.ts'
import { BUFFER, REG, START, THEN_IRQ } from '../contract/edu-driver.ts'
import { describeModes } from '../modes.ts'
import {
  ABOVE,
  BELOW,
  busMachine,
  FIRST,
  MIGRATES,
  NESTED_BRIDGE,
  PLAIN,
  SECOND,
} from './bus-machine.ts'
import { EDU, EDU_GROUP, type World, world } from './machine.ts'
import { alice, bob, person } from './people.ts'
import { requireCleanEnd, requireRightBooks, WatchedKernel } from './watched-kernel.ts'

const HOT_RESET = 'VFIO_DEVICE_PCI_HOT_RESET'
/** What edu's register of liveness answers to what was written. */
const SECRET = 0x5ec2e7aa
const ANSWER = ~SECRET >>> 0

describeModes('a hot reset', (mode) => {
  let at: World
  let watched: WatchedKernel

  beforeEach(() => start())

  function start(options: { readonly patienceMs?: number; readonly time?: 'poked' } = {}): void {
    watched = new WatchedKernel()
    at = world(busMachine, { mode, over: watched.over, ...options })
  }

  afterEach(() => requireCleanEnd(at, watched))

  type Place = { readonly name: string; readonly group: number }

  async function join(client: Client, { group }: Place, id: string = client.id): Promise<void> {
    await at.domain.spaces.create(client, id)
    await at.domain.spaces.addGroup(client, id, group)
  }

  async function open(client: Client, place: Place, id: string = client.id, mustReset = false) {
    await join(client, place, id)
    return at.domain.devices.open(client, id, place.name, { mustReset })
  }

  /** Leave something in a register of an edu. */
  async function mark(client: Client, { name }: Place): Promise<void> {
    const word = (value: number) => new Uint8Array(new Uint32Array([value]).buffer)
    const { devices } = at.domain
    await devices.write(client, { name, region: 7, offset: 4n, data: word(6).subarray(0, 2) })
    await devices.write(client, { name, region: 0, offset: 4n, data: word(SECRET) })
  }

  async function marked(client: Client, { name }: Place): Promise<number> {
    const { devices } = at.domain
    await devices.write(client, { name, region: 7, offset: 4n, data: new Uint8Array([6, 0]) })
    const bytes = await devices.read(client, { name, region: 0, offset: 4n, length: 4 })
    return Buffer.from(bytes).readUInt32LE()
  }

  const fault = (spec: Partial<FaultSpec> & Pick<FaultSpec, 'effect'>) =>
    at.sim.faults.inject({ name: 'fault', nth: 1, times: 1, ...spec })

  const reset = (client: Client, { name }: Place, withOpen = false) =>
    at.domain.devices.hotReset(client, name, withOpen)

  const lastUser = async ({ name }: Place) => (await at.domain.inventory.device(name)).lastUser?.id

  /** What its last user has left in it, and nobody has it any more. */
  async function used(client: Client, place: Place): Promise<void> {
    await open(client, place)
    await mark(client, place)
    expect(await marked(client, place)).toBe(ANSWER)
    await at.domain.releaseClient(client, 'it has exited')
  }

  describe('of a device that changes hands', () => {
    test('is made when no other device of its bus is in use: the next client finds nothing of the last one', async () => {
      await used(alice, FIRST)
      expect(await lastUser(FIRST)).toBe('alice')

      const { reset } = await open(bob, FIRST)

      expect(reset).toEqual({ kind: 'hot', why: '', blockers: [] })
      expect(await marked(bob, FIRST)).toBe(0)
      expect(await lastUser(FIRST)).toBe('bob')
    })

    test('makes the others on the bus new as well', async () => {
      await used(alice, SECOND)
      await open(bob, FIRST)

      expect(await lastUser(SECOND)).toBeUndefined()
    })

    test('is not made for the client that left it so', async () => {
      await used(alice, FIRST)

      const { reset } = await open(alice, FIRST)

      expect(reset).toMatchObject({ kind: 'none', why: 'it is as this client left it' })
      expect(await marked(alice, FIRST)).toBe(ANSWER)
    })

    test('is made at the first use since the start of the daemon, which knows of no other', async () => {
      expect((await open(alice, FIRST)).reset.kind).toBe('hot')
    })

    test('is made for the next owner after a handover, who is the last user', async () => {
      await open(alice, FIRST)
      await mark(alice, FIRST)
      await at.domain.adopt(bob, at.domain.handOver(alice, 60_000).token)
      expect(await lastUser(FIRST)).toBe('bob')
      await at.domain.releaseClient(bob, 'it has exited')

      expect((await open(alice, FIRST)).reset.kind).toBe('hot')
      expect(await marked(alice, FIRST)).toBe(0)
    })

    test('uses the groups that the client has in its address spaces, and opens the others', async () => {
      await used(alice, FIRST)
      await join(bob, SECOND, 'other')
      watched.arm()

      expect((await open(bob, FIRST)).reset.kind).toBe('hot')

      expect(watched.paths.filter((path) => /^\/dev\/vfio\/\d/.test(path))).toEqual([
        '/dev/vfio/21',
      ])
    })

    test('is not needed for a device that resets itself', async () => {
      await used(alice, PLAIN)

      expect((await open(bob, MIGRATES)).reset).toEqual({ kind: 'function', why: '', blockers: [] })
      expect(await lastUser(PLAIN)).toBe('alice')
    })

    test('of which the device does not come back, keeps it from being opened', async () => {
      await used(alice, FIRST)
      fault({ request: HOT_RESET, effect: { kind: 'errno', errno: 'ENOTTY' } })

      await expect(open(bob, FIRST)).rejects.toMatchObject({
        reason: 'DEVICE_GONE',
        details: { causes: ['bus-reset-timed-out'] },
      })
      expect(at.domain.state.device(FIRST.name)).toBeUndefined()
    })

    test('that takes too long is not waited for: the call is answered, and the device opens later', async () => {
      start({ patienceMs: 1 })
      fault({ request: HOT_RESET, effect: { kind: 'stall', steps: 0 } })
      await join(bob, FIRST)

      await expect(at.domain.devices.open(bob, 'bob', FIRST.name)).rejects.toMatchObject({
        reason: 'KERNEL_NOT_DONE',
        message: expect.stringContaining(`reset the bus of ${FIRST.name} has not finished`),
      })
      // The daemon has the other group of the bus meanwhile, and says so.
      await at.domain.spaces.create(alice, 'waits')
      await expect(at.domain.spaces.addGroup(alice, 'waits', SECOND.group)).rejects.toMatchObject({
        reason: 'KERNEL_NOT_DONE',
      })
      at.sim.faults.clear()

      expect((await at.domain.devices.open(bob, 'bob', FIRST.name)).reset.kind).toBe('hot')
      await at.domain.spaces.addGroup(alice, 'waits', SECOND.group)
    })
  })

  describe('of a device that changes hands is not made, and the next client is told,', () => {
    const told = async (why: string | RegExp, blockers: readonly object[] = []) => {
      const { reset } = await open(bob, FIRST)
      expect(reset).toMatchObject({ kind: 'none', lastUser: { id: 'alice' } })
      expect(reset.why).toMatch(why)
      expect(reset.blockers).toEqual(blockers.map((blocker) => expect.objectContaining(blocker)))
      expect(await marked(bob, FIRST)).toBe(ANSWER)
    }
    const carol = person('carol', 103)

    test('where another client has a device of its bus open, which keeps what it has', async () => {
      await open(carol, SECOND)
      await used(alice, FIRST)
      await mark(carol, SECOND)

      const found = 'open in address space "carol" of pid 103 (carol), uid 1000'
      await told(/^0000:02:00.1 is open in address space/, [{ subject: SECOND.name, found }])

      expect(await marked(carol, SECOND)).toBe(ANSWER)
    })

    test('where the group of one is a member of an address space of another client', async () => {
      await used(alice, FIRST)
      await join(carol, SECOND)

      await told(/in group 22, which is a member in address space "carol"/, [
        { subject: SECOND.name },
      ])
    })

    test('where a process outside the daemon has one open', async () => {
      await used(alice, FIRST)
      const what = { path: '/dev/vfio/22', pid: 4242, command: 'qemu' }
      fault({ call: 'readDir', effect: { kind: 'hold', ...what } })
      await at.sim.kernel.readDir('/proc')

      // By the look at all processes, or as the group cannot be opened: the look may be older than the process.
      const found = 'kept open by pid 4242 (qemu)'
      await told(/kept open by pid 4242 \(qemu\)/, [{ found }])
    })

    test('where one has another driver, or none', async () => {
      await used(alice, FIRST)
      await at.sim.kernel.writeFile('/sys/bus/pci/drivers/vfio-pci/unbind', SECOND.name)

      await told(/0000:02:00.1 is without a driver; bind it to vfio-pci/, [
        { subject: SECOND.name },
      ])
    })

    test('where the client itself has another open', async () => {
      await open(bob, SECOND, 'other')
      await used(alice, FIRST)
      await mark(bob, SECOND)

      await told(/open in address space "other" of the caller itself/, [{ subject: SECOND.name }])

      expect(await marked(bob, SECOND)).toBe(ANSWER)
    })

    test('where another call works in an address space of the client that has its bus', async () => {
      await used(alice, FIRST)
      await join(bob, SECOND, 'other')
      const [other] = at.domain.spaces.of(bob)
      let end = (): void => undefined
      const busy = other?.lane.run(() => new Promise<void>((resolve) => (end = resolve)))

      await told(/^another call works on its bus$/)

      end()
      await busy
    })

    test('where the kernel has the bus busy', async () => {
      await used(alice, FIRST)
      fault({ request: HOT_RESET, effect: { kind: 'errno', errno: 'EAGAIN' } })

      await told(/is being reset, opened, closed, added or removed just now/)
    })

    test('where a group of it is open in a process that cannot be seen', async () => {
      await used(alice, FIRST)
      fault({ call: 'open', path: '/dev/vfio/22', effect: { kind: 'errno', errno: 'EBUSY' } })

      await told(/kept open by another process/, [{ fix: 'close it there first' }])
    })

    test('where a bridge is on its bus', async () => {
      await used(alice, ABOVE)

      const { reset } = await open(bob, ABOVE)

      expect(reset).toMatchObject({ kind: 'none', lastUser: { id: 'alice' } })
      expect(reset.blockers).toEqual([expect.objectContaining({ subject: NESTED_BRIDGE })])
      expect(await lastUser(BELOW)).toBeUndefined()
    })

    test('where no bridge is above it', async () => {
      await at.domain.binding.bind(alice, { devices: [EDU], driver: undefined, wholeGroup: false })
      const edu = { name: EDU, group: EDU_GROUP }
      await used(alice, edu)
      expect(await lastUser(edu)).toBe('alice')

      const { reset } = await open(bob, edu)

      expect(reset).toMatchObject({
        kind: 'none',
        why: 'it cannot be reset by itself, and no bridge above it could reset its bus',
        lastUser: { id: 'alice' },
      })
    })
  })

  describe('that has to be made', () => {
    const careful = person('careful', 104, { opensUnreset: false })

    test.each([
      ['as the client asks', bob, true],
      ['as the policy says', careful, false],
    ])('keeps the device from being opened without, %s', async (_how, client, mustReset) => {
      await open(person('carol', 103), SECOND)
      await used(alice, FIRST)

      await expect(open(client, FIRST, 'mine', mustReset)).rejects.toMatchObject({
        reason: 'RESET_BLOCKED',
        message: expect.stringContaining(
          `Cannot open ${FIRST.name}: it has not been reset since pid 101 (alice), uid 1000 used it`,
        ),
        details: { blockers: [{ subject: SECOND.name }] },
      })
      expect(at.domain.state.device(FIRST.name)).toBeUndefined()

      await at.domain.evict(person('carol', 103), 'the test says so')
      expect((await open(client, FIRST, 'mine', mustReset)).reset.kind).toBe('hot')
    })

    test('is UNSUPPORTED where there is no way', async () => {
      await at.domain.binding.bind(alice, { devices: [EDU], driver: undefined, wholeGroup: false })

      await expect(open(careful, { name: EDU, group: EDU_GROUP })).rejects.toMatchObject({
        reason: 'UNSUPPORTED',
        message: expect.stringContaining('it has not been reset by the daemon'),
      })
    })
  })

  describe('that the owner of a device asks for', () => {
    test('resets every device of the bus, and gives back the groups that it opened for that', async () => {
      await open(alice, FIRST)
      await mark(alice, FIRST)

      const { devices: hit } = await reset(alice, FIRST)

      expect(hit.map(({ name, space, isOpen }) => [name, space?.id, isOpen])).toEqual([
        [FIRST.name, 'alice', true],
        [SECOND.name, undefined, false],
      ])
      expect(await marked(alice, FIRST)).toBe(0)
      await open(bob, SECOND)
    })

    test('leaves armed interrupts armed', async () => {
      await open(alice, FIRST)
      const end = new AbortController()
      const vectors = { name: FIRST.name, index: 1, start: 0, count: 1 }
      const irqs = at.domain.irqs.watch(alice, vectors, end.signal)
      expect(await irqs.next()).toMatchObject({ value: { kind: 'armed' } })

      await reset(alice, FIRST)

      await at.domain.irqs.trigger(alice, { name: FIRST.name, index: 1, vector: 0 })
      expect(await irqs.next()).toMatchObject({ value: { kind: 'irq', vector: 0 } })
      end.abort()
      await irqs.return()
    })

    test('ends what its devices were doing: no DMA comes afterwards', async () => {
      start({ time: 'poked' })
      await open(alice, FIRST)
      await at.domain.memories.allocate(alice, { id: 'ram', length: 4096n, hugePage: undefined })
      const item = { iova: 0n, length: 4096n, memoryId: 'ram', offset: 0n }
      await at.domain.spaces.map(alice, 'alice', {
        items: [{ ...item, access: 'read-write' }],
        allOrNothing: true,
      })
      await mark(alice, FIRST)
      const write = (offset: bigint, value: bigint) =>
        at.domain.devices.write(alice, {
          ...{ name: FIRST.name, region: 0, offset },
          data: new Uint8Array(new BigUint64Array([value]).buffer),
        })
      // From the memory into the buffer, and an interrupt when it is done.
      for (const [offset, value] of [
        [REG.dmaSource, 0n],
        [REG.dmaDestination, BUFFER],
        [REG.dmaCount, 64n],
        [REG.dmaCommand, START | THEN_IRQ],
      ] as const)
        await write(offset, value)

      await reset(alice, FIRST)
      at.sim.step()

      await at.domain.devices.write(alice, {
        ...{ name: FIRST.name, region: 7, offset: 4n, data: new Uint8Array([6, 0]) },
      })
      const status = { name: FIRST.name, region: 0, offset: REG.irqStatus, length: 4 }
      expect([...(await at.domain.devices.read(alice, status))]).toEqual([0, 0, 0, 0])
    })

    test('clears the memory behind the BARs of its devices', async () => {
      const card = '0000:01:00.0'
      await at.domain.binding.bind(alice, { devices: [card], driver: undefined, wholeGroup: true })
      const { group } = await at.domain.inventory.device(card)
      await open(alice, { name: card, group })
      const { devices } = at.domain
      await devices.write(alice, {
        name: card,
        region: 7,
        offset: 4n,
        data: new Uint8Array([6, 0]),
      })
      await devices.write(alice, { name: card, region: 0, offset: 64n, data: new Uint8Array([7]) })

      await reset(alice, { name: card, group })

      const memory = { name: card, region: 0, offset: 64n, length: 1 }
      expect([...(await devices.read(alice, memory))]).toEqual([0])
    })

    test('is blocked by a device of another client, which is named and not disturbed', async () => {
      await open(alice, FIRST)
      await open(bob, SECOND)
      await mark(bob, SECOND)

      await expect(reset(alice, FIRST, true)).rejects.toMatchObject({
        reason: 'RESET_BLOCKED',
        message: `Cannot reset the bus of ${FIRST.name}: ${SECOND.name} is open in address space "bob" of pid 102 (bob), uid 1000; close it there first`,
        details: { holder: { client: 'bob', space: 'bob' } },
      })
      expect(await marked(bob, SECOND)).toBe(ANSWER)
    })

    test('hits other devices that the owner has open only where it asks for that', async () => {
      await open(alice, PLAIN)
      await open(alice, MIGRATES, 'other')
      await at.domain.migration.setState(alice, MIGRATES.name, 'STOP_COPY')
      expect(at.domain.state.session(MIGRATES.name)).toBeDefined()

      await expect(reset(alice, PLAIN)).rejects.toMatchObject({ reason: 'RESET_BLOCKED' })
      expect(at.domain.state.session(MIGRATES.name)).toBeDefined()

      await reset(alice, PLAIN, true)
      expect(at.domain.state.session(MIGRATES.name)).toBeUndefined()
      expect(await at.domain.migration.state(alice, MIGRATES.name)).toMatchObject({
        state: 'RUNNING',
      })
    })

    test('is blocked by a device that the policy does not allow its owner', async () => {
      const dave = person('dave', 105, { devices: [FIRST.name] })
      await open(dave, FIRST)

      await expect(reset(dave, FIRST)).rejects.toMatchObject({
        reason: 'RESET_BLOCKED',
        details: { blockers: [{ found: 'not allowed to the caller by the policy' }] },
      })
    })

    test('is blocked by a bridge on the bus, and UNSUPPORTED on a root bus', async () => {
      await open(alice, ABOVE)
      await at.domain.binding.bind(alice, { devices: [EDU], driver: undefined, wholeGroup: false })
      const edu = { name: EDU, group: EDU_GROUP }
      await open(alice, edu, 'other')

      await expect(reset(alice, ABOVE)).rejects.toMatchObject({ reason: 'RESET_BLOCKED' })
      await expect(reset(alice, edu)).rejects.toMatchObject({
        reason: 'UNSUPPORTED',
        details: { causes: ['no-bus-reset'] },
      })
    })

    test('that the kernel has no time for changes nothing', async () => {
      await open(alice, PLAIN)
      await mark(alice, PLAIN)
      await open(alice, MIGRATES, 'other')
      await at.domain.migration.setState(alice, MIGRATES.name, 'STOP_COPY')
      fault({ request: HOT_RESET, effect: { kind: 'errno', errno: 'EBUSY' } })

      await expect(reset(alice, PLAIN, true)).rejects.toMatchObject({ reason: 'DEVICE_IN_USE' })

      expect(at.domain.state.session(MIGRATES.name)).toBeDefined()
      expect(await marked(alice, PLAIN)).toBe(ANSWER)
    })

    test('after which a device does not come back has ended the sessions all the same', async () => {
      await open(alice, PLAIN)
      await open(alice, MIGRATES, 'other')
      await at.domain.migration.setState(alice, MIGRATES.name, 'STOP_COPY')
      fault({ request: HOT_RESET, effect: { kind: 'errno', errno: 'ENOTTY' } })

      await expect(reset(alice, PLAIN, true)).rejects.toMatchObject({ reason: 'DEVICE_GONE' })

      expect(at.domain.state.session(MIGRATES.name)).toBeUndefined()
    })

    test('takes lanes in one order: two at once, an open and a close all end', async () => {
      await open(alice, FIRST, 'b')
      await open(alice, SECOND, 'a')
      const [one, two] = [reset(alice, FIRST, true), reset(alice, SECOND, true)]
      const closed = at.domain.devices.close(alice, FIRST.name)
      const outcomes = await Promise.allSettled([one, two, closed])

      expect(outcomes.map(({ status }) => status)).toContain('fulfilled')
      expect(at.domain.state.device(FIRST.name)).toBeUndefined()
      expect((await at.domain.devices.open(alice, 'b', FIRST.name)).reset.kind).toBe('none')
    })

    test('is not made for a client that has handed the device over meanwhile', async () => {
      await open(alice, FIRST)
      await open(alice, SECOND, 'other')
      const other = at.domain.spaces.of(alice).find(({ id }) => id === 'other')
      let end = (): void => undefined
      const busy = other?.lane.run(() => new Promise<void>((resolve) => (end = resolve)))
      const waiting = reset(alice, FIRST, true)
      await at.domain.adopt(bob, at.domain.handOver(alice, 60_000).token)
      await mark(bob, FIRST)
      end()
      await busy

      await expect(waiting).rejects.toMatchObject({ reason: 'NOT_MM_OWNER' })
      expect(await marked(bob, FIRST)).toBe(ANSWER)
    })

    test('that takes too long is answered, and leads to its end', async () => {
      start({ patienceMs: 1 })
      await open(alice, MIGRATES)
      await at.domain.migration.setState(alice, MIGRATES.name, 'STOP_COPY')
      fault({ request: HOT_RESET, effect: { kind: 'stall', steps: 0 } })

      await expect(reset(alice, MIGRATES)).rejects.toMatchObject({ reason: 'KERNEL_NOT_DONE' })
      at.sim.faults.clear()

      const { state, session } = await at.domain.migration.state(alice, MIGRATES.name)
      expect([state, session]).toEqual(['RUNNING', undefined])
    })
  })

  describe('that is looked at', () => {
    const look = (client: Client, { name }: Place, withOpen = false) =>
      at.domain.devices.hotResets.look(client, name, withOpen)

    test('names every device, who has it, and what is in the way, and opens nothing', async () => {
      await open(bob, SECOND)
      watched.arm()

      const { devices, blockers } = await look(alice, FIRST)

      expect(devices).toMatchObject([
        { name: FIRST.name, group: 21, driver: 'vfio-pci', isBridge: false, isOpen: false },
        { name: SECOND.name, group: 22, space: { id: 'bob', owner: { id: 'bob' } }, isOpen: true },
      ])
      expect(blockers).toMatchObject([{ subject: SECOND.name }])
      expect(watched.names).not.toContain('open')
      expect(watched.names).not.toContain('ioctl')
    })

    test('has nothing in its way where the caller has all of the bus', async () => {
      await open(alice, FIRST)
      await open(alice, SECOND, 'other')

      expect((await look(alice, FIRST, true)).blockers).toEqual([])
      expect((await look(alice, FIRST)).blockers).toMatchObject([{ subject: SECOND.name }])
    })

    test('names the same devices as the kernel', async () => {
      for (const place of [FIRST, ABOVE, BELOW]) {
        const { fd } = await open(alice, place, `space-${place.group}`)
        const { devices } = await look(alice, place)

        const kernel = await hotResetScope(at.sim.kernel, fd)
        expect(kernel.toSorted()).toEqual(devices.map(({ name }) => name))
      }
    })

    test('names bridges and what is behind them', async () => {
      const { devices, blockers } = await look(alice, ABOVE)

      expect(devices.map(({ name, isBridge }) => [name, isBridge])).toEqual([
        [ABOVE.name, false],
        [NESTED_BRIDGE, true],
        [BELOW.name, false],
      ])
      expect(blockers).toMatchObject([{ subject: NESTED_BRIDGE }])
      expect((await look(alice, BELOW)).devices.map(({ name }) => name)).toEqual([BELOW.name])
    })

    test('says of a device on a root bus that nothing could reset its bus', async () => {
      const { devices, blockers } = await look(alice, { name: EDU, group: EDU_GROUP })

      expect(devices).toEqual([])
      expect(blockers).toMatchObject([{ subject: EDU, found: 'on a bus that no bridge can reset' }])
    })
  })

  test('never hits a device of another client, and ends, whatever is done at the same time', async () => {
    const clients = [alice, bob] as const
    const places = [FIRST, SECOND] as const
    const step = fc.record({
      client: fc.constantFrom(...clients),
      place: fc.constantFrom(...places),
      what: fc.constantFrom('open', 'open', 'close', 'reset', 'reset', 'leave', 'hand over'),
    })
    type Step = typeof step extends fc.Arbitrary<infer Value> ? Value : never
    /** Spaces in both orders of their ids, so that lanes are wanted in both. */
    const idOf = ({ id }: Client, { group }: Place) => `${group === FIRST.group ? 'b' : 'a'}-${id}`
    const take = async ({ client, place, what }: Step): Promise<unknown> => {
      const { domain } = at
      switch (what) {
        case 'open':
          return open(client, place, idOf(client, place))
        case 'close':
          return domain.devices.close(client, place.name)
        case 'reset':
          return reset(client, place, true)
        case 'leave':
          return domain.spaces.removeGroup(client, idOf(client, place), place.group)
        default: {
          const other = clients.find((each) => each !== client) ?? client
          return domain.adopt(other, domain.handOver(client, 60_000).token)
        }
      }
    }
    const carol = person('carol', 103)
    const property = fc.asyncProperty(
      fc.array(step, { minLength: 2, maxLength: 12 }),
      fc.boolean(),
      async (steps, isHeld) => {
        start()
        // A third client has a device of the bus in some of the runs.
        if (isHeld) {
          await open(carol, SECOND)
          await mark(carol, SECOND)
        }
        const outcomes = await Promise.allSettled(steps.map(take))

        for (const outcome of outcomes) {
          if (outcome.status === 'fulfilled') continue
          expect(outcome.reason).toBeInstanceOf(VfiodError)
          expect(outcome.reason.reason).not.toBe('BUG')
        }
        if (isHeld) expect(await marked(carol, SECOND)).toBe(ANSWER)
        requireRightBooks(at)
        await at.domain.releaseAll('the run is over')
        requireRightBooks(at)
        expect([...watched.openFds]).toEqual([])
      },
    )
    await fc.assert(property, { numRuns: 40, seed: 2026, endOnFailure: true })
  })

  test('the inventory says how each device is reset', async () => {
    const resets = async (name: string) => (await at.domain.inventory.device(name)).resets

    expect(await resets(EDU)).toEqual({ byItself: false, byBus: false })
    expect(await resets(FIRST.name)).toEqual({ byItself: false, byBus: true })
    expect(await resets(MIGRATES.name)).toEqual({ byItself: true, byBus: true })
  })
})
