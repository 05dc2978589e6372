// The unit as it ships, under systemd and on a real kernel: with all of its restrictions the daemon
// starts, drives a device, and is restarted; with its sockets it is started by whoever connects.

import { existsSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { registerMemory } from '../../../src/client/verbs.ts'
import { sys } from '../../../src/os/libc.ts'
import { memfdCreate } from '../../../src/os/memory.ts'
import { eduDevices, groupOf } from '../../system/world.ts'
import { cleanUp, client, install, property, SOCKET, systemctl, uninstall } from './installed.ts'

beforeAll(install)
afterEach(cleanUp)
afterAll(uninstall)

describe('vfiod.service', () => {
  test('starts, is ready when systemctl says so, and stops with success', async () => {
    systemctl('start', 'vfiod.service')

    await expect(client().inventory.listGroups()).resolves.toBeDefined()
    expect(property('ActiveState')).toBe('active')
    expect(property('StatusText')).toBe(`serving ${SOCKET}`)

    systemctl('stop', 'vfiod.service')
    expect(property('Result')).toBe('success')
    expect(existsSync(SOCKET)).toBe(false)
  })

  test('drives a device with all of its restrictions: bind, open, map, read', async () => {
    systemctl('start', 'vfiod.service')
    const { addressSpace, device, inventory } = client()
    const [name = ''] = await eduDevices(client())

    await inventory.bindDevices({ devices: [name] })
    await addressSpace.createSpace({ spaceId: 's' })
    await addressSpace.addGroup({ spaceId: 's', groupId: await groupOf(client(), name) })
    await device.openDevice({ spaceId: 's', name })
    const memfd = memfdCreate('unit', 1n << 20n)
    await registerMemory(client(), { memoryId: 'm', fd: memfd })
    sys.closeSync(memfd)
    const item = { iova: '65536', length: '1048576', memoryId: 'm' }
    const mapped = await addressSpace.map({
      spaceId: 's',
      items: [{ ...item, access: 'ACCESS_READ_WRITE' }],
    })
    const { data } = await device.readRegion({ name, region: 7, offset: '0', length: 4 })

    expect(mapped.results).toMatchObject([{ code: 0, reason: '' }])
    expect(data.readUInt32LE()).toBe(0x11e8_1234)
    await addressSpace.destroySpace({ spaceId: 's' })
    await inventory.unbindDevices({ devices: [name] })
  })

  test('is started again after SIGKILL', async () => {
    systemctl('start', 'vfiod.service')
    const first = property('MainPID')

    systemctl('kill', '--signal=SIGKILL', 'vfiod.service')
    while (property('MainPID') === first || property('ActiveState') !== 'active')
      await new Promise((resolve) => setTimeout(resolve, 200))

    expect(property('NRestarts')).not.toBe('0')
    await expect(client().inventory.listGroups()).resolves.toBeDefined()
  })
})

describe('vfiod.socket', () => {
  test('starts the daemon for the first client that connects, on either socket', async () => {
    systemctl('start', 'vfiod.socket')
    expect(property('ActiveState')).toBe('inactive')

    const memfd = memfdCreate('unit', 4096n)

    const reply = registerMemory(client(), { memoryId: 'm', fd: memfd })

    await expect(reply).resolves.toMatchObject({ ok: true })
    expect(property('ActiveState')).toBe('active')
    sys.closeSync(memfd)
  })
})
