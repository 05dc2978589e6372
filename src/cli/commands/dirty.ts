/** dirty start, status, read, stop: which pages devices wrote. */
import type { Command } from 'commander'
import { hex } from '../../base/units.ts'
import type { DirtyRange__Output as DirtyRange } from '../../proto/vfiod/v1/DirtyRange.ts'
import type { Tracking__Output as Tracking } from '../../proto/vfiod/v1/Tracking.ts'
import { withAdopted } from '../adopted.ts'
import { CliError } from '../failure.ts'
import { bytesText, parseNumber, parseSmall } from '../numbers.ts'
import { action, type CommandSession } from '../session.ts'
import { enumText, propertiesText, tableText } from '../table.ts'

const ABOUT = `
Tracking belongs to an address space, and an address space to a process. So these commands adopt
what a token is for, as \`map --hand-over\` printed it, act, and hand it over again: each prints the
token for the next one, also when it was refused.`

const PRECISION = 'DIRTY_PRECISION_'

const rangeText = (start: bigint, last: bigint): string => `${hex(start)}..${hex(last)}`

const trackingText = (tracking: Tracking): string => {
  const { sources, untrackedDevices, spaceId, trackingMs, reads } = tracking
  const table = tableText(
    ['SOURCE', 'PRECISION', 'PAGE SIZE', 'WATCHES'],
    sources.map(({ name, precision, pageSize, ranges }) => [
      name || 'IOMMU',
      enumText(PRECISION, precision),
      bytesText(pageSize),
      name === ''
        ? 'every mapping'
        : ranges.map(({ start, last }) => rangeText(BigInt(start), BigInt(last))).join('\n'),
    ]),
  )
  const properties = propertiesText([
    ['space', spaceId],
    ['tracked for', `${(Number(trackingMs) / 1000).toFixed(1)} s`],
    ['not tracked', untrackedDevices.join(', ')],
    ['reads', reads],
    ['last read', `${tracking.lastReadPages} pages`],
    ['kept', `${tracking.keptPages} pages`],
  ])
  return `${properties}\n\n${table}`
}

interface KeepOptions {
  readonly keep: number
}

interface StartOptions extends KeepOptions {
  readonly iommu?: boolean
  readonly device: string[]
  readonly pageSize?: bigint
}

const start = (session: CommandSession, token: string, options: StartOptions): Promise<void> =>
  withAdopted(session, { token, keepMs: options.keep }, async (spaceId) => {
    const { client, output, vfToken, signal } = session
    const { iommu = false, device: devices, pageSize = 0n } = options
    for (const name of devices)
      await client.device.openDevice({ spaceId, name, vfToken }, { signal })
    const request = { spaceId, iommu, devices, pageSize: String(pageSize) }
    const { tracking } = await client.dirty.startTracking(request, { signal })
    output.answer({ tracking }, () => (tracking === null ? '' : trackingText(tracking)))
  })

const status = (session: CommandSession, token: string, options: KeepOptions): Promise<void> =>
  withAdopted(session, { token, keepMs: options.keep }, async (spaceId) => {
    const { client, output, signal } = session
    const { tracking } = await client.dirty.getTracking({ spaceId }, { signal })
    output.answer({ tracking }, () =>
      tracking === null ? `${spaceId} is not tracked` : trackingText(tracking),
    )
  })

interface ReadOptions extends KeepOptions {
  readonly iova?: bigint
  readonly length?: bigint
  readonly peek?: boolean
  readonly again?: boolean
}

const dirtyText = ({ iova, length }: DirtyRange): string =>
  `${rangeText(BigInt(iova), BigInt(iova) + BigInt(length) - 1n)}  ${bytesText(length)}`

const read = async (
  session: CommandSession,
  token: string,
  options: ReadOptions,
): Promise<void> => {
  const { keep, iova, length, peek = false, again = false } = options
  if ((iova === undefined) !== (length === undefined))
    throw new CliError('Cannot read a range: --iova and --length belong together')
  await withAdopted(session, { token, keepMs: keep }, async (spaceId) => {
    const { client, output, signal } = session
    const piece = { iova: String(iova ?? 0n), length: String(length ?? 0n) }
    const request = { spaceId, ...piece, peek, again, asRanges: true }
    for await (const { ranges, end } of client.dirty.readDirty(request, { signal })) {
      if (end) {
        const { pages, precision } = end
        output.event(
          { end },
          () => `${spaceId}: ${pages} pages (${enumText(PRECISION, precision)})`,
        )
      } else output.event({ ranges }, () => ranges.map(dirtyText).join('\n'))
    }
  })
}

const stop = (session: CommandSession, token: string, options: KeepOptions): Promise<void> =>
  withAdopted(session, { token, keepMs: options.keep }, async (spaceId) => {
    const { client, output, signal } = session
    const answer = await client.dirty.stopTracking({ spaceId }, { signal })
    output.answer(answer, () => `${spaceId} is no longer tracked`)
  })

const addName = (name: string, before: readonly string[]): string[] => [...before, name]

const KEEP_MS = 60_000

export const addDirtyCommands = (program: Command): void => {
  const dirty = program.command('dirty').description('which pages devices wrote')
  const command = (name: string, description: string): Command =>
    dirty
      .command(name)
      .description(description)
      .argument('<token>', 'as `map --hand-over` or the command before printed it')
      .option('--keep <ms>', 'how long to keep it for the next owner', parseSmall, KEEP_MS)
      .addHelpText('after', ABOUT)
  command('start', 'track what devices write')
    .option('--iommu', 'the IOMMU side of the address space tracks')
    .option(
      '--device <name>',
      'open a device, which logs its own DMA; may be repeated',
      addName,
      [],
    )
    .option('--page-size <bytes>', 'in which units devices should track', parseNumber)
    .action(action(start))
  command('status', 'show the sources and the result of the last read').action(action(status))
  command('read', 'show the pages written since the last read')
    .option('--iova <address>', 'only from here on', parseNumber)
    .option('--length <bytes>', 'and so many bytes', parseNumber)
    .option('--peek', 'leave it for the next read as well')
    .option('--again', 'what the last read showed, too')
    .action(action(read))
  command('stop', 'stop tracking, and discard unread pages').action(action(stop))
}
