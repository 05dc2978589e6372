/**
 * Step 1. Groups are what can be owned. One in which a kernel driver holds a device is not viable;
 * an address space may have it as a member all the same, and waits until it is.
 */

import type { Device__Output as Device } from '../../proto/vfiod/v1/Device.ts'
import type { Group__Output as Group } from '../../proto/vfiod/v1/Group.ts'
import { Mismatch } from '../narrator.ts'
import type { Stage } from '../stage.ts'

const SPACE = 'wanted'

const deviceText = ({ name, driver, mdevType }: Device): string =>
  `${name} (${mdevType || driver || 'no driver'})`

const groupText = ({ groupId, viability, devices }: Group): string => {
  const verdict = viability.replace('VIABILITY_', '').toLowerCase().replace('_', ' ')
  return `group ${groupId}, ${verdict}: ${devices.map(deviceText).join(', ')}`
}

/** Two edu devices, bound to vfio-pci, each in its own group. */
export const findDevices = async ({ client, tell }: Stage): Promise<[Device, Device]> => {
  tell.step('Find devices: which groups can be owned, and which devices block the others')
  const { groups } = await client.inventory.listGroups()
  tell.say(`ListGroups answers ${groups.length} groups:`)
  tell.show(...groups.map(groupText))

  const blockedGroup = groups.find(
    ({ blockers, devices }) => blockers.length > 0 && devices.length > 2,
  )
  const wanted = blockedGroup?.devices.find(({ driver }) => driver !== '')
  if (blockedGroup === undefined || wanted === undefined)
    throw new Mismatch('the machine', {
      found: 'no such group',
      expected: 'a group that is not viable',
    })
  const { groupId } = blockedGroup
  await client.addressSpace.createSpace({ spaceId: SPACE })
  const { space: pending } = await client.addressSpace.addGroup({ spaceId: SPACE, groupId })
  tell.say(`Group ${groupId} can join an address space, but its devices cannot be opened yet:`)
  await tell.refusal(
    `opening ${wanted.name}`,
    'SPACE_NOT_READY',
    client.device.openDevice({ spaceId: SPACE, name: wanted.name }),
  )
  tell.check('the address space waits', pending?.state, 'SPACE_STATE_PENDING')

  tell.say(`BindDevices ${wanted.name}, with its whole group, in one transaction:`)
  const bound = await client.inventory.bindDevices({ devices: [wanted.name], wholeGroup: true })
  tell.show(bound.devices.map(deviceText).join(', '))
  const { space: ready } = await client.addressSpace.getSpace({ spaceId: SPACE })
  tell.check('the address space is ready', ready?.state, 'SPACE_STATE_READY')
  await client.addressSpace.destroySpace({ spaceId: SPACE })
  const given = await client.inventory.unbindDevices({ devices: [wanted.name], wholeGroup: true })
  tell.say('UnbindDevices gives them back:')
  tell.show(given.devices.map(deviceText).join(', '))
  const driversOf = (devices: readonly Device[]) => devices.map(({ driver }) => driver)
  tell.check(
    `${wanted.name} has its former driver`,
    given.devices.find(({ name }) => name === wanted.name)?.driver,
    wanted.driver,
  )

  const isEdu = ({ vendorId, deviceId }: Device) => vendorId === 0x1234 && deviceId === 0x11e8
  const edus = groups.flatMap(({ devices }) => devices).filter(isEdu)
  tell.say('For the next steps, the two edu devices, which do DMA:')
  const { devices } = await client.inventory.bindDevices({ devices: edus.map(({ name }) => name) })
  tell.show(devices.map(deviceText).join(', '))
  tell.check('both are bound', driversOf(devices), ['vfio-pci', 'vfio-pci'])
  return devices as [Device, Device]
}
