/** What the host uses is not taken: network cards that are up, and the folder that the job of this machine is in. */

import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { VfiodClient } from '../../src/client/client.ts'
import { type Daemon, groupOf, openIn, startDaemon, until } from '../system/world.ts'

const CARD = '0000:00:07.0'
/** Two functions of one group. */
const CARDS = ['0000:01:00.0', '0000:01:00.1']

let daemon: Daemon
let client: VfiodClient

beforeAll(async () => {
  daemon = await startDaemon()
  client = daemon.client()
})

afterAll(async () => {
  expect(await daemon?.stop()).toBe(0)
})

const ip = (...words: string[]) => execFileSync('busybox', ['ip', ...words])
const interfacesOf = (name: string) => readdirSync(`/sys/bus/pci/devices/${name}/net`)
const bind = (name: string, force = false) =>
  client.inventory.bindDevices({ devices: [name], force })
const unbind = (name: string) => client.inventory.unbindDevices({ devices: [name] })
const usesOf = async (name: string) =>
  (await client.inventory.getDevice({ name })).device?.hostUses.map(({ found }) => found)

/** The emulator advertises a router, from which an interface that is up would have an address. */
const acceptRouters = (of: string, accept: '0' | '1') =>
  writeFileSync(`/proc/sys/net/ipv6/conf/${of}/accept_ra`, accept)

describe('a network card', () => {
  let eth = ''

  beforeAll(() => {
    ;[eth = ''] = interfacesOf(CARD)
    if (eth === '') throw new Error('the network card has no interface')
    acceptRouters('default', '0')
    acceptRouters(eth, '0')
  })

  afterEach(() => {
    const [left] = interfacesOf(CARD)
    if (left === undefined) return
    ip('addr', 'flush', 'dev', left)
    ip('link', 'set', left, 'down')
  })

  afterAll(() => acceptRouters('default', '1'))

  test('that is up with addresses and the default route is refused, by all of them', async () => {
    ip('link', 'set', eth, 'up')
    ip('addr', 'add', '10.7.0.2/24', 'dev', eth)
    ip('addr', 'add', '2001:db8:7::2/64', 'dev', eth)
    ip('route', 'add', 'default', 'via', '10.7.0.1', 'dev', eth)
    const found = `${eth} is up and has the addresses 10.7.0.2/24, 2001:db8:7::2/64 and the default route`

    await expect(bind(CARD)).rejects.toMatchObject({
      reason: 'HOST_USES_DEVICE',
      details: { blockers: [{ subject: CARD, found: `used by the host: ${found}` }] },
    })
    expect(await usesOf(CARD)).toEqual([found])
    expect(interfacesOf(CARD)).toEqual([eth])
  })

  test('that is up with no address but that of its link is taken, and given back', async () => {
    ip('link', 'set', eth, 'up')

    expect(await usesOf(CARD)).toEqual([])
    expect((await bind(CARD)).devices[0]?.driver).toBe('vfio-pci')
    expect((await unbind(CARD)).devices[0]?.driver).toBe('e1000e')
    expect(interfacesOf(CARD)).toHaveLength(1)
  })

  test('that is down with an address is taken', async () => {
    const [name = ''] = interfacesOf(CARD)
    ip('addr', 'add', '10.7.0.2/24', 'dev', name)

    expect((await bind(CARD)).devices[0]?.driver).toBe('vfio-pci')
    await unbind(CARD)
  })

  test('that is up with an address is taken by force', async () => {
    const [name = ''] = interfacesOf(CARD)
    ip('addr', 'add', '10.7.0.2/24', 'dev', name)
    ip('link', 'set', name, 'up')
    await expect(bind(CARD)).rejects.toMatchObject({ reason: 'HOST_USES_DEVICE' })

    expect((await bind(CARD, true)).devices[0]?.driver).toBe('vfio-pci')
    await until(async () => daemon.output().includes('taken from the host') || undefined)
    expect((await unbind(CARD)).devices[0]?.driver).toBe('e1000e')
  })

  test('whose interface is in another network namespace is refused', async () => {
    const [name = ''] = interfacesOf(CARD)
    const container = spawn('unshare', ['--net', 'sh', '-c', 'echo there; exec sleep 3600'])
    await once(container.stdout, 'data')
    try {
      ip('link', 'set', name, 'netns', String(container.pid))
      expect(interfacesOf(CARD)).toEqual([])

      await expect(bind(CARD)).rejects.toMatchObject({ reason: 'HOST_USES_DEVICE' })
      await expect(bind(CARD)).rejects.toThrow('in another network namespace')
    } finally {
      container.kill('SIGKILL')
    }
    await until(async () => interfacesOf(CARD)[0])
    expect(await usesOf(CARD)).toEqual([])
  })
})

test('a shared folder that is mounted keeps its device with the host', async () => {
  const shares = readdirSync('/sys/bus/virtio/drivers/9pnet_virtio').filter((name) =>
    /^virtio\d+$/.test(name),
  )
  const job = shares
    .map((name) => realpathSync(`/sys/bus/virtio/devices/${name}`))
    .find((path) => readFileSync(`${path}/mount_tag`, 'utf8').startsWith('job'))
  const name = job?.split('/').at(-2) ?? ''

  await expect(bind(name)).rejects.toMatchObject({ reason: 'HOST_USES_DEVICE' })
  await expect(bind(name)).rejects.toThrow('the shared folder "job" is mounted at /run/job')
  expect((await client.inventory.getDevice({ name })).device?.driver).toBe('virtio-pci')
})

test('devices whose group was in use have their own driver again after an unbind', async () => {
  const [first = ''] = CARDS
  await client.inventory.bindDevices({ devices: CARDS })
  await openIn(client, 'cards', first)
  await client.addressSpace.destroySpace({ spaceId: 'cards' })

  const { devices } = await client.inventory.unbindDevices({ devices: CARDS })

  expect(devices.map(({ driver }) => driver)).toEqual(['e1000e', 'e1000e'])
  expect(await groupOf(client, first)).toBeGreaterThan(0)
})
