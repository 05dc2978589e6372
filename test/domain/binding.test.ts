/** Moving devices between drivers: bridges, users of all kinds, and a kernel that does not come back. */

import { afterEach, describe, expect, test } from 'vitest'
import { defaultMachine } from '../../src/backends/sim/spec/default-machine.ts'
import type { Kernel } from '../../src/kernel/port.ts'
import { driverOverride, setDriverOverride } from '../../src/kernel/sysfs.ts'
import { EDU, EDU_GROUP, OTHER_EDU, readySpace, type World, world } from './machine.ts'
import { alice, bob } from './people.ts'

let at: World

afterEach(() => at.domain.releaseAll('the test is over'))

const one = (device: string, wholeGroup = false) => ({ devices: [device], wholeGroup })
const bind = (device: string, wholeGroup = false) =>
  at.domain.binding.bind(alice, { ...one(device, wholeGroup), driver: undefined })
const unbind = (device: string) => at.domain.binding.unbind(alice, one(device))
const driverOf = async (device: string) => (await at.domain.inventory.device(device)).driver

/** A kernel of which some calls are answered here; undefined lets a call through. */
const instead =
  (answer: (name: string, args: readonly unknown[]) => unknown) =>
  (kernel: Kernel): Kernel =>
    new Proxy(kernel, {
      get: (target, name) => {
        const value = Reflect.get(target, name, target)
        if (typeof value !== 'function') return value
        return (...args: unknown[]) => answer(String(name), args) ?? value.apply(target, args)
      },
    })

describe('a bridge', () => {
  const [plain] = defaultMachine.functions.filter(({ address }) => address === EDU)
  const BRIDGE = '0000:00:1e.0'
  const machine = {
    groups: [...defaultMachine.groups, { id: 30, reserved: [] }],
    functions: [
      ...defaultMachine.functions,
      {
        ...(plain as NonNullable<typeof plain>),
        kind: 'inert' as const,
        address: BRIDGE,
        group: 30,
        isBridge: true,
        classCode: 0x060401,
        bars: [],
      },
      { ...(plain as NonNullable<typeof plain>), address: '0000:00:1d.0', group: 30 },
    ],
  }

  test('without a driver stays as it is when its whole group is bound', async () => {
    at = world(machine)
    const moved = await bind('0000:00:1d.0', true)

    expect(moved.map(({ name, driver }) => [name, driver])).toEqual([['0000:00:1d.0', 'vfio-pci']])
    expect(await driverOf(BRIDGE)).toBeUndefined()
  })

  test('that is named is refused, and said to keep no group from being viable: BAD_ARGUMENT', async () => {
    at = world(machine)

    await expect(bind(BRIDGE)).rejects.toMatchObject({ reason: 'BAD_ARGUMENT' })
    await expect(bind(BRIDGE)).rejects.toThrow('it is a bridge')
  })

  test('is not among the devices that a group is advised to bind', async () => {
    at = world(machine)
    await at.domain.spaces.create(alice, 'space')
    const space = await at.domain.spaces.addGroup(alice, 'space', 30)

    expect(space.blockers).toMatchObject([{ fix: 'bind 0000:00:1d.0 to vfio-pci' }])
  })
})

describe('a bind that the end of the daemon cut off', () => {
  test('is cleared away by an unbind: driver_override is empty again', async () => {
    at = world()
    const { kernel } = at.sim
    expect(await driverOf(OTHER_EDU)).toBeUndefined()
    await setDriverOverride(kernel, OTHER_EDU, 'vfio-pci')

    await unbind(OTHER_EDU)

    expect(await driverOverride(kernel, OTHER_EDU)).toBeUndefined()
    expect(await driverOf(OTHER_EDU)).toBeUndefined()
  })
})

test.each(['../drivers/vfio-pci', 'vfio-pci/../e1000e', '..', 'vfio pci', 'vfio-pci\n'])(
  'a driver that is not a name is refused before a device is touched: %j',
  async (driver) => {
    at = world()
    const { domain, sim } = at
    const before = await driverOf(EDU)
    const request = { devices: [EDU], driver, wholeGroup: false }

    await expect(domain.binding.bind(alice, request)).rejects.toMatchObject({
      details: { resource: { type: 'driver', name: driver } },
    })
    expect(await driverOf(EDU)).toBe(before)
    expect(await driverOverride(sim.kernel, EDU)).toBeUndefined()
  },
)

describe('a device in use', () => {
  test('is not taken from a space that its group is a member of: GROUP_IN_USE', async () => {
    at = world()
    await readySpace(at, alice)

    await expect(unbind(EDU)).rejects.toMatchObject({
      reason: 'GROUP_IN_USE',
      details: { holder: { client: 'alice', space: 'space' } },
    })
    await expect(unbind(EDU)).rejects.toThrow('"space" of pid 101 (alice), uid 1000')
    expect(await driverOf(EDU)).toBe('vfio-pci')
  })

  test('is not taken from a process outside, which is named: DEVICE_IN_USE', async () => {
    const files: Record<string, readonly string[]> = {
      '/proc': ['812', 'self'],
      '/proc/812/fd': ['7'],
    }
    const over = instead((name, [path]) => {
      if (name === 'readDir') return files[String(path)] && Promise.resolve(files[String(path)])
      if (path === '/proc/812/fd/7') return Promise.resolve(`/dev/vfio/${EDU_GROUP}`)
      if (path === '/proc/812/comm') return Promise.resolve(Buffer.from('qemu\n'))
      return undefined
    })
    at = world({}, { over })
    await bind(EDU)

    await expect(unbind(EDU)).rejects.toMatchObject({ reason: 'DEVICE_IN_USE' })
    await expect(unbind(EDU)).rejects.toThrow('pid 812 (qemu) has /dev/vfio/3')
  })

  test('may be bound while its group waits in a space to become viable', async () => {
    at = world()
    await at.domain.spaces.create(alice, 'space')
    await at.domain.spaces.addGroup(alice, 'space', EDU_GROUP)
    await bind(EDU)

    expect((await at.domain.spaces.get('space')).state).toBe('ready')
  })
})

describe('a kernel that holds an unbind back', () => {
  test('holds up only that device; callers are told what it is at, and it goes on', async () => {
    let letGo = (): void => undefined
    const over = instead((name, [path]) => {
      if (name !== 'writeFile' || !String(path).endsWith('vfio-pci/unbind')) return undefined
      return new Promise<number>((resolve) => {
        letGo = () => resolve(0)
      })
    })
    at = world({}, { over, patienceMs: 1 })
    await bind(EDU)

    await expect(unbind(EDU)).rejects.toMatchObject({ reason: 'KERNEL_NOT_DONE' })
    await expect(unbind(EDU)).rejects.toThrow(`taking ${EDU} from vfio-pci`)
    expect((await bind(OTHER_EDU))[0]?.driver).toBe('vfio-pci')
    letGo()
    // The kernel answered without having moved anything, so the move is undone and can be made again.
    await expect.poll(() => bind(EDU).then((devices) => devices[0]?.driver)).toBe('vfio-pci')
  })
})

describe('a kernel that pins for minutes', () => {
  test('holds up neither who looks nor who is to be told that a release goes on', async () => {
    let done = (): void => undefined
    at = world({}, { patienceMs: 1 })
    await readySpace(at, alice)
    const space = at.domain.spaces.owned(alice, 'space')
    const pinning = space.lane.run(
      () =>
        new Promise<void>((resolve) => {
          done = resolve
        }),
    )

    expect((await at.domain.spaces.get('space')).state).toBe('ready')
    const evicted = at.domain.evict(alice, 'an admin said so')
    await expect(evicted).rejects.toMatchObject({ reason: 'KERNEL_NOT_DONE' })
    await expect(evicted).rejects.toThrow('the call that runs in address space "space"')
    done()
    await pinning
    await expect.poll(() => at.domain.spaces.list()).toEqual([])
  })
})

describe('the name of a device', () => {
  test.each(['0000:00:04.0', '00:04.0', '00000000:00:04.0'])(
    'may be written "%s"',
    async (name) => {
      at = world()
      await bind(name)
      await at.domain.spaces.create(bob, 'space')
      await at.domain.spaces.addGroup(bob, 'space', EDU_GROUP)
      await at.domain.devices.open(bob, 'space', name)

      expect(at.domain.devices.get(bob, name).name).toBe(EDU)
    },
  )
})
