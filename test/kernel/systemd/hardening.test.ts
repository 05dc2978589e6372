// What the restrictions of the unit come to, seen from inside: a program in the place of the daemon
// tries what an intruder would.

import { execFileSync, spawnSync } from 'node:child_process'
import {
  chownSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  writeFileSync,
} from 'node:fs'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { eduDevices, groupOf } from '../../system/world.ts'
import {
  cleanUp,
  client,
  configure,
  FILES,
  file,
  inSandbox,
  install,
  installAs,
  property,
  systemctl,
  uninstall,
  vfioctlAs,
} from './installed.ts'

/** Each act, and the errno that it meets; printed as JSON. */
const PROBE = `
import { closeSync, openSync, readdirSync, readlinkSync, writeFileSync } from 'node:fs'
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
    'read a link of process 1': errno(() => readlinkSync('/proc/1/exe').length > 0),
    'list files of another user': errno(() => readdirSync('/run/vfiod-files/others').length),
    'enter the root of process 1': errno(() => readdirSync('/proc/1/root/sys/bus').length > 0),
    'become another user': errno(() => process.setuid(1000)),
    'connect over TCP': connecting,
    'write /run/vfiod': errno(() => writeFileSync('/run/vfiod/probe', '')),
  }),
)
`

beforeAll(install)
afterEach(cleanUp)
afterAll(uninstall)

/** A folder that is for its user alone. */
const others = (): void => {
  mkdirSync(`${FILES}/others`, { recursive: true, mode: 0o700 })
  chownSync(`${FILES}/others`, 1234, 1234)
}

const EVERYWHERE = {
  'write /etc': 'EROFS',
  'write /usr': 'EROFS',
  'list /home': 'EACCES',
  'list /root': 'EACCES',
  'list files of another user': 'EACCES',
  'write /proc/sys': 'ENOENT',
  'write /sys/module': 'EROFS',
  'write /sys/bus': 'EROFS',
  'open /dev/ttyS0': 'ENOENT',
  'open /dev/kmsg': 'ENOENT',
  'open /dev/vfio/vfio': 'ENOENT',
  'read a link of process 1': 'EACCES',
  'enter the root of process 1': 'EACCES',
  'become another user': 'EPERM',
  'connect over TCP': 'EAFNOSUPPORT',
}

describe('in the sandbox of a unit a program can do what it is for, and no more', () => {
  const seenIn = (unit: Parameters<typeof inSandbox>[1]): Readonly<Record<string, string>> => {
    others()
    return JSON.parse(inSandbox(PROBE, unit))
  }

  test('vfiod.service', () => {
    expect(seenIn('vfiod')).toEqual({
      ...EVERYWHERE,
      'open /dev/ttyS0': 'EPERM',
      'open /dev/kmsg': 'EACCES',
      'open /dev/vfio/vfio': 'done',
      'write /run/vfiod': 'done',
    })
  })

  test('vfiod-looks.service', () => {
    expect(seenIn('vfiod-looks')).toEqual({
      ...EVERYWHERE,
      'list /home': '0',
      'list /root': '0',
      'list files of another user': '0',
      'read a link of process 1': 'true',
      'enter the root of process 1': 'true',
      'write /sys/module': 'EACCES',
      'write /sys/bus': 'EACCES',
      'write /run/vfiod': 'EROFS',
    })
  })

  test('vfiod-writes.service', () => {
    expect(seenIn('vfiod-writes')).toEqual({
      ...EVERYWHERE,
      'write /sys/bus': 'done',
      'write /run/vfiod': 'EACCES',
    })
  })
})

/** capability.h */
const CAPS = { chown: 0, dacReadSearch: 2, ipcLock: 14, ptrace: 19 } as const
const maskOf = (...names: (keyof typeof CAPS)[]): number =>
  names.reduce((mask, name) => mask | (1 << CAPS[name]), 0)

describe('a process of vfiod', () => {
  test.each([
    ['vfiod.service', maskOf('chown', 'ipcLock')],
    ['vfiod-looks.service', maskOf('ptrace', 'dacReadSearch')],
    ['vfiod-writes.service', 0],
  ] as const)(
    '%s has its capabilities, a seccomp filter, no new privileges, no network',
    (unit, mask) => {
      systemctl('start', 'vfiod.service')
      const pid = property('MainPID', unit)
      const status = readFileSync(`/proc/${pid}/status`, 'utf8')
      const field = (name: string) => new RegExp(`^${name}:\\s*(\\w+)`, 'm').exec(status)?.[1]

      expect(Number.parseInt(field('CapEff') ?? '', 16)).toBe(mask)
      expect(Number.parseInt(field('CapBnd') ?? '', 16)).toBe(mask)
      expect(field('Seccomp')).toBe('2')
      expect(field('NoNewPrivs')).toBe('1')
      expect(readlinkSync(`/proc/${pid}/ns/net`)).not.toBe(readlinkSync('/proc/self/ns/net'))
    },
  )

  test.each(['vfiod', 'vfiod-looks', 'vfiod-writes'])(
    '%s.service is rated 1.5 or better by systemd-analyze security',
    (unit) => {
      const { status, stdout } = spawnSync('systemd-analyze', [
        'security',
        '--threshold=15',
        '--no-pager',
        `${unit}.service`,
      ])

      expect({ status, said: status === 0 ? '' : String(stdout) }).toEqual({ status: 0, said: '' })
    },
  )
})

describe('a helper under systemd', () => {
  test('identifies a process of another user for the daemon', async () => {
    const policy = file('policy.toml', '[[rule]]\nrole = "observe"\n')
    configure(`socket_mode = "0666"\npolicy = "${policy}"\n`)
    systemctl('start', 'vfiod.service')
    await client().ownership.whoAmI()

    expect(vfioctlAs(1000, '--timeout', '250s', 'groups')).toContain('VIABILITY')
  })

  test('that is killed is there again, and clients keep what they have', async () => {
    systemctl('start', 'vfiod.service')
    const { memory } = client()
    await memory.allocateMemory({ memoryId: 'ram', length: '4096' })
    const listed = () =>
      memory.listMemory({}).catch((error: unknown) => {
        expect(error).toMatchObject({ reason: 'PEER_NOT_CHECKED' })
        return undefined
      })

    for (const unit of ['vfiod-looks.service', 'vfiod-writes.service'])
      systemctl('kill', '--signal=SIGKILL', unit)
    let found = await listed()
    while (found === undefined) found = await listed()

    expect(found.memories).toMatchObject([{ memoryId: 'ram' }])
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
