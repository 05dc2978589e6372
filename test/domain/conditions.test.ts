/** Devices that the host wants back, that are in error, or that are lost: who learns of it, and what follows. */

import { closeSync, readdirSync } from 'node:fs'
import { setImmediate as turn } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { FaultEffect } from '../../src/backends/sim/spec/fault-spec.ts'
import { type Event, eventOf } from '../../src/domain/state/events.ts'
import { eventfdCreate, eventfdRead } from '../../src/os/eventfd.ts'
import { sys } from '../../src/os/libc.ts'
import { describeModes } from '../modes.ts'
import { type World, world } from './machine.ts'
import { person } from './people.ts'
import { requireRightBooks } from './watched-kernel.ts'

/** A PCIe function: it has ERR and REQ. */
const NIC = '0000:00:07.0'
const ERR = 3
const REQ = 4
const UNBIND = '/sys/bus/pci/drivers/vfio-pci/unbind'

describeModes('of an open device', (mode) => {
  let at: World
  let seen: Event[]
  /** The policy gives `hasty` a millisecond, and `calm` for ever. */
  const hasty = person('hasty', 101, { releaseAskedAfterMs: 1 })
  const calm = person('calm', 102, { releaseAskedAfterMs: 0 })
  const usual = person('usual', 103)

  beforeEach(() => {
    at = world({}, { mode })
    seen = []
    at.domain.state.listen((change) => {
      const event = eventOf(change)
      if (event !== undefined) seen.push(event)
    })
  })

  afterEach(async () => {
    requireRightBooks(at)
    await at.domain.releaseAll('the test is over')
  })

  async function open(client = calm) {
    const { domain } = at
    await domain.binding.bind(client, { devices: [NIC], driver: undefined, wholeGroup: false })
    const { group } = await domain.inventory.device(NIC)
    await domain.spaces.create(client, 'space')
    await domain.spaces.addGroup(client, 'space', group)
    return domain.devices.open(client, 'space', NIC)
  }

  const kinds = () => seen.map(({ kind }) => kind)
  const conditions = async () =>
    (await at.domain.inventory.device(NIC)).conditions.map(({ kind }) => kind)

  /** As an administrator does outside the daemon; it lasts until the device is closed. */
  const unbindOutside = () => at.sim.kernel.writeFile(UNBIND, NIC)

  const strike = (effect: FaultEffect) =>
    at.sim.faults.inject({ name: 'fault', nth: 1, times: 1, effect, call: 'pread' })

  const read = (client = calm) =>
    at.domain.devices.read(client, { name: NIC, region: 7, offset: 0n, length: 4 })

  describe('that the host wants back', () => {
    test('its owner, administrators, the log and the inventory learn', async () => {
      await open(usual)
      const gone = unbindOutside()

      await expect.poll(kinds).toEqual(['device-requested'])
      expect(seen[0]).toMatchObject({
        clients: ['usual'],
        device: NIC,
        spaceId: 'space',
        why: `${NIC}: the host wants it back, and the call that takes it waits; close it, or the daemon does in 60 s`,
      })
      expect(at.log).toContainEqual({
        event: 'device-requested',
        fields: expect.objectContaining({ device: NIC, spaceId: 'space' }),
        level: 'warn',
      })
      expect(await conditions()).toEqual(['requested'])
      expect((await read(usual)).length).toBe(4)

      await at.domain.devices.close(usual, NIC)
      expect(await gone).toBeGreaterThan(0)
      expect((await at.domain.inventory.device(NIC)).driver).toBeUndefined()
    })

    test('nothing more is said while the host asks again', async () => {
      const device = await open()
      const gone = unbindOutside()
      await expect.poll(kinds).toEqual(['device-requested'])

      at.sim.step()
      at.sim.step()
      await turn()
      await device.lane.run(async () => undefined)

      expect(kinds()).toEqual(['device-requested'])
      expect(seen[0]?.why).toMatch(/; close it$/)
      await at.domain.devices.close(calm, NIC)
      await gone
    })

    test('the owner that does not close it in time has it closed for it, and the host goes on', async () => {
      await open(hasty)

      expect(await unbindOutside()).toBeGreaterThan(0)

      await expect.poll(kinds).toEqual(['device-requested', 'device-taken'])
      expect(seen[1]).toMatchObject({
        clients: ['hasty'],
        device: NIC,
        why: `${NIC}: the host wanted it back, and its owner did not close it within 0.001 s`,
      })
      expect(() => at.domain.devices.get(hasty, NIC)).toThrow('it is not open')
    })

    test('a stream of REQ and an eventfd for REQ hear as the daemon does', async () => {
      await open()
      const end = new AbortController()
      const vector = { name: NIC, index: REQ, start: 0, count: 1 }
      const stream = at.domain.irqs.watch(calm, vector, end.signal)
      expect((await stream.next()).value).toEqual({ kind: 'armed' })
      const gone = unbindOutside()

      const { value } = await stream.next()
      expect(value).toMatchObject({ kind: 'irq', vector: 0 })
      await expect.poll(kinds).toEqual(['device-requested'])
      end.abort()
      await stream.return()
      await at.domain.devices.close(calm, NIC)
      await gone
    })

    test('the daemon hears although a client has armed REQ and disarmed it', async () => {
      await open()
      const fds = readdirSync('/proc/self/fd').length
      const vector = { name: NIC, index: REQ, start: 0, count: 1 }
      const client = eventfdCreate()
      const request = { ...vector, action: 'trigger', allocate: 0 } as const
      const { ticket } = at.domain.irqs.setEventfds(calm, request)
      // What comes by the fd channel belongs to the daemon.
      await at.domain.tickets.redeem(calm, ticket, [sys.dup(client)])

      await at.domain.irqs.trigger(calm, { name: NIC, index: REQ, vector: 0 })
      await expect.poll(() => eventfdRead(client)).toBe(1n)
      expect(kinds()).toEqual([])

      await at.domain.irqs.disable(calm, { ...vector, count: 0 })
      closeSync(client)
      await expect.poll(() => readdirSync('/proc/self/fd').length).toBe(fds)
      const gone = unbindOutside()
      await expect.poll(kinds).toEqual(['device-requested'])
      await at.domain.devices.close(calm, NIC)
      await gone
    })
  })

  describe('that is in error', () => {
    test('its owner learns once, until it is reset', async () => {
      await open()
      strike({ kind: 'aer', device: NIC })
      await read()

      await expect.poll(kinds).toEqual(['device-error'])
      expect(seen[0]).toMatchObject({ clients: ['calm'], device: NIC, spaceId: 'space' })
      expect(await conditions()).toEqual(['error'])

      await at.domain.devices.reset(calm, NIC)
      expect(await conditions()).toEqual([])
      strike({ kind: 'aer', device: NIC })
      await read()
      await expect.poll(kinds).toEqual(['device-error', 'device-error'])
    })

    test('a client that has armed ERR hears as well', async () => {
      await open()
      const end = new AbortController()
      const vector = { name: NIC, index: ERR, start: 0, count: 1 }
      const stream = at.domain.irqs.watch(calm, vector, end.signal)
      await stream.next()
      strike({ kind: 'aer', device: NIC })
      await read()

      expect((await stream.next()).value).toEqual({ kind: 'irq', vector: 0, count: 1n })
      end.abort()
      await stream.return()
    })
  })

  describe('that is lost', () => {
    test('everybody learns although no client calls, and calls are refused at once', async () => {
      const device = await open()
      strike({ kind: 'lose', device: NIC })
      // A call of the port about something else.
      await at.sim.kernel.pread(device.fd, new Uint8Array(4), 0n)

      await expect.poll(kinds).toEqual(['device-requested', 'device-lost'])
      expect(await conditions()).toEqual(['requested', 'lost'])
      await expect(read()).rejects.toMatchObject({
        reason: 'DEVICE_GONE',
        message: expect.stringMatching(
          /^Cannot use 0000:00:07.0: it has not answered since .* and is lost; close it$/,
        ),
      })
      expect((await at.domain.spaces.get('space')).state).toBe('ready')

      await at.domain.devices.close(calm, NIC)
      expect(await conditions()).toEqual([])
    })

    test('a call that finds it lost says so, and an access that fails for another cause does not', async () => {
      await open()
      const bar = { name: NIC, region: 0, offset: 0n, length: 4 }
      const [device, errno] = [NIC, 'EIO'] as const
      const fault = { name: 'fault', call: 'pread', device, nth: 1 } as const
      at.sim.faults.inject({ ...fault, times: 1, effect: { kind: 'errno', errno } })
      await expect(at.domain.devices.read(calm, bar)).rejects.not.toThrow('and is lost')
      expect(kinds()).toEqual([])

      at.sim.faults.inject({ ...fault, times: 0, effect: { kind: 'errno', errno } })
      await expect(at.domain.devices.read(calm, bar)).rejects.toThrow('and is lost; close it')
      expect(kinds()).toEqual(['device-lost'])
    })
  })
})
