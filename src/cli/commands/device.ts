/** info, reset: one device. */
import type { Command } from 'commander'
import type { AffectedDevice__Output as AffectedDevice } from '../../proto/vfiod/v1/AffectedDevice.ts'
import type { DeviceInfo__Output as DeviceInfo } from '../../proto/vfiod/v1/DeviceInfo.ts'
import { withDevice } from '../borrowed-device.ts'
import { usageError } from '../failure.ts'
import { bytesText } from '../numbers.ts'
import { action, type CommandSession } from '../session.ts'
import { flagsText, indented, propertiesText, tableText } from '../table.ts'
import { blockersText } from './groups.ts'
import { nameOf } from './spaces.ts'

const regionsText = ({ regions }: DeviceInfo): string =>
  tableText(
    ['REGION', 'NAME', 'SIZE', 'ACCESS'],
    regions
      .filter(({ size }) => size !== '0')
      .map(({ index, name, size, readable, writable, mappable }) => [
        index,
        name,
        bytesText(size),
        flagsText({ read: readable, write: writable, mmap: mappable }),
      ]),
  )

const irqsText = ({ irqs }: DeviceInfo): string =>
  tableText(
    ['IRQ', 'NAME', 'VECTORS', 'FLAGS'],
    irqs
      .filter(({ count }) => count > 0)
      .map(({ index, name, count, eventfd, maskable, automasked, noResize }) => [
        index,
        name,
        count,
        flagsText({ eventfd, maskable, automasked, 'no resize': noResize }),
      ]),
  )

/** How it was reset for this command. */
const openedText = ({ reset }: DeviceInfo): string => {
  if (reset?.kind === 'RESET_KIND_FUNCTION') return 'after a reset'
  if (reset?.kind === 'RESET_KIND_HOT') return 'after a reset of its bus'
  const left = reset?.lastUser ? `, as ${reset.lastUser} left it` : ''
  return `without a reset${left}: ${reset?.why ?? ''}`
}

const info = (session: CommandSession, name: string): Promise<void> =>
  withDevice(session, name, async ({ device, info }) => {
    // The address space is only there for this command: it says nothing about the device.
    const { spaceId: _, owner: __, ...lasting } = info
    session.output.answer(lasting, () => {
      const properties = propertiesText([
        ['device', device.name],
        ['group', device.groupId],
        ['driver', device.driver],
        ['reset', info.canReset ? 'possible' : 'not announced'],
        ['opened', openedText(info)],
      ])
      const irqs = irqsText(info)
      return [properties, regionsText(info), irqs].join('\n\n')
    })
  })

interface ResetOptions {
  readonly hot?: boolean
  readonly dryRun?: boolean
}

const reset = async (
  session: CommandSession,
  name: string,
  { hot = false, dryRun = false }: ResetOptions,
): Promise<void> => {
  if (dryRun && !hot) throw usageError('--dry-run shows what --hot would reset; add that')
  if (dryRun) return showHotReset(session, name)
  await withDevice(session, name, async ({ client, device, signal }) => {
    if (!hot) {
      await client.device.resetDevice({ name: device.name }, { signal })
      session.output.answer({ device: device.name, reset: true }, () => `${device.name} is reset`)
      return
    }
    const response = await client.device.hotResetDevice({ name: device.name }, { signal })
    const others = response.devices.map((each) => each.name).filter((each) => each !== device.name)
    const more = others.length === 0 ? '' : `, and with it ${others.join(', ')}`
    session.output.answer(response, () => `${device.name} is reset with its bus${more}`)
  })
}

const heldText = ({ spaceId, owner, holders }: AffectedDevice): string =>
  owner === null
    ? holders.map(({ pid, command }) => `pid ${pid} (${command})`).join('\n')
    : `${spaceId} of ${nameOf(owner)}`

const showHotReset = async (
  { client, output, signal }: CommandSession,
  name: string,
): Promise<void> => {
  const response = await client.device.getHotReset({ name }, { signal })
  const { devices, possible, blockers } = response
  output.answer(response, () => {
    const table = tableText(
      ['DEVICE', 'GROUP', 'DRIVER', 'SPACE OR PROCESS'],
      devices.map((device) => [device.name, device.groupId ?? '', device.driver, heldText(device)]),
    )
    const verdict = possible
      ? 'a hot reset is possible'
      : `a hot reset is not possible:\n${indented(blockersText(blockers))}`
    return [...(devices.length === 0 ? [] : [table]), verdict].join('\n\n')
  })
}

export const addDeviceCommands = (program: Command): void => {
  program
    .command('info')
    .description('show the regions and interrupts of a device')
    .argument('<device>', 'a PCI address or an mdev UUID')
    .action(action(info))
  program
    .command('reset')
    .description('reset a device, by itself or with its bus')
    .argument('<device>', 'a PCI address or an mdev UUID')
    .option('--hot', 'reset its bus, and with it every device there')
    .option('--dry-run', 'with --hot: only show what would be reset, and what is in the way')
    .action(action(reset))
}
