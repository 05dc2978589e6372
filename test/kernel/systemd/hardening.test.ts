// What the restrictions of the unit come to, seen from inside: a program in the place of the daemon
// tries what an intruder would.

import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { eduDevices, groupOf } from '../../system/world.ts'
import {
  cleanUp,
  client,
  inSandbox,
  install,
  installAs,
  property,
  systemctl,
  uninstall,
} from './installed.ts'

/** Each act, and the errno that it meets; printed as JSON. */
const PROBE = `
import { closeSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'

const errno = (act) => {
  try {
    return String(act() ?? 'done')
  } catch (error) {
    return error.code
  }
}
const connecting = await new Promise((resolve) => {
  const socket = connect({ host: '127.0.0.1', port: 9, family: 4 })
  socket.once('error', (error) => resolve(error.code)).once('connect', () => resolve('done'))
})
const open = (path, flags) => closeSync(openSync(path, flags))
console.log(
  JSON.stringify({
    'write /etc': errno(() => writeFileSync('/etc/vfiod-probe', '')),
    'write /usr': errno(() => writeFileSync('/usr/vfiod-probe', '')),
    'list /home': errno(() => readdirSync('/home').length),
    'list /root': errno(() => readdirSync('/root').length),
    'write /proc/sys': errno(() => open('/proc/sys/vm/swappiness', 'r+')),
    'write /sys/module': errno(() =>
      open('/sys/module/vfio_iommu_type1/parameters/dma_entry_limit', 'r+'),
    ),
    'write /sys/bus': errno(() => open('/sys/bus/pci/drivers_probe', 'a')),
    'open /dev/ttyS0': errno(() => open('/dev/ttyS0', 'r')),
    'open /dev/kmsg': errno(() => open('/dev/kmsg', 'r')),
    'open /dev/vfio/vfio': errno(() => open('/dev/vfio/vfio', 'r+')),
    'become another user': errno(() => process.setuid(1000)),
    'connect over TCP': connecting,
    'write /run/vfiod': errno(() => writeFileSync('/run/vfiod/probe', '')),
  }),
)
`

beforeAll(install)
afterEach(cleanUp)
afterAll(uninstall)

describe('in the sandbox of vfiod.service', () => {
  test('a program can do what the daemon does, and no more', () => {
    expect(JSON.parse(inSandbox(PROBE))).toEqual({
      'write /etc': 'EROFS',
      'write /usr': 'EROFS',
      'list /home': '0',
      'list /root': '0',
      'write /proc/sys': 'ENOENT',
      'write /sys/module': 'EROFS',
      'write /sys/bus': 'done',
      'open /dev/ttyS0': 'EPERM',
      'open /dev/kmsg': 'ENXIO',
      'open /dev/vfio/vfio': 'done',
      'become another user': 'EPERM',
      'connect over TCP': 'EAFNOSUPPORT',
      'write /run/vfiod': 'done',
    })
  })
})

describe('the daemon under vfiod.service', () => {
  test('has five capabilities, a seccomp filter, no new privileges, no network', () => {
    systemctl('start', 'vfiod.service')
    const pid = property('MainPID')
    const status = readFileSync(`/proc/${pid}/status`, 'utf8')
    const field = (name: string) => new RegExp(`^${name}:\\s*(\\w+)`, 'm').exec(status)?.[1]
    // capability.h: CHOWN 0, DAC_OVERRIDE 1, DAC_READ_SEARCH 2, IPC_LOCK 14, SYS_PTRACE 19
    const five = [0, 1, 2, 14, 19].reduce((mask, bit) => mask | (1 << bit), 0)

    expect(Number.parseInt(field('CapEff') ?? '', 16)).toBe(five)
    expect(Number.parseInt(field('CapBnd') ?? '', 16)).toBe(five)
    expect(field('Seccomp')).toBe('2')
    expect(field('NoNewPrivs')).toBe('1')
    expect(readlinkSync(`/proc/${pid}/ns/net`)).not.toBe(readlinkSync('/proc/self/ns/net'))
  })
})

describe('the host as the daemon sees it under vfiod.service', () => {
  const CARD = '0000:00:07.0'
  const ip = (...words: string[]) => execFileSync('busybox', ['ip', ...words])

  test('has network cards with addresses, and mounts, which it spares', async () => {
    const [eth = ''] = readdirSync(`/sys/bus/pci/devices/${CARD}/net`)
    // The emulator advertises a router, from which the interface would have an address more.
    writeFileSync(`/proc/sys/net/ipv6/conf/${eth}/accept_ra`, '0')
    ip('addr', 'add', '10.7.0.2/24', 'dev', eth)
    ip('link', 'set', eth, 'up')
    try {
      systemctl('start', 'vfiod.service')
      const { inventory } = client()
      const used = (await inventory.listDevices({})).devices.flatMap(({ hostUses }) => hostUses)

      expect(used.map(({ kind }) => kind)).not.toContain('HOST_USE_KIND_NOT_SEEN')
      expect(used.map(({ found }) => found)).toEqual(
        expect.arrayContaining([
          'the shared folder "job" is mounted at /run/job',
          `${eth} is up and has the address 10.7.0.2/24`,
        ]),
      )
      await expect(inventory.bindDevices({ devices: [CARD] })).rejects.toMatchObject({
        reason: 'HOST_USES_DEVICE',
      })
    } finally {
      ip('addr', 'flush', 'dev', eth)
      ip('link', 'set', eth, 'down')
    }
  })
})

describe('the daemon without CAP_IPC_LOCK', () => {
  test('refuses what RLIMIT_MEMLOCK has no room for: limit, current and needed', async () => {
    installAs(
      'vfiod.service.d/memlock.conf',
      '[Service]\nCapabilityBoundingSet=~CAP_IPC_LOCK\nLimitMEMLOCK=2M\n',
    )
    systemctl('start', 'vfiod.service')
    const { addressSpace, inventory, memory } = client()
    const [name = ''] = await eduDevices(client())
    await inventory.bindDevices({ devices: [name] })
    await addressSpace.createSpace({ spaceId: 's' })
    await addressSpace.addGroup({ spaceId: 's', groupId: await groupOf(client(), name) })
    await memory.allocateMemory({ memoryId: 'm', length: String(2 << 20) })
    const map = (iova: number, length: number) =>
      addressSpace.map({
        spaceId: 's',
        items: [
          { iova: String(iova), length: String(length), memoryId: 'm', access: 'ACCESS_READ' },
        ],
        allOrNothing: true,
      })

    await map(0, 1 << 20)
    const refused = map(2 << 20, 2 << 20)

    await expect(refused).rejects.toMatchObject({
      reason: 'MEMLOCK_EXCEEDED',
      details: { quota: { max: 2n << 20n, current: 1n << 20n, needed: 2n << 20n } },
    })
    await addressSpace.destroySpace({ spaceId: 's' })
    await inventory.unbindDevices({ devices: [name] })
  })
})
