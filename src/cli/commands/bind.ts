/** bind, unbind, vfs: moving devices between drivers, and making virtual functions. */
import type { Command } from 'commander'
import { parseSmall } from '../numbers.ts'
import { action, type CommandSession } from '../session.ts'
import { devicesText } from './groups.ts'

const ABOUT = `
One transaction: each step is verified, and when one fails every device has its former driver
again. Devices that need no change are left alone. vfioctl devices lists what the host uses each for.`

const bind = async (
  { client, output, signal }: CommandSession,
  devices: string[],
  options: { driver?: string; wholeGroup?: boolean; force?: boolean },
): Promise<void> => {
  const { driver = '', wholeGroup = false, force = false } = options
  const request = { devices, driver, wholeGroup, force }
  const response = await client.inventory.bindDevices(request, { signal })
  output.answer(response, () => devicesText(response.devices))
}

const unbind = async (
  { client, output, signal }: CommandSession,
  devices: string[],
  { wholeGroup = false, force = false }: { wholeGroup?: boolean; force?: boolean },
): Promise<void> => {
  const response = await client.inventory.unbindDevices({ devices, wholeGroup, force }, { signal })
  output.answer(response, () => devicesText(response.devices))
}

const vfs = async (
  { client, output, signal }: CommandSession,
  name: string,
  count: number,
): Promise<void> => {
  const { device } = await client.inventory.setVirtualFunctions({ name, count }, { signal })
  const names = device?.virtualFunctions ?? []
  const made = await Promise.all(
    names.map((each) => client.inventory.getDevice({ name: each }, { signal })),
  )
  const devices = [device, ...made.map((one) => one.device)].filter((each) => each !== null)
  output.answer({ devices }, () => devicesText(devices))
}

export const addBindCommands = (program: Command): void => {
  program
    .command('bind')
    .description('give PCI devices to a VFIO driver')
    .argument('<device...>', 'PCI addresses, such as 0000:00:04.0')
    .option('--driver <name>', 'the driver (default: vfio-pci)')
    .option('--whole-group', 'the other devices of the groups as well, bridges excepted')
    .option('--force', 'also what the host uses: mounted disks, network cards, consoles')
    .addHelpText('after', ABOUT)
    .action(action(bind))
  program
    .command('unbind')
    .description('give PCI devices back to the driver the kernel chooses')
    .argument('<device...>', 'PCI addresses')
    .option('--whole-group', 'the other VFIO-bound devices of the groups as well')
    .option('--force', 'also virtual functions of them that the host uses')
    .addHelpText('after', ABOUT)
    .action(action(unbind))
  program
    .command('vfs')
    .description('make virtual functions of a physical one, or remove them with 0')
    .argument('<device>', 'the PCI address of the physical function')
    .argument('<count>', 'how many it is to have', parseSmall)
    .action(action(vfs))
}
