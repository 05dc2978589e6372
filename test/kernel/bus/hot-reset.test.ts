/**
 * Hot resets on the real kernel: two cards that cannot be reset by themselves, on one bus. Their bridge is
 * a conventional one, so that both are in one group.
 */

import { afterAll, beforeAll, expect, test } from 'vitest'
import type { VfiodClient } from '../../../src/client/client.ts'
import { Owner } from '../../system/owner.ts'
import { type Daemon, groupOf, openIn, startDaemon } from '../../system/world.ts'

const E1000 = '8086:100e'
const BAR0 = 0
const CONFIG = 7
const COMMAND = '4'
const MEMORY_AND_MASTER = 6
/** TDBAL: the address of a descriptor ring, of which a reset leaves nothing. */
const RING = '14336'
const SECRET = 0x5ec2e000

let daemon: Daemon
let client: VfiodClient
let card: string
let other: string

beforeAll(async () => {
  daemon = await startDaemon()
  client = daemon.client()
  const { devices } = await client.inventory.listDevices()
  const hex = (id: number) => id.toString(16).padStart(4, '0')
  const cards = devices.filter(
    ({ vendorId, deviceId }) => `${hex(vendorId)}:${hex(deviceId)}` === E1000,
  )
  const [first, second] = cards.map(({ name }) => name)
  if (first === undefined || second === undefined) throw new Error('the machine has no two e1000')
  card = first
  other = second
  await client.inventory.bindDevices({ devices: [card, other] })
})

afterAll(async () => {
  expect(await daemon?.stop()).toBe(0)
})

const bytesOf = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

const enable = (name: string) =>
  client.device.writeRegion({
    ...{ name, region: CONFIG, offset: COMMAND },
    data: bytesOf(MEMORY_AND_MASTER).subarray(0, 2),
  })

const mark = async (name: string) => {
  await enable(name)
  await client.device.writeRegion({ name, region: BAR0, offset: RING, data: bytesOf(SECRET) })
}

const marked = async (name: string): Promise<number> => {
  await enable(name)
  const at = { name, region: BAR0, offset: RING, length: 4 }
  return Buffer.from((await client.device.readRegion(at)).data).readUInt32LE()
}

test('the inventory and a look say how the cards are reset, and what goes along', async () => {
  const { device } = await client.inventory.getDevice({ name: card })
  expect(device?.resets).toEqual(['RESET_KIND_HOT'])

  const { devices, possible, blockers } = await client.device.getHotReset({ name: card })

  expect(blockers).toEqual([])
  expect(possible).toBe(true)
  expect(devices.map(({ name, driver, bridge, open }) => [name, driver, bridge, open])).toEqual([
    [card, 'vfio-pci', false, false],
    [other, 'vfio-pci', false, false],
  ])
})

test('a card is reset with its bus as it is opened, and again as its owner asks', async () => {
  const spaceId = 'bus'
  await openIn(client, spaceId, card)
  const { device } = await client.device.getDeviceInfo({ name: card })
  expect(device).toMatchObject({ canReset: false, reset: { kind: 'RESET_KIND_HOT', why: '' } })
  await mark(card)
  expect(await marked(card)).toBe(SECRET)

  const { devices } = await client.device.hotResetDevice({ name: card })

  expect(devices.map(({ name }) => name)).toEqual([card, other])
  expect(await marked(card)).toBe(0)
  await client.addressSpace.destroySpace({ spaceId })
})

test('another card of the owner is hit only where the owner asks for that', async () => {
  const spaceId = 'both'
  await openIn(client, spaceId, card)
  await client.device.openDevice({ spaceId, name: other })
  await mark(other)

  await expect(client.device.hotResetDevice({ name: card })).rejects.toMatchObject({
    reason: 'RESET_BLOCKED',
    details: { blockers: [{ subject: other }] },
  })
  expect(await marked(other)).toBe(SECRET)

  await client.device.hotResetDevice({ name: card, withOpen: true })
  expect(await marked(other)).toBe(0)
  await client.addressSpace.destroySpace({ spaceId })
})

test('a card that changes hands goes to its next owner reset', async () => {
  const owner = new Owner(daemon.socket)
  await owner.next()
  expect(await owner.tell({ command: 'own', name: card })).toEqual({ result: {} })
  const { device } = await client.inventory.getDevice({ name: card })
  expect(device).toMatchObject({ usedSinceReset: true, spaceId: 'handed' })
  await owner.tell({ command: 'destroy', spaceId: 'handed' })

  await client.addressSpace.createSpace({ spaceId: 'next' })
  await client.addressSpace.addGroup({ spaceId: 'next', groupId: await groupOf(client, card) })
  const request = { spaceId: 'next', name: card, mustReset: true }
  const opened = await client.device.openDevice(request)

  expect(opened.device?.reset?.kind).toBe('RESET_KIND_HOT')
  expect(await marked(card)).toBe(0)
  await client.addressSpace.destroySpace({ spaceId: 'next' })
  owner.child.kill()
})
