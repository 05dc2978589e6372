/** whoami, events: who vfioctl is to the daemon, and what happens to what clients own. */
import type { Command } from 'commander'
import type { Event__Output as Event } from '../../proto/vfiod/v1/Event.ts'
import type { QuotaUsage__Output as QuotaUsage } from '../../proto/vfiod/v1/QuotaUsage.ts'
import type { WhoAmIResponse__Output as WhoAmI } from '../../proto/vfiod/v1/WhoAmIResponse.ts'
import { parseSmall } from '../numbers.ts'
import { action, type CommandSession } from '../session.ts'
import { enumText, propertiesText, tableText } from '../table.ts'

export const ROLE = 'ROLE_'

export const usageText = (usage: readonly QuotaUsage[]): string =>
  tableText(
    ['QUOTA', 'IN USE', 'LIMIT'],
    usage.map(({ name, current, max }) => [name, current, max]),
  )

const whoText = (who: WhoAmI): string => {
  const isRemote = who.identity.startsWith('remote ')
  const properties = propertiesText([
    ['identity', who.identity],
    ...(who.account === who.identity ? [] : ([['quota of', who.account]] as const)),
    ...(isRemote ? ([['lease', `${who.leaseMs} ms`]] as const) : []),
    ['role', enumText(ROLE, who.role)],
    ['devices', who.devices.join(', ')],
    ['adds groups', who.addsGroups ? 'yes' : 'no'],
  ])
  return `${properties}\n\n${usageText(who.usage)}`
}

const whoAmI = async ({ client, output, signal }: CommandSession): Promise<void> => {
  const who = await client.ownership.whoAmI({}, { signal })
  output.answer(who, () => whoText(who))
}

const eventText = ({ kind, client, why, spaces, memories, spaceId }: Event): string => {
  const what =
    spaceId === ''
      ? `address spaces: ${spaces}, memories: ${memories}`
      : `in address space "${spaceId}"`
  return `${enumText('EVENT_KIND_', kind)}: ${client}: ${why} (${what})`
}

const watchEvents = async (
  session: CommandSession,
  options: { events?: number },
): Promise<void> => {
  const { client, output, signal } = session
  const eventsMax = options.events ?? Number.POSITIVE_INFINITY
  let events = 0
  try {
    for await (const event of client.ownership.watchEvents({}, { signal })) {
      if (event.happened) {
        const { happened } = event
        output.event({ happened }, () => eventText(happened))
        events += 1
      } else output.event({ watching: true }, () => 'Watching; Ctrl-C ends.')
      if (events >= eventsMax) return
    }
  } catch (error) {
    if (!signal.aborted) throw error
  }
}

export const addOwnershipCommands = (program: Command): void => {
  program
    .command('whoami')
    .description('show who this is to the daemon, what the policy grants it, and what it uses')
    .action(action(whoAmI))
  program
    .command('events')
    .description(
      'report releases and their causes, handovers, and devices that are wanted back, in error or lost',
    )
    .option('--events <count>', 'end after this many', parseSmall)
    .action(action(watchEvents))
}
