// Fronts as units: what a front can do when it is taken over, who it is, and what its end costs.

import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { until } from '../../system/world.ts'
import {
  cleanUp,
  client,
  configure,
  fronts,
  inSandbox,
  install,
  property,
  systemctl,
  uninstall,
  vfioctlAs,
} from './installed.ts'

/** Each act, and the errno that it meets; printed as JSON. */
const PROBE = `
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'

const errno = (act) => {
  try {
    return String(act() ?? 'done')
  } catch (error) {
    return error.code
  }
}
const connecting = (where) => new Promise((resolve) => {
  const socket = connect(where)
  socket.once('error', (error) => resolve(error.code)).once('connect', () => resolve('done'))
})
const open = (path, flags) => closeSync(openSync(path, flags))
const openFiles = readdirSync('/proc/self/fd').flatMap((fd) => {
  try {
    return [readlinkSync('/proc/self/fd/' + fd)]
  } catch {
    return []
  }
})
console.log(
  JSON.stringify({
    'write /etc': errno(() => writeFileSync('/etc/vfiod-probe', '')),
    'write /run': errno(() => writeFileSync('/run/vfiod-probe', '')),
    'list /home': errno(() => readdirSync('/home').length),
    'list /run/vfiod': errno(() => readdirSync('/run/vfiod').length),
    'list /etc/vfiod': errno(() => readdirSync('/etc/vfiod').length),
    'write /sys/bus': errno(() => open('/sys/bus/pci/drivers_probe', 'a')),
    'open /dev/vfio/vfio': errno(() => open('/dev/vfio/vfio', 'r+')),
    'open /dev/iommu': errno(() => open('/dev/iommu', 'r+')),
    'open /dev/ttyS0': errno(() => open('/dev/ttyS0', 'r')),
    'look at process 1': errno(() => readFileSync('/proc/1/status').length),
    'signal process 1': errno(() => process.kill(1, 0)),
    'become root': errno(() => process.setuid(0)),
    'connect over TCP': await connecting({ host: '127.0.0.1', port: 9, family: 4 }),
    'connect to the daemon': await connecting({ path: '/run/vfiod/vfiod.sock' }),
    'connect to start a front': await connecting({ path: '/run/vfiod-front.sock' }),
    'rings of io_uring': openFiles.filter((name) => name.includes('io_uring')).length,
  }),
)
`

const statusOf = (pid: number): Readonly<Record<string, string>> =>
  Object.fromEntries(
    readFileSync(`/proc/${pid}/status`, 'utf8')
      .split('\n')
      .map((line) => line.split(/:\s*/) as [string, string]),
  )

const netOf = (pid: number | string): string => readlinkSync(`/proc/${pid}/ns/net`)

beforeAll(install)
afterEach(cleanUp)
afterAll(uninstall)

describe('in the sandbox of vfiod-front@.service', () => {
  test('a program can do nothing but compute', () => {
    systemctl('start', 'vfiod.service')

    expect(JSON.parse(inSandbox(PROBE, 'vfiod-front@'))).toEqual({
      'write /etc': 'EROFS',
      'write /run': 'EACCES',
      'list /home': 'EACCES',
      'list /run/vfiod': 'EACCES',
      'list /etc/vfiod': 'EACCES',
      'write /sys/bus': 'EACCES',
      'open /dev/vfio/vfio': 'ENOENT',
      'open /dev/iommu': 'ENOENT',
      'open /dev/ttyS0': 'ENOENT',
      'look at process 1': 'ENOENT',
      'signal process 1': 'EPERM',
      'become root': 'EPERM',
      'connect over TCP': 'EAFNOSUPPORT',
      'connect to the daemon': 'EAFNOSUPPORT',
      'connect to start a front': 'EAFNOSUPPORT',
      'rings of io_uring': 0,
    })
  })
})

describe('the fronts of vfiod.service', () => {
  test('are a user each, without rights, devices or network, and end with it', async () => {
    configure('socket_mode = "0666"\n')
    systemctl('start', 'vfiod.service')
    await client().ownership.whoAmI()
    expect(vfioctlAs(1000, '--timeout', '250s', 'groups')).toContain('ROLE_NEEDED')

    const pids = fronts()
    const found = pids.map(statusOf)
    expect(pids).toHaveLength(2)
    const uids = found.map(({ Uid = '' }) => Uid.split('\t'))
    for (const [uid, ...others] of uids) {
      expect(Number(uid)).toBeGreaterThan(1000)
      expect(others).toEqual([uid, uid, uid])
    }
    expect(new Set(uids.flat()).size).toBe(2)
    for (const { CapInh, CapPrm, CapEff, CapBnd, CapAmb, NoNewPrivs, Seccomp } of found) {
      const none = '0000000000000000'
      expect([CapInh, CapPrm, CapEff, CapBnd, CapAmb]).toEqual([none, none, none, none, none])
      expect([NoNewPrivs, Seccomp]).toEqual(['1', '2'])
    }
    for (const pid of pids) {
      expect(readdirSync(`/proc/${pid}/root/dev`)).not.toContain('vfio')
      expect(netOf(pid)).not.toBe(netOf('self'))
      expect(netOf(pid)).not.toBe(netOf(property('MainPID')))
      expect(readFileSync(`/proc/${pid}/oom_score_adj`, 'utf8').trim()).toBe('500')
    }

    systemctl('stop', 'vfiod.service')
    expect(property('Result')).toBe('success')
    // Their units end after it: systemctl waits for its own alone.
    await until(() => fronts().length === 0)
  })

  test('cost their connections when they are killed, and nothing that a client owns', async () => {
    systemctl('start', 'vfiod.service')
    const first = client()
    await first.addressSpace.createSpace({ spaceId: 'kept' })
    const watching = async () => {
      for await (const _ of first.ownership.watchEvents());
    }
    const watch = watching()
    watch.catch(() => undefined)
    const owner = property('MainPID')

    process.kill(fronts()[0] as number, 'SIGKILL')

    await expect(watch).rejects.toMatchObject({ status: 'UNAVAILABLE' })
    const { spaces } = await client().addressSpace.listSpaces()
    expect(spaces).toMatchObject([{ spaceId: 'kept' }])
    expect(property('MainPID')).toBe(owner)
    await until(() => fronts().length === 1)
  })

  test('end with a daemon that is killed', async () => {
    systemctl('start', 'vfiod.service')
    await client().ownership.whoAmI()
    const before = fronts()
    expect(before).toHaveLength(1)

    systemctl('kill', '--signal=SIGKILL', '--kill-whom=main', 'vfiod.service')

    await until(() => fronts().every((pid) => !before.includes(pid)))
  })
})
