/** clients, release, usage, config, health, drain: commands about the daemon. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Command } from 'commander'
import { unaryCall } from '../../client/calls.ts'
import { allOf } from '../../client/verbs.ts'
import type { ClientInfo__Output as ClientInfo } from '../../proto/vfiod/v1/ClientInfo.ts'
import { healthCheck } from '../../wire/health.ts'
import { CliError } from '../failure.ts'
import { parseDuration } from '../numbers.ts'
import { action, type CommandSession } from '../session.ts'
import { enumText, indented, propertiesText, tableText } from '../table.ts'
import { ROLE, usageText } from './ownership.ts'
import { waitText } from './spaces.ts'

const nameOf = ({ identity, pid, command }: ClientInfo): string =>
  pid === 0 ? identity : `pid ${pid} (${command}), ${identity}`

/** The role it has, or how long what it left waits. */
const standing = (client: ClientInfo): string =>
  client.gone ? waitText(client) : enumText(ROLE, client.role)

const clientText = (client: ClientInfo): string => {
  const { clientId, spaceIds, memoryIds, devices } = client
  const owned = propertiesText([
    ['address spaces', spaceIds.join(', ')],
    ['memories', memoryIds.length],
    ['devices', devices.join(', ')],
  ])
  return `${clientId}: ${nameOf(client)}, ${standing(client)}\n${indented(owned)}`
}

const listClients = async ({ client, output, signal }: CommandSession): Promise<void> => {
  const clients = await allOf('clients', (page) => client.admin.listClients(page, { signal }))
  output.answer({ clients }, () => clients.map(clientText).join('\n'))
}

const release = async (
  { client, output, signal }: CommandSession,
  clientId: string,
): Promise<void> => {
  await client.admin.releaseClient({ clientId }, { signal })
  output.answer({ clientId, released: true }, () => `everything of ${clientId} is released`)
}

const showUsage = async ({ client, output, signal }: CommandSession): Promise<void> => {
  const response = await client.admin.getUsage({}, { signal })
  const used = response.accounts.flatMap(({ account, used }) =>
    used.map(({ name, current }) => [name, current, account]),
  )
  output.answer(
    response,
    () => `${usageText(response.usage)}\n\n${tableText(['QUOTA', 'IN USE', 'ACCOUNT'], used)}`,
  )
}

const comment = (text: string): string =>
  text
    .split('\n')
    .map((line) => `# ${line}`.trimEnd())
    .join('\n')

const showConfiguration = async ({ client, output, signal }: CommandSession): Promise<void> => {
  const response = await client.admin.getConfiguration({}, { signal })
  const { configuration, policy, policyStatus } = response
  output.answer(response, () =>
    [
      comment('The configuration in force.'),
      configuration.trim(),
      '',
      comment(`The policy in force: ${policyStatus}`),
      policy.trim(),
    ].join('\n'),
  )
}

const SERVING = 1

/** Needs no role, so that a supervisor of the daemon may ask. */
const requireServing = async (
  { client, patience, signal }: CommandSession,
  timeoutMs?: number,
): Promise<void> => {
  const ask = unaryCall(client.channel, healthCheck, patience)
  const options = { signal, ...(timeoutMs === undefined ? {} : { timeoutMs }) }
  const { status } = (await ask({ service: '' }, options)) as { readonly status: number }
  if (status !== SERVING) throw new CliError('The daemon takes no new calls: it is shutting down')
}

/** How often a daemon that does not serve yet is asked. */
const WAIT_STEP_MS = 100

/** What one question may take, however short the rest of the time is: a busy machine needs it to find
 * out that there is no daemon, which is another answer than silence. */
const QUESTION_MS = 2000

/** Asks until the daemon serves; the last refusal is thrown when the time is over. */
const waitUntilServing = async (session: CommandSession, waitMs: number): Promise<void> => {
  const end = performance.now() + waitMs
  for (;;) {
    const leftMs = Math.max(1, Math.round(end - performance.now()))
    try {
      return await requireServing(session, Math.max(QUESTION_MS, leftMs))
    } catch (error) {
      if (session.signal.aborted || performance.now() >= end) throw error
    }
    await delay(Math.min(WAIT_STEP_MS, leftMs), undefined, { signal: session.signal }).catch(
      () => {},
    )
  }
}

const checkHealth = async (session: CommandSession, { wait }: { wait?: number }): Promise<void> => {
  await (wait === undefined ? requireServing(session) : waitUntilServing(session, wait))
  session.output.answer({ serving: true }, () => 'serving')
}

const drain = async ({ client, output, signal }: CommandSession): Promise<void> => {
  await client.admin.drain({}, { signal })
  output.answer({ draining: true }, () => 'the daemon ends once the running calls have ended')
}

export const addAdminCommands = (program: Command): void => {
  program
    .command('clients')
    .description('list the clients of the daemon, and what they own')
    .action(action(listClients))
  program
    .command('release')
    .description('release everything that a client owns, as if it were gone')
    .argument('<client>', 'its name in the list of clients')
    .action(action(release))
  program
    .command('usage')
    .description('show what all clients use together, what they may, and what each account uses')
    .action(action(showUsage))
  program
    .command('config')
    .description('show the configuration and the policy in force')
    .action(action(showConfiguration))
  program
    .command('health')
    .description('say whether the daemon serves; fails where it does not')
    .option('--wait <duration>', 'ask again until it serves, for at most this long', parseDuration)
    .action(action(checkHealth))
  program.command('drain').description('shut the daemon down gracefully').action(action(drain))
}
