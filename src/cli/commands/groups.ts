/** groups, devices: the groups of the host, their devices, and their blockers. */
import type { Command } from 'commander'
import type { Blocker__Output as Blocker } from '../../proto/vfiod/v1/Blocker.ts'
import type { Device__Output as Device } from '../../proto/vfiod/v1/Device.ts'
import type { Group__Output as Group } from '../../proto/vfiod/v1/Group.ts'
import { withConditions } from '../conditions.ts'
import { withHostUses } from '../host-uses.ts'
import { action, type CommandSession } from '../session.ts'
import { enumText, indented, tableText } from '../table.ts'

const VIABILITY = 'VIABILITY_'

const hexId = (value: number, digits: number): string => value.toString(16).padStart(digits, '0')

/** `1234:11e8` as lspci writes it, or the type of a mediated device. */
const kindText = ({ bus, vendorId, deviceId, mdevType }: Device): string =>
  bus === 'DEVICE_BUS_PCI' ? `${hexId(vendorId, 4)}:${hexId(deviceId, 4)}` : mdevType

const column = (devices: readonly Device[], text: (device: Device) => string): string =>
  devices.map((device) => text(device) || '-').join('\n')

/** `0000:00:1f.2 is bound to ahci; bind it to ...` for each. */
export const blockersText = (blockers: readonly Blocker[]): string =>
  blockers.map(({ subject, found, fix }) => `${subject} is ${found}; ${fix}`).join('\n')

const blockedText = ({ groupId, viability, blockers }: Group): string => {
  const what = viability === 'VIABILITY_NOT_VIABLE' ? 'not viable' : 'in use'
  return `group ${groupId} is ${what}:\n${indented(blockersText(blockers))}`
}

const groupsText = (groups: readonly Group[]): string => {
  const table = tableText(
    ['GROUP', 'VIABILITY', 'SPACE', 'DEVICE', 'KIND', 'DRIVER'],
    groups.map(({ groupId, viability, spaceId, devices }) => [
      groupId,
      enumText(VIABILITY, viability),
      spaceId,
      column(devices, ({ name }) => name),
      column(devices, kindText),
      column(devices, ({ driver }) => driver),
    ]),
  )
  const blocked = groups.filter(({ blockers }) => blockers.length > 0).map(blockedText)
  const devices = groups.flatMap((group) => group.devices)
  return withConditions(withHostUses([table, ...blocked].join('\n\n'), devices), devices)
}

/** One line for a group that changed. */
const changeText = (group: Group): string => {
  const { groupId, viability, spaceId, devices } = group
  const drivers = devices.map(({ name, driver }) => `${name} (${driver || 'no driver'})`)
  const space = spaceId === '' ? '' : `, in space ${spaceId}`
  const line = `group ${groupId} is ${enumText(VIABILITY, viability)}${space}: ${drivers.join(', ')}`
  return withConditions(line, devices).replace('\n\n', '\n')
}

const watchGroups = async ({ client, output, signal }: CommandSession): Promise<void> => {
  const present: Group[] = []
  let isPresentSent = false
  try {
    for await (const event of client.inventory.watchGroups({}, { signal })) {
      if (output.isJson) output.event(event, String)
      else if (event.event === 'presentSent') {
        isPresentSent = true
        output.note(`${groupsText(present)}\n\nWatching; Ctrl-C ends.`)
      } else if (event.event === 'removedGroupId') {
        output.note(`group ${event.removedGroupId} is gone`)
      } else if (event.group) {
        if (isPresentSent) output.note(changeText(event.group))
        else present.push(event.group)
      }
    }
  } catch (error) {
    if (!signal.aborted) throw error
  }
}

const listGroups = async (session: CommandSession, options: { watch?: boolean }): Promise<void> => {
  if (options.watch === true) return watchGroups(session)
  const { client, output, signal } = session
  const response = await client.inventory.listGroups({}, { signal })
  const { groups, whyEmpty } = response
  output.answer(response, () =>
    whyEmpty === '' ? groupsText(groups) : `${groupsText(groups)}\nno IOMMU groups: ${whyEmpty}`,
  )
}

export const devicesText = (devices: readonly Device[]): string => {
  const table = tableText(
    ['DEVICE', 'BUS', 'GROUP', 'KIND', 'CLASS', 'DRIVER', 'SPACE', 'RESET'],
    devices.map((device) => [
      device.name,
      device.busName,
      device.groupId,
      kindText(device),
      device.bus === 'DEVICE_BUS_PCI' ? hexId(device.classCode, 6) : '',
      device.driver,
      device.spaceId,
      device.resets.map((kind) => RESET_TEXT[kind] ?? kind).join(', '),
    ]),
  )
  const left = devices.flatMap(leftText)
  const text = [table, left.join('\n')].filter((each) => each !== '').join('\n\n')
  return withConditions(withHostUses(text, devices), devices)
}

const RESET_TEXT: Readonly<Record<string, string>> = {
  RESET_KIND_FUNCTION: 'function',
  RESET_KIND_HOT: 'bus',
}

/** Of a device that is not open, and that was not reset since it was. */
const leftText = ({ name, spaceId, usedSinceReset, lastUser }: Device): string[] =>
  spaceId === '' && usedSinceReset ? [`${name} has not been reset since ${lastUser} used it`] : []

const listDevices = async ({ client, output, signal }: CommandSession): Promise<void> => {
  const response = await client.inventory.listDevices({}, { signal })
  output.answer(response, () => devicesText(response.devices))
}

export const addGroupsCommands = (program: Command): void => {
  program
    .command('groups')
    .description('list the IOMMU groups, and say who keeps one from being viable')
    .option('--watch', 'go on and report every change')
    .action(action(listGroups))
  program
    .command('devices')
    .description('list the devices that are in a group')
    .action(action(listDevices))
}
