/** irq watch: the interrupts of a device as they come. */
import type { Command } from 'commander'
import type { IrqIndex__Output as IrqIndex } from '../../proto/vfiod/v1/IrqIndex.ts'
import { type BorrowedDevice, withDevice } from '../borrowed-device.ts'
import { CliError } from '../failure.ts'
import { watchEventfds } from '../irq-eventfds.ts'
import { parseSmall } from '../numbers.ts'
import { action, type CommandSession } from '../session.ts'

const ABOUT = `
INDEX is a number or a name, such as 1 or MSI; vfioctl info DEVICE lists them. The device is opened
for this command alone, and a device without a driver seldom interrupts by itself: with --trigger
the kernel raises a vector as the device would, which proves the way from the kernel to here.`

const find = ({ name, info }: BorrowedDevice, wanted: string): IrqIndex => {
  const present = info.irqs.filter(({ count }) => count > 0)
  const found = present.find(
    (irq) => String(irq.index) === wanted || irq.name.toLowerCase() === wanted.toLowerCase(),
  )
  if (found !== undefined) return found
  const names = present.map((irq) => irq.name || irq.index).join(', ') || 'none'
  throw new CliError(`Cannot find IRQ index ${wanted} of ${name}: it has ${names}`)
}

interface WatchOptions {
  readonly start: number
  readonly vectors: number
  readonly events?: number
  readonly trigger?: number
  readonly eventfds?: boolean
}

const watchIrqs = (
  session: CommandSession,
  name: string,
  indexName: string,
  options: WatchOptions,
): Promise<void> =>
  withDevice(session, name, async (borrowed) => {
    const { client, output, signal } = session
    const { index, name: irqName, count } = find(borrowed, indexName)
    const { start, vectors, trigger, events: eventsMax = Number.POSITIVE_INFINITY } = options
    let events = 0
    const request = { name, index, start, count: vectors || Math.max(count - start, 1) }
    const reports = options.eventfds
      ? watchEventfds(client, request, signal)
      : client.device.watchIrqs(request, { signal })
    try {
      for await (const event of reports) {
        if (event.event === 'armed') {
          output.event({ armed: true }, () => `${irqName} of ${name} is armed; Ctrl-C ends.`)
          if (trigger !== undefined)
            await client.device.triggerIrq({ name, index, vector: trigger }, { signal })
        } else if ('irq' in event && event.irq) {
          const { vector, count } = event.irq
          output.event(
            { irq: event.irq },
            () => `vector ${vector} raised${count === '1' ? '' : ` ${count} times`}`,
          )
          events += 1
        }
        if (events >= eventsMax) return
      }
    } catch (error) {
      if (!signal.aborted) throw error
    }
  })

export const addIrqCommands = (program: Command): void => {
  program
    .command('irq')
    .description('interrupts of a device')
    .command('watch')
    .description('arm an interrupt index and report what is raised')
    .argument('<device>', 'a PCI address or an mdev UUID')
    .argument('<index>', 'index or name')
    .option('--start <vector>', 'the first vector', parseSmall, 0)
    .option('--vectors <count>', 'how many vectors; 0 for all of the index', parseSmall, 0)
    .option('--events <count>', 'end after this many reports', parseSmall)
    .option('--trigger <vector>', 'raise this vector once they are armed', parseSmall)
    .option('--eventfds', 'let the kernel signal eventfds of this process, not the daemon')
    .addHelpText('after', ABOUT)
    .action(action(watchIrqs))
}
