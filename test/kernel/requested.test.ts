/** A device that the host takes back while a client has it open: the call outside ends. */

import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { VfiodClient } from '../../src/client/client.ts'
import type { Event__Output as Event } from '../../src/proto/vfiod/v1/Event.ts'
import { type Daemon, eduDevices, groupOf, openIn, startDaemon, until } from '../system/world.ts'

const POLICY = '[[rule]]\nuser = 0\nrole = "admin"\nrelease_asked_after_ms = 500\n'

let daemon: Daemon
let client: VfiodClient
let name: string
const events: Event[] = []
const watching = new AbortController()

beforeAll(async () => {
  daemon = await startDaemon(undefined, POLICY)
  client = daemon.client()
  const [first] = await eduDevices(client)
  if (first === undefined) throw new Error('the machine has no edu device')
  name = first
  const stream = client.ownership.watchEvents({}, { signal: watching.signal })
  const iterator = stream[Symbol.asyncIterator]()
  await iterator.next()
  void (async () => {
    for (;;) {
      const { done, value } = await iterator.next()
      if (done === true) return
      if (value.happened) events.push(value.happened)
    }
  })().catch(() => undefined)
})

afterAll(async () => {
  watching.abort()
  expect(await daemon?.stop()).toBe(0)
})

const sysfs = (path: string) => `/sys/bus/pci/${path}`
const kinds = () => events.map(({ kind }) => kind)

async function openAgain(spaceId: string): Promise<void> {
  await client.inventory.bindDevices({ devices: [name] })
  await openIn(client, spaceId, name)
  events.length = 0
}

/** The write returns once the kernel has removed the device; then it is found again. */
async function removeAndRescan(meanwhile: () => Promise<unknown>): Promise<void> {
  const removed = writeFile(sysfs(`devices/${name}/remove`), '1')
  await meanwhile()
  await removed
  expect(existsSync(sysfs(`devices/${name}`))).toBe(false)
  await writeFile(sysfs('rescan'), '1')
  expect(existsSync(sysfs(`devices/${name}`))).toBe(true)
}

test('a removal ends by itself once the time of the policy is over, and the owner is told', async () => {
  await openAgain('left')

  await removeAndRescan(async () => {
    await until(async () => kinds().includes('EVENT_KIND_DEVICE_REQUESTED') || undefined)
  })

  await until(async () => kinds().includes('EVENT_KIND_DEVICE_TAKEN') || undefined)
  expect(kinds()).toEqual(
    expect.arrayContaining(['EVENT_KIND_DEVICE_REQUESTED', 'EVENT_KIND_DEVICE_TAKEN']),
  )
  expect(events[0]).toMatchObject({ device: name, spaceId: 'left' })
  await expect(client.device.getDeviceInfo({ name })).rejects.toMatchObject({
    reason: 'DEVICE_NOT_OPEN',
  })
  await client.addressSpace.destroySpace({ spaceId: 'left' })
})

test('a removal ends once the owner has closed the device that it was asked for', async () => {
  await openAgain('given')

  await removeAndRescan(async () => {
    await until(async () => kinds().includes('EVENT_KIND_DEVICE_REQUESTED') || undefined)
    await client.device.closeDevice({ name })
  })

  expect(kinds()).not.toContain('EVENT_KIND_DEVICE_LOST')
  await client.addressSpace.destroySpace({ spaceId: 'given' })
})

test('a driver that another tool takes away leaves the space pending, and it is ready again afterwards', async () => {
  await client.inventory.bindDevices({ devices: [name] })
  const [spaceId, memoryId] = ['unbound', 'unbound-ram']
  await client.addressSpace.createSpace({ spaceId })
  await client.addressSpace.addGroup({ spaceId, groupId: await groupOf(client, name) })
  await client.memory.allocateMemory({ memoryId, length: '8192' })
  const map = (iova: string) =>
    client.addressSpace.map({
      spaceId,
      items: [{ iova, length: '4096', memoryId, offset: '0', access: 'ACCESS_READ' }],
      allOrNothing: true,
    })
  const space = async () => (await client.addressSpace.getSpace({ spaceId })).space
  await map('4096')
  events.length = 0

  await writeFile(sysfs('drivers/vfio-pci/unbind'), name)

  await until(async () => kinds().includes('EVENT_KIND_GROUP_LOST') || undefined)
  expect(await space()).toMatchObject({ state: 'SPACE_STATE_PENDING', mappings: 0 })
  await expect(map('4096')).rejects.toMatchObject({ reason: 'SPACE_NOT_READY' })
  await client.inventory.bindDevices({ devices: [name] })
  expect(await space()).toMatchObject({ state: 'SPACE_STATE_READY' })
  await map('4096')
  await client.addressSpace.destroySpace({ spaceId })
})
