/** What Linux shows of the host's own use of its functions: disks, interfaces and consoles in sysfs, and /proc/1. */

import { endianness } from 'node:os'
import { expect, test } from 'vitest'
import { createSim } from '../../src/backends/sim/sim.ts'
import { defaultMachine, PLAIN_FUNCTION } from '../../src/backends/sim/spec/default-machine.ts'
import type { FunctionSpec } from '../../src/backends/sim/spec/machine-spec.ts'
import { describeModelled } from './backends.ts'
import { Machine } from './machine.ts'

const describe = describeModelled(
  'the test machine has no disks, bonds or framebuffers; test/kernel/host-use looks at its cards',
)

const PCI = '/sys/devices/pci0000:00'
const CONTROLLER = '0000:00:12.0'
const CARD = '0000:00:13.0'
const DISPLAY = '0000:00:14.0'

const fn = (address: string, group: number, parts: Partial<FunctionSpec>): FunctionSpec => ({
  ...PLAIN_FUNCTION,
  address,
  group,
  nativeDriver: 'native',
  boundDriver: 'native',
  ...parts,
})

const up = { isUp: true, hasDefaultRoute: false, isElsewhere: false, addresses: [] } as const

const functions: readonly FunctionSpec[] = [
  fn(CONTROLLER, 30, {
    disks: [{ name: 'nvme0n1', path: 'nvme/nvme0', partitions: ['nvme0n1p1', 'nvme0n1p2'] }],
  }),
  fn(CARD, 31, {
    interfaces: [
      {
        ...up,
        name: 'eth0',
        path: 'net',
        addresses: ['10.7.0.2/24', '2001:db8::2/64'],
        hasDefaultRoute: true,
      },
      { ...up, name: 'eth1', path: 'net', isUp: false, master: 'bond0' },
      { ...up, name: 'eth2', path: 'net', isElsewhere: true },
    ],
  }),
  fn(DISPLAY, 32, { consoles: ['fb0', 'ttyS4'] }),
]

const world = (): Machine => {
  const spec = {
    ...defaultMachine,
    drivers: ['vfio-pci', 'native'],
    functions,
    groups: [30, 31, 32].map((id) => ({ id, reserved: [] })),
    mdevs: [],
    host: {
      volumes: [{ name: 'dm-0', label: 'vg-root', on: ['nvme0n1p2'] }],
      mounts: [
        { device: 'dm-0', point: '/', type: 'ext4' },
        { device: 'nvme0n1p1', point: '/a disk', type: 'vfat' },
      ],
      swaps: ['nvme0n1p2'],
    },
  }
  const sim = createSim(spec, { time: 'poked' })
  return new Machine('sim', sim.kernel, async () => void sim.step())
}

/** A number of /proc/net, in the order of this machine's bytes. */
const hex = (bytes: readonly number[]): string =>
  (endianness() === 'LE' ? bytes.toReversed() : bytes)
    .map((byte) => byte.toString(16).padStart(2, '0'))
    .join('')
    .toUpperCase()

describe('what the host has below its functions', () => {
  test('is a disk with its partitions, by number, and what stands on them', async () => {
    const machine = world()
    const disk = `${PCI}/${CONTROLLER}/nvme/nvme0/nvme0n1`

    expect(await machine.names(disk)).toEqual(
      expect.arrayContaining(['dev', 'holders', 'nvme0n1p1', 'nvme0n1p2']),
    )
    expect(await machine.text(`${disk}/dev`)).toBe('259:0')
    expect(await machine.text(`${disk}/nvme0n1p2/partition`)).toBe('2')
    expect(await machine.names(`${disk}/nvme0n1p2/holders`)).toEqual(['dm-0'])
    expect(await machine.names(`${disk}/holders`)).toEqual([])
    expect(await machine.names('/sys/class/block')).toEqual(
      expect.arrayContaining(['nvme0n1', 'nvme0n1p1', 'nvme0n1p2', 'dm-0']),
    )
    expect(await machine.text('/sys/class/block/dm-0/dm/name')).toBe('vg-root')
    expect(await machine.linked('/sys/class/block/nvme0n1')).toBe('nvme0n1')
  })

  test('is an interface with its flags, and its master where it has one', async () => {
    const machine = world()
    const net = `${PCI}/${CARD}/net`

    // An interface of another network namespace is not shown.
    expect((await machine.names(net)).toSorted()).toEqual(['eth0', 'eth1'])
    expect(await machine.text(`${net}/eth0/flags`)).toBe('0x1003')
    expect(await machine.text(`${net}/eth1/operstate`)).toBe('down')
    expect(await machine.linked(`${net}/eth1/master`)).toBe('bond0')
    expect((await machine.names('/sys/class/net')).toSorted()).toEqual(['bond0', 'eth0', 'eth1'])
    expect(await machine.text('/sys/class/net/bond0/flags')).toBe('0x1403')
  })

  test('is a framebuffer and a serial port, and they are the console', async () => {
    const machine = world()

    expect(await machine.names('/sys/class/graphics')).toEqual(['fb0'])
    expect(await machine.text('/sys/class/tty/console/active')).toBe('tty0 ttyS4')
    expect(await machine.text('/sys/class/vtconsole/vtcon1/name')).toBe('(M) frame buffer device')
    expect(await machine.text('/sys/class/vtconsole/vtcon1/bind')).toBe('1')
  })

  test('goes with the driver of the host', async () => {
    const machine = world()
    const unbind = (name: string) =>
      machine.kernel.writeFile('/sys/bus/pci/drivers/native/unbind', name)

    for (const name of [CONTROLLER, CARD, DISPLAY]) expect(await unbind(name)).toBe(name.length)

    expect(await machine.names('/sys/class/net')).not.toContain('eth0')
    expect(await machine.names('/sys/class/block')).toEqual(['dm-0'])
    expect(await machine.names('/sys/class/vtconsole')).toEqual([])
    expect(await machine.names(`${PCI}/${CARD}`)).not.toContain('net')
  })
})

describe('what process 1 shows', () => {
  test('is its mounts, by the number of the disk and with spaces in octal', async () => {
    const lines = (await world().text('/proc/1/mountinfo')).split('\n')

    expect(lines).toEqual([
      '20 1 253:0 / / rw,relatime - ext4 /dev/mapper/vg-root rw',
      '21 1 259:1 / /a\\040disk rw,relatime - vfat /dev/nvme0n1p1 rw',
    ])
  })

  test('is the addresses and routes of what is up, and the addresses of links', async () => {
    const machine = world()
    const rows = (await machine.text('/proc/1/net/route')).split('\n').slice(1)
    const v6 = (await machine.text('/proc/1/net/if_inet6')).split('\n')

    expect(rows.map((row) => row.split('\t').slice(0, 4))).toEqual([
      ['eth0', hex([0, 0, 0, 0]), hex([10, 7, 0, 1]), '0003'],
      ['eth0', hex([10, 7, 0, 0]), hex([0, 0, 0, 0]), '0001'],
    ])
    expect(await machine.text('/proc/1/net/fib_trie')).toContain(
      '|-- 10.7.0.2\n        /32 host LOCAL',
    )
    expect(v6).toEqual([
      'fe800000000000000000000000000001 02 40 20 80     eth0',
      '20010db8000000000000000000000002 02 40 00 80     eth0',
    ])
  })

  test('is its name, its root, no open files, and the swap of the host', async () => {
    const machine = world()

    expect(await machine.text('/proc/1/comm')).toBe('init')
    expect(await machine.names('/proc/1/fd')).toEqual([])
    expect((await machine.text('/proc/swaps')).split('\n')[1]).toMatch(
      /^\/dev\/nvme0n1p2 partition \d+ 0 -2$/,
    )
    expect(await machine.text('/proc/filesystems')).toContain('nodev\tsysfs')
  })
})
