/** A no-IOMMU group through the API: it is listed as what it is, and is not used. */

import { afterAll, beforeAll, expect, test } from 'vitest'
import type { VfiodClient } from '../../src/client/client.ts'
import { type Daemon, startDaemon } from '../system/world.ts'

const MACHINE = `
extends = "default"
enable_unsafe_noiommu_mode = true

[[groups]]
id = 40
no_iommu = true

[[functions]]
address = "0000:0a:00.0"
group = 40
bound_driver = "vfio-pci"
`
const WHY = 'no IOMMU keeps its devices inside the memory given to them'

let daemon: Daemon
let client: VfiodClient

beforeAll(async () => {
  daemon = await startDaemon(MACHINE)
  client = daemon.client()
})
afterAll(() => daemon?.stop())

test('ListGroups says that it is not viable, and why', async () => {
  const { groups } = await client.inventory.listGroups()

  expect(groups.find(({ groupId }) => groupId === 40)).toMatchObject({
    viability: 'VIABILITY_NOT_VIABLE',
    blockers: [{ subject: 'group 40', found: expect.stringContaining(WHY) }],
    devices: [{ name: '0000:0a:00.0', driver: 'vfio-pci' }],
  })
})

test('AddGroup refuses it: UNSUPPORTED, with its node and the cause', async () => {
  await client.addressSpace.createSpace({ spaceId: 'noiommu' })

  await expect(
    client.addressSpace.addGroup({ spaceId: 'noiommu', groupId: 40 }),
  ).rejects.toMatchObject({
    reason: 'UNSUPPORTED',
    message: expect.stringContaining('its node is /dev/vfio/noiommu-40'),
    details: { causes: ['no-iommu-group'] },
  })
})

test('UnbindDevices is refused while a process outside has its node open, which is named', async () => {
  const hold = { target: '/dev/vfio/noiommu-40', number: 812, command: 'dpdk-testpmd' } as const
  await client.simulator.injectFault({ fault: { fault: 'held', kind: 'FAULT_KIND_HOLD', ...hold } })

  await expect(client.inventory.unbindDevices({ devices: ['0000:0a:00.0'] })).rejects.toMatchObject(
    {
      reason: 'DEVICE_IN_USE',
      message: expect.stringContaining('pid 812 (dpdk-testpmd) has /dev/vfio/noiommu-40 open'),
    },
  )
})

test('another address space takes other groups beside it', async () => {
  await client.addressSpace.createSpace({ spaceId: 'others' })
  await client.inventory.bindDevices({ devices: ['0000:00:04.0'] })

  const { space } = await client.addressSpace.addGroup({ spaceId: 'others', groupId: 3 })

  expect(space).toMatchObject({ state: 'SPACE_STATE_READY' })
})
