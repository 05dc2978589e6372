/** The device fd handed out: an unprivileged user of it needs the daemon no more. */

import { afterAll, beforeAll, expect, test } from 'vitest'
import { linuxKernel } from '../../src/backends/linux/kernel.ts'
import type { DeviceFd } from '../../src/base/units.ts'
import type { VfiodClient } from '../../src/client/client.ts'
import { exportFd } from '../../src/client/verbs.ts'
import { deviceInfo, readRegion, regionInfo } from '../../src/kernel/device-calls.ts'
import { type Daemon, eduDevices, groupOf, openIn, startDaemon } from '../system/world.ts'

const CONFIG = 7

let daemon: Daemon
let client: VfiodClient
let name: string

beforeAll(async () => {
  daemon = await startDaemon()
  client = daemon.client()
  const [first] = await eduDevices(client)
  if (first === undefined) throw new Error('the machine has no edu device')
  name = first
  await client.inventory.bindDevices({ devices: [name] })
})

afterAll(async () => {
  await client?.inventory.unbindDevices({ devices: [name] })
  expect(await daemon?.stop()).toBe(0)
})

test('an exported device fd answers ioctls in the process that got it', async () => {
  await openIn(client, 'export', name)
  const fd = (await exportFd(client, name)) as DeviceFd
  const kernel = linuxKernel()

  const info = await deviceInfo(kernel, fd)
  const region = await regionInfo(kernel, fd, CONFIG)
  if (region === undefined) throw new Error('no config region')
  const ids = await readRegion(kernel, fd, { region, offset: 0n, length: 4 })

  expect(info).toMatchObject({ isPci: true, regions: 9, irqs: 5 })
  expect(Buffer.from(ids).readUInt32LE()).toBe(0x11e8_1234)
  await kernel.close(fd)
})

test('an exported fd keeps the group in use until it is closed, and the refusal names its holder', async () => {
  const groupId = await groupOf(client, name)
  const fd = (await exportFd(client, name)) as DeviceFd
  await client.addressSpace.destroySpace({ spaceId: 'export' })
  await client.addressSpace.createSpace({ spaceId: 'again' })

  const refused = client.addressSpace.addGroup({ spaceId: 'again', groupId })
  await expect(refused).rejects.toMatchObject({ reason: 'GROUP_IN_USE' })
  await expect(refused).rejects.toThrow(
    `the fd of ${name} that was exported to pid ${process.pid} `,
  )

  await linuxKernel().close(fd)
  const { space } = await client.addressSpace.addGroup({ spaceId: 'again', groupId })
  expect(space).toMatchObject({ state: 'SPACE_STATE_READY' })
  await client.addressSpace.destroySpace({ spaceId: 'again' })
})
