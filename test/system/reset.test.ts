/** A device goes to another client: it is reset, or the next client is told that it was not. */

import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { VfiodClient } from '../../src/client/client.ts'
import { describeModes, skipSuite } from '../modes.ts'
import { Edu } from './edu.ts'
import { Owner } from './owner.ts'
import { backend, type Daemon, eduDevices, groupOf, openIn, startDaemon } from './world.ts'

/** The register of edu that answers the inverse of what was written. */
const LIVENESS = '4'
const SECRET = 0x5ec2e7aa
const ANSWER = ~SECRET >>> 0

const word = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

const mark = (client: VfiodClient, name: string) =>
  client.device.writeRegion({ name, region: 0, offset: LIVENESS, data: word(SECRET) })

const marked = async (client: VfiodClient, name: string): Promise<number> => {
  const { data } = await client.device.readRegion({ name, region: 0, offset: LIVENESS, length: 4 })
  return Buffer.from(data).readUInt32LE()
}

const deviceOf = async (client: VfiodClient, name: string) => {
  const { device } = await client.inventory.getDevice({ name })
  if (device === null) throw new Error(`no device ${name}`)
  return device
}

describeModes('a device that cannot be reset in any way', (mode) => {
  let daemon: Daemon
  let client: VfiodClient
  let name: string
  let owner: Owner

  beforeAll(async () => {
    daemon = await startDaemon(mode)
    client = daemon.client()
    const [first] = await eduDevices(client)
    if (first === undefined) throw new Error('the machine has no edu device')
    name = first
    await client.inventory.bindDevices({ devices: [name] })
    owner = new Owner(daemon.socket)
    await owner.next()
    await owner.tell({ command: 'own', name })
    await owner.tell({ command: 'destroy', spaceId: 'handed' })
  })

  afterAll(async () => {
    owner.child.kill()
    await client.inventory.unbindDevices({ devices: [name] })
    expect(await daemon?.stop()).toBe(0)
  })

  test('is listed as used since its last reset, and by which client', async () => {
    const device = await deviceOf(client, name)

    expect(device).toMatchObject({ resets: [], usedSinceReset: true, spaceId: '' })
    expect(device.lastUser).toContain(`pid ${owner.child.pid} (`)
  })

  test('is not opened where it must be reset', async () => {
    const spaceId = 'demanding'
    await client.addressSpace.createSpace({ spaceId })
    await client.addressSpace.addGroup({ spaceId, groupId: await groupOf(client, name) })

    const request = { spaceId, name, mustReset: true }
    await expect(client.device.openDevice(request)).rejects.toMatchObject({ reason: 'UNSUPPORTED' })
    await client.addressSpace.destroySpace({ spaceId })
  })

  test('is opened for another client, which is told', async () => {
    await openIn(client, 'next', name)
    const { device } = await client.device.getDeviceInfo({ name })

    expect(device?.reset).toMatchObject({
      kind: 'RESET_KIND_NONE',
      why: 'it cannot be reset by itself, and no bridge above it could reset its bus',
      lastUser: expect.stringContaining(`pid ${owner.child.pid} (`),
    })
    await expect(client.device.hotResetDevice({ name })).rejects.toMatchObject({
      reason: 'UNSUPPORTED',
    })
    expect(await client.device.getHotReset({ name })).toMatchObject({
      devices: [],
      possible: false,
      blockers: [{ subject: name }],
    })
    await client.addressSpace.destroySpace({ spaceId: 'next' })
  })
})

const BEHIND_A_BRIDGE = `extends = "default"
[[groups]]
id = 20
[[groups]]
id = 21
[[groups]]
id = 22
[[functions]]
address = "0000:00:09.0"
group = 20
class_code = 0x060400
bridge = true
pcie = true
native_driver = "pcieport"
bound_driver = "pcieport"
[[functions]]
address = "0000:02:00.0"
kind = "edu"
group = 21
parent = "0000:00:09.0"
bound_driver = "vfio-pci"
[[functions]]
address = "0000:02:00.1"
kind = "edu"
group = 22
parent = "0000:00:09.0"
bound_driver = "vfio-pci"
`

const behindBridge = () => {
  const [name, other] = ['0000:02:00.0', '0000:02:00.1']
  let daemon: Daemon
  let client: VfiodClient

  beforeAll(async () => {
    daemon = await startDaemon(BEHIND_A_BRIDGE)
    client = daemon.client()
  })

  afterAll(async () => {
    expect(await daemon?.stop()).toBe(0)
  })

  test('goes to another client without anything of its last one', async () => {
    const spaceId = 'first'
    await openIn(client, spaceId, name)
    await new Edu(client, name).enable()
    await mark(client, name)
    expect(await marked(client, name)).toBe(ANSWER)
    await client.addressSpace.destroySpace({ spaceId })
    expect((await deviceOf(client, name)).usedSinceReset).toBe(true)

    const owner = new Owner(daemon.socket)
    await owner.next()
    expect(await owner.tell({ command: 'own', name })).toEqual({ result: {} })
    await owner.tell({ command: 'destroy', spaceId: 'handed' })
    owner.child.kill()

    // Of the other one nothing is known but that it was reset.
    expect(await deviceOf(client, other)).toMatchObject({ usedSinceReset: false, lastUser: '' })
    await openIn(client, 'again', name)
    expect((await client.device.getDeviceInfo({ name })).device?.reset?.kind).toBe('RESET_KIND_HOT')
    await new Edu(client, name).enable()
    expect(await marked(client, name)).toBe(0)
    await client.addressSpace.destroySpace({ spaceId: 'again' })
  })

  test('is reset as its owner asks, if the devices of other clients are not hit', async () => {
    const owner = new Owner(daemon.socket)
    await owner.next()
    await openIn(client, 'mine', name)
    await owner.tell({ command: 'own', name: other })

    const { possible, devices } = await client.device.getHotReset({ name })
    expect(possible).toBe(false)
    expect(devices).toMatchObject([
      { name, spaceId: 'mine', open: true },
      { name: other, spaceId: 'handed', open: true, owner: { process: { pid: owner.child.pid } } },
    ])
    await expect(client.device.hotResetDevice({ name })).rejects.toMatchObject({
      reason: 'RESET_BLOCKED',
    })

    await owner.tell({ command: 'destroy', spaceId: 'handed' })
    expect((await client.device.hotResetDevice({ name })).devices).toHaveLength(2)
    owner.child.kill()
  })
}

const RESETTABLE = 'a device that can be reset with its bus'
if (backend === 'sim') describe(RESETTABLE, behindBridge)
else skipSuite(RESETTABLE, 'test/kernel/bus has one')
