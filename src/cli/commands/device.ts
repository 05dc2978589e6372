/** info, reset: one device. */
import type { Command } from 'commander'
import type { DeviceInfo__Output as DeviceInfo } from '../../proto/vfiod/v1/DeviceInfo.ts'
import { withDevice } from '../borrowed-device.ts'
import { bytesText } from '../numbers.ts'
import { action, type CommandSession } from '../session.ts'
import { flagsText, propertiesText, tableText } from '../table.ts'

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
      ])
      const irqs = irqsText(info)
      return [properties, regionsText(info), irqs].join('\n\n')
    })
  })

const reset = (session: CommandSession, name: string): Promise<void> =>
  withDevice(session, name, async ({ client, device, signal }) => {
    await client.device.resetDevice({ name: device.name }, { signal })
    session.output.answer({ device: device.name, reset: true }, () => `${device.name} is reset`)
  })

export const addDeviceCommands = (program: Command): void => {
  program
    .command('info')
    .description('show the regions and interrupts of a device')
    .argument('<device>', 'a PCI address or an mdev UUID')
    .action(action(info))
  program
    .command('reset')
    .description('reset a device')
    .argument('<device>', 'a PCI address or an mdev UUID')
    .action(action(reset))
}
