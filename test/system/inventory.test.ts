/** Groups and drivers: who spoils a group, and moving devices between drivers, through gRPC. */

import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { VfiodClient } from '../../src/client/client.ts'
import { type Daemon, eduDevices, groupOf, startDaemon } from './world.ts'

/** Functions of the chipset of QEMU's q35, which share one group; a driver of the kernel has one. */
const SHARED = ['0000:00:1f.0', '0000:00:1f.2', '0000:00:1f.3']
const HELD = '0000:00:1f.3'
const HOLDER = 'i801_smbus'

let daemon: Daemon
let client: VfiodClient

const groupWith = async (name: string) => {
  const { group } = await client.inventory.getGroup({ groupId: await groupOf(client, name) })
  if (group === null) throw new Error(`no group of ${name}`)
  return group
}

beforeAll(async () => {
  daemon = await startDaemon()
  client = daemon.client()
})

afterAll(async () => {
  expect(await daemon?.stop()).toBe(0)
})

describe('the shared group', () => {
  test('is found with its three devices', async () => {
    const { devices } = await groupWith(HELD)

    expect(devices.map(({ name }) => name)).toEqual(SHARED)
  })

  test('is not viable while a driver of the kernel holds a device, and says which one', async () => {
    await client.inventory.bindDevices({ devices: ['0000:00:1f.2'] })

    const group = await groupWith(HELD)

    expect(group.viability).toBe('VIABILITY_NOT_VIABLE')
    expect(group.blockers).toEqual([
      {
        subject: HELD,
        found: `bound to ${HOLDER}`,
        fix: 'bind it to vfio-pci or leave it without a driver',
      },
    ])
  })

  test('is a pending member of an address space until every device is bound', async () => {
    const { groupId } = await groupWith(HELD)
    await client.addressSpace.createSpace({ spaceId: 'shared' })
    const added = await client.addressSpace.addGroup({ spaceId: 'shared', groupId })
    await client.memory.allocateMemory({ memoryId: 'ram', length: '4096' })
    const map = () =>
      client.addressSpace.map({
        spaceId: 'shared',
        items: [
          {
            iova: '65536',
            length: '4096',
            memoryId: 'ram',
            offset: '0',
            access: 'ACCESS_READ',
          },
        ],
      })

    expect(added.space).toMatchObject({ state: 'SPACE_STATE_PENDING' })
    await expect(map()).rejects.toMatchObject({ reason: 'SPACE_NOT_READY' })
    await expect(map()).rejects.toThrow(`${HELD} is bound to ${HOLDER}`)

    await client.inventory.bindDevices({ devices: [HELD], wholeGroup: true })

    expect((await groupWith(HELD)).viability).toBe('VIABILITY_VIABLE')
    expect((await map()).results).toMatchObject([{ code: 0 }])
    const { space } = await client.addressSpace.getSpace({ spaceId: 'shared' })
    expect(space).toMatchObject({ state: 'SPACE_STATE_READY', mappings: 1, blockers: [] })
    await client.addressSpace.destroySpace({ spaceId: 'shared' })
  })

  test('gives its devices back to the drivers of the kernel', async () => {
    await client.inventory.unbindDevices({ devices: [HELD], wholeGroup: true })

    const { devices, viability } = await groupWith(HELD)

    expect(devices.find(({ name }) => name === HELD)).toMatchObject({ driver: HOLDER })
    expect(devices.filter(({ driver }) => driver === 'vfio-pci')).toEqual([])
    expect(viability).toBe('VIABILITY_NOT_VIABLE')
  })
})

describe('binding', () => {
  test('leaves a device alone that has the driver already', async () => {
    const [name] = await eduDevices(client)
    const first = await client.inventory.bindDevices({ devices: [name ?? ''] })
    const second = await client.inventory.bindDevices({ devices: [name ?? ''] })

    expect(first.devices).toMatchObject([{ name, driver: 'vfio-pci' }])
    expect(second.devices).toEqual(first.devices)
    await client.inventory.unbindDevices({ devices: [name ?? ''] })
    const { device } = await client.inventory.getDevice({ name: name ?? '' })
    expect(device).toMatchObject({ driver: '' })
  })

  test('refuses a driver that is not loaded, one that is not for VFIO, and no device', async () => {
    const devices = await eduDevices(client)

    await expect(
      client.inventory.bindDevices({ devices, driver: 'no-such-driver' }),
    ).rejects.toMatchObject({ reason: 'NO_SUCH_DRIVER' })
    await expect(client.inventory.bindDevices({ devices, driver: HOLDER })).rejects.toMatchObject({
      reason: 'BAD_ARGUMENT',
    })
    await expect(client.inventory.bindDevices({})).rejects.toMatchObject({ reason: 'BAD_ARGUMENT' })
    await expect(client.inventory.bindDevices({ devices: ['0000:7f:00.0'] })).rejects.toMatchObject(
      { reason: 'NO_SUCH_DEVICE' },
    )
  })

  test('refuses a bridge, and leaves the devices beside it as they were: BAD_ARGUMENT', async () => {
    const [edu] = await eduDevices(client)
    const bridge = await findBridge()

    const refused = client.inventory.bindDevices({ devices: [edu ?? '', bridge] })

    await expect(refused).rejects.toMatchObject({ reason: 'BAD_ARGUMENT' })
    await expect(refused).rejects.toThrow('it is a bridge')
    const { device } = await client.inventory.getDevice({ name: edu ?? '' })
    expect(device).toMatchObject({ driver: '' })
  })

  test('refuses to take a device that is open, and says who has it', async () => {
    const [name = ''] = await eduDevices(client)
    await client.inventory.bindDevices({ devices: [name] })
    await client.addressSpace.createSpace({ spaceId: 'busy' })
    await client.addressSpace.addGroup({ spaceId: 'busy', groupId: await groupOf(client, name) })
    await client.device.openDevice({ spaceId: 'busy', name })

    const refused = client.inventory.unbindDevices({ devices: [name] })

    await expect(refused).rejects.toMatchObject({ reason: 'DEVICE_IN_USE' })
    await expect(refused).rejects.toThrow(`"busy" of pid ${process.pid}`)
    await client.addressSpace.destroySpace({ spaceId: 'busy' })
    await client.inventory.unbindDevices({ devices: [name] })
  })
})

describe('watching the groups', () => {
  test('sends every group first, then what changes', async () => {
    const { groups } = await client.inventory.listGroups()
    const [name = ''] = await eduDevices(client)
    const groupId = await groupOf(client, name)
    const stream = client.inventory.watchGroups()
    const events = stream[Symbol.asyncIterator]()
    const present = []
    for (;;) {
      const { value } = await events.next()
      if (value.presentSent) break
      present.push(value.group)
    }

    await client.inventory.bindDevices({ devices: [name] })
    const changed = (await events.next()).value
    await client.inventory.unbindDevices({ devices: [name] })

    // What the host uses is not watched.
    const watched = groups.map((group) => ({
      ...group,
      devices: group.devices.map((device) => ({ ...device, hostUses: [] })),
    }))
    expect(present).toEqual(watched)
    expect(changed.group).toMatchObject({ groupId, viability: 'VIABILITY_VIABLE' })
    stream.cancel()
  })
})

/** A PCI bridge: vfio-pci does not take one, so a transaction with it must fail. */
async function findBridge(): Promise<string> {
  const { devices } = await client.inventory.listDevices()
  const bridge = devices.find(({ classCode }) => classCode >> 8 === 0x0604)
  if (bridge === undefined) throw new Error('the machine has no PCI bridge')
  return bridge.name
}
