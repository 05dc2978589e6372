/** Binding spares what the host uses, unless it is forced; and what it took it gives back. */

import { afterEach, describe, expect, test } from 'vitest'
import { parseMachine } from '../../src/backends/sim/machine-file/machine-file.ts'
import { defaultMachine } from '../../src/backends/sim/spec/default-machine.ts'
import { ERRNO } from '../../src/base/errno.ts'
import type { Kernel } from '../../src/kernel/port.ts'
import { unbindDriver } from '../../src/kernel/sysfs.ts'
import { EDU, type World, world } from './machine.ts'
import { alice } from './people.ts'

const ADDRESS = '0000:00:12.0'

let at: World

afterEach(() => at.domain.releaseAll('the test is over'))

/** A function of the host with something below it, alone in its group. */
const fn = (parts: string, address = ADDRESS, group = 30): string =>
  `[[functions]]\naddress = "${address}"\ngroup = ${group}\nnative_driver = "native"\nbound_driver = "native"\n${parts}\n`

const machineOf = (text: string) =>
  parseMachine(`extends = "default"\ndrivers = [${DRIVERS}]\n${text}`, 'test')

const DRIVERS = [...defaultMachine.drivers, 'native'].map((name) => `"${name}"`).join(', ')

const NVME = 'disks = [{ name = "nvme0n1", path = "nvme/nvme0", partitions = ["nvme0n1p1"] }]'
const USB_DISK =
  'disks = [{ name = "sda", path = "usb1/1-1/1-1:1.0/host6/target6:0:0/6:0:0:0/block", partitions = ["sda1"] }]'
const nic = (rest: string, path = 'net') =>
  `interfaces = [{ name = "eth0", path = "${path}", ${rest} }]`

const bind = (request: { devices?: string[]; wholeGroup?: boolean; force?: boolean } = {}) =>
  at.domain.binding.bind(alice, {
    devices: [ADDRESS],
    driver: undefined,
    wholeGroup: false,
    ...request,
  })
const driverOf = async (name = ADDRESS) => (await at.domain.inventory.device(name)).driver

const usesOf = async (name = ADDRESS) => {
  const device = await at.domain.inventory.device(name, { hostUses: true })
  return device.hostUses?.map(({ kind, part, found }) => [kind, part, found])
}

/** Answers of some calls; undefined lets a call through. */
const instead =
  (answer: (call: string, path: string) => unknown) =>
  (kernel: Kernel): Kernel =>
    new Proxy(kernel, {
      get: (target, name) => {
        const value = Reflect.get(target, name, target)
        if (typeof value !== 'function') return value
        return (...args: unknown[]) =>
          answer(String(name), String(args[0])) ?? value.apply(target, args)
      },
    })

describe('a device that the host uses is not taken, and the blocker names the use', () => {
  test.each([
    [
      'a mounted partition',
      fn(NVME),
      '[host]\nmounts = [{ device = "nvme0n1p1", point = "/" }]',
      'nvme0n1p1 is mounted at /',
    ],
    [
      'a mounted disk behind USB',
      fn(USB_DISK),
      '[host]\nmounts = [{ device = "sda1", point = "/media/my disk" }]',
      'sda1 is mounted at /media/my disk',
    ],
    ['swap', fn(NVME), '[host]\nswaps = ["nvme0n1p1"]', 'nvme0n1p1 is swap'],
    [
      'a volume that is mounted',
      fn(NVME),
      '[host]\nvolumes = [{ name = "dm-0", label = "vg-root", on = ["nvme0n1p1"] }]\nmounts = [{ device = "dm-0", point = "/" }, { device = "dm-0", point = "/var" }]',
      'nvme0n1p1 is under dm-0 (vg-root), which is mounted at / and 1 more place',
    ],
    [
      'swap on a volume on an encrypted disk',
      fn(NVME),
      '[host]\nvolumes = [{ name = "dm-0", label = "crypt", on = ["nvme0n1p1"] }, { name = "dm-1", label = "vg-swap", on = ["dm-0"] }]\nswaps = ["dm-1"]',
      'nvme0n1p1 is under dm-0 (crypt), under dm-1 (vg-swap), which is swap',
    ],
    [
      'an array that is not mounted',
      fn(NVME),
      '[host]\nvolumes = [{ name = "md0", on = ["nvme0n1p1"] }]',
      'nvme0n1p1 is under md0',
    ],
    [
      'an interface with an address',
      fn(nic('addresses = ["10.0.0.2/24"]')),
      '',
      'eth0 is up and has the address 10.0.0.2/24',
    ],
    [
      'an interface with the default route',
      fn(nic('default_route = true, addresses = ["192.168.1.7/16"]', 'virtio0/net')),
      '',
      'eth0 is up and has the address 192.168.1.7/16 and the default route',
    ],
    [
      'an interface with an address of IPv6',
      fn(nic('addresses = ["2001:db8::2/64"]')),
      '',
      'eth0 is up and has the address 2001:db8::2/64',
    ],
    [
      'a member of a bond, though it is down',
      fn(nic('up = false, master = "bond0"')),
      '',
      'eth0 is a member of bond0',
    ],
    [
      'an interface of a container',
      fn(nic('elsewhere = true', 'virtio0/net')),
      '',
      'it has a network interface in another network namespace, perhaps of a container',
    ],
    [
      'the framebuffer of the console',
      fn('consoles = ["fb0"]'),
      '',
      'the console of the host is on fb0',
    ],
    [
      'the serial port of the console',
      fn('consoles = ["ttyS4"]'),
      '',
      'the console of the host is on ttyS4',
    ],
  ])('%s', async (_name, parts, host, found) => {
    at = world(machineOf(`${host}\n${parts}`))

    await expect(bind()).rejects.toMatchObject({
      reason: 'HOST_USES_DEVICE',
      details: {
        blockers: [{ subject: ADDRESS, found: `used by the host: ${found}` }],
        resource: { type: 'device', name: ADDRESS, owner: 'the host' },
      },
    })
    await expect(bind()).rejects.toThrow(`${ADDRESS} is used by the host: ${found}; `)
    await expect(bind()).rejects.toThrow('or force the bind')
    expect(await driverOf()).toBe('native')
    expect(await usesOf()).toMatchObject([[expect.any(String), expect.any(String), found]])
  })

  test('every use is named, also that of another device which comes with the group', async () => {
    const other = fn(nic('addresses = ["10.0.0.2/24"]'), '0000:00:13.0')
    at = world(machineOf(`[host]\nswaps = ["nvme0n1", "nvme0n1p1"]\n${fn(NVME)}${other}`))

    await expect(bind({ wholeGroup: true })).rejects.toMatchObject({
      details: {
        blockers: [
          { subject: ADDRESS, found: 'used by the host: nvme0n1 is swap' },
          { subject: ADDRESS, found: 'used by the host: nvme0n1p1 is swap' },
          { subject: '0000:00:13.0', found: expect.stringContaining('eth0 is up') },
        ],
      },
    })
    expect(await driverOf()).toBe('native')
    expect(await driverOf('0000:00:13.0')).toBe('native')
  })

  test('a virtual function is not removed while the host uses it', async () => {
    const sriov = `sriov = { total_vfs = 2, num_vfs = 1, first_group = 40, vf = { native_driver = "native", ${nic('addresses = ["10.0.0.2/24"]')} } }`
    at = world(machineOf(fn(sriov)))

    await expect(
      at.domain.virtualFunctions.set(alice, { name: ADDRESS, count: 0 }),
    ).rejects.toMatchObject({
      reason: 'HOST_USES_DEVICE',
      message: expect.stringMatching(
        `^Cannot set the virtual functions of ${ADDRESS} to 0: .* is used by the host: eth0 is up`,
      ),
    })
    expect((await at.domain.inventory.device(ADDRESS)).virtualFunctions).toHaveLength(1)
  })

  test('a physical function is not taken from the host that uses a virtual one', async () => {
    const sriov = `sriov = { total_vfs = 2, num_vfs = 1, first_group = 40, vf = { native_driver = "native", ${nic('addresses = ["10.0.0.2/24"]')} } }`
    at = world(machineOf(fn(sriov)))

    await expect(bind()).rejects.toMatchObject({
      reason: 'HOST_USES_DEVICE',
      details: { blockers: [{ subject: ADDRESS }] },
    })
    await expect(bind()).rejects.toThrow('on its virtual function 0000:00:12.1')
  })

  test('a process has a disk of it open', async () => {
    const over = instead((call, path) => {
      if (call === 'readDir' && path === '/proc') return Promise.resolve(['812'])
      if (call === 'readDir' && path === '/proc/812/fd') return Promise.resolve(['7'])
      if (path === '/proc/812/fd/7') return Promise.resolve('/dev/nvme0n1')
      if (path === '/proc/812/comm') return Promise.resolve(Buffer.from('qemu\n'))
      return undefined
    })
    at = world(machineOf(fn(NVME)), { over })

    await expect(bind()).rejects.toThrow('pid 812 (qemu) has /dev/nvme0n1 open; close it there')
  })
})

describe('a device that the host does not use', () => {
  test.each([
    [
      'an interface that is down',
      nic('up = false, addresses = ["10.0.0.2/24"], default_route = true'),
    ],
    ['an interface that has only the address of its link', nic('up = true')],
    ['a disk that nothing uses', NVME],
    ['nothing below it', ''],
  ])('is taken: %s', async (_name, parts) => {
    at = world(machineOf(fn(parts)))

    expect(await usesOf()).toEqual([])
    expect((await bind())[0]?.driver).toBe('vfio-pci')
  })
})

describe('force', () => {
  test('takes what the host uses, logs what for, and gives it back', async () => {
    at = world(machineOf(`[host]\nswaps = ["nvme0n1p1"]\n${fn(NVME)}`))

    expect((await bind({ force: true }))[0]?.driver).toBe('vfio-pci')
    expect(at.log).toContainEqual({
      event: 'taken from the host',
      fields: { client: 'alice', device: ADDRESS, uses: ['nvme0n1p1 is swap'] },
      level: 'warn',
    })
    await at.domain.binding.unbind(alice, { devices: [ADDRESS], wholeGroup: false })
    expect(await driverOf()).toBe('native')
    await expect(bind()).rejects.toMatchObject({ reason: 'HOST_USES_DEVICE' })
  })
})

describe('what the daemon cannot see', () => {
  const hidden = (...paths: string[]) =>
    instead((_call, path) =>
      paths.some((each) => path.startsWith(each)) ? Promise.resolve(-ERRNO.EACCES) : undefined,
    )

  test('keeps it from taking a device with a disk, and it says what', async () => {
    at = world(machineOf(fn(NVME)), { over: hidden('/proc/1/', '/proc/swaps') })

    await expect(bind()).rejects.toMatchObject({ reason: 'HOST_USES_DEVICE' })
    await expect(bind()).rejects.toThrow(
      'it cannot be seen whether a disk of it is mounted (/proc/1/mountinfo: EACCES)',
    )
    await expect(bind()).rejects.toThrow('whether a disk of it is swap (/proc/swaps: EACCES)')
    expect((await usesOf())?.map(([kind]) => kind)).toEqual(['not-seen', 'not-seen'])
    expect((await bind({ force: true }))[0]?.driver).toBe('vfio-pci')
  })

  test('of networks keeps it from taking an interface that is up', async () => {
    at = world(machineOf(fn(nic('up = true'))), { over: hidden('/proc/1/') })

    await expect(bind()).rejects.toThrow('whether an interface of it has addresses or routes')
  })

  test('does not concern devices without disks and interfaces', async () => {
    at = world(machineOf(fn('')), { over: hidden('/proc/1/', '/proc/swaps') })

    expect((await bind())[0]?.driver).toBe('vfio-pci')
    expect((await bind({ devices: [EDU] }))[0]?.driver).toBe('vfio-pci')
  })

  test('in its own files is looked at through the root of process 1', async () => {
    const over = hidden('/proc/swaps', '/sys/class/block')
    at = world(machineOf(`[host]\nswaps = ["nvme0n1p1"]\n${fn(NVME)}`), { over })

    await expect(bind()).rejects.toThrow('nvme0n1p1 is swap')
  })
})

describe('a device whose group was in use', () => {
  const CARDS = ['0000:01:00.0', '0000:01:00.1'] as const

  test('has the driver of the host again after an unbind', async () => {
    at = world()
    const { binding, spaces, devices, memories } = at.domain
    await bind({ devices: [CARDS[0]], wholeGroup: true })
    await spaces.create(alice, 'space')
    await spaces.addGroup(alice, 'space', 9)
    await memories.allocate(alice, { id: 'ram', length: 4096n, hugePage: undefined })
    const item = {
      iova: 0x1000n,
      length: 4096n,
      memoryId: 'ram',
      offset: 0n,
      access: 'read',
    } as const
    await spaces.map(alice, 'space', { items: [item], allOrNothing: true })
    await devices.open(alice, 'space', CARDS[1])
    await at.domain.evict(alice, 'an admin said so')

    const unbound = await binding.unbind(alice, { devices: [...CARDS], wholeGroup: false })

    expect(unbound.map(({ driver }) => driver)).toEqual(['e1000e', 'e1000e'])
  })

  test('is not left without a driver while a client has the group: GROUP_IN_USE', async () => {
    at = world()
    const { binding, spaces } = at.domain
    await bind({ devices: [...CARDS] })
    await unbindDriver(at.sim.kernel, CARDS[0], 'vfio-pci')
    await spaces.create(alice, 'space')
    await spaces.addGroup(alice, 'space', 9)
    const unbind = () => binding.unbind(alice, { devices: [CARDS[0]], wholeGroup: false })

    await expect(unbind()).rejects.toMatchObject({
      reason: 'GROUP_IN_USE',
      details: { holder: { client: 'alice', space: 'space' } },
    })
    await at.domain.destroySpace(alice, 'space')
    expect((await unbind())[0]?.driver).toBe('e1000e')
  })

  test('is not left without a driver while a process has another of the group open: GROUP_IN_USE', async () => {
    at = world(
      {},
      {
        over: instead((call, path) => {
          if (call === 'readDir' && path === '/proc') return Promise.resolve(['812'])
          if (call === 'readDir' && path === '/proc/812/fd') return Promise.resolve(['7'])
          if (path === '/proc/812/fd/7') return Promise.resolve('/dev/vfio/devices/vfio3')
          if (path === '/proc/812/comm') return Promise.resolve(Buffer.from('qemu\n'))
          if (path.endsWith('01:00.1/vfio-dev')) return Promise.resolve(['vfio3'])
          return undefined
        }),
      },
    )
    await bind({ devices: [...CARDS] })
    const unbind = at.domain.binding.unbind(alice, { devices: [CARDS[0]], wholeGroup: false })

    await expect(unbind).rejects.toMatchObject({
      reason: 'GROUP_IN_USE',
      details: { holder: { pids: [812], paths: ['/dev/vfio/devices/vfio3'] } },
    })
    expect(await driverOf(CARDS[0])).toBe('vfio-pci')
  })
})
