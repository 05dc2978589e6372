/** spaces, map: address spaces, and what can be mapped into one. */
import { type Command, Option } from 'commander'
import { hex, rangeOf, rangeText, iova as toIova } from '../../base/units.ts'
import { requireItems } from '../../client/item-status.ts'
import { allOf, mapAll } from '../../client/verbs.ts'
import type { Access } from '../../proto/vfiod/v1/Access.ts'
import type { AddressSpace__Output as AddressSpace } from '../../proto/vfiod/v1/AddressSpace.ts'
import type { HugePage } from '../../proto/vfiod/v1/HugePage.ts'
import type { IovaRange__Output as IovaRange } from '../../proto/vfiod/v1/IovaRange.ts'
import type { Owner__Output as Owner } from '../../proto/vfiod/v1/Owner.ts'
import { adopt, leave } from '../adopted.ts'
import { newSpaceId, withSpace } from '../borrowed-device.ts'
import { withConditions } from '../conditions.ts'
import { CliError } from '../failure.ts'
import { bytesText, parseNumber, parseSmall } from '../numbers.ts'
import { type MappedRegion, mapPeer, type PeerRegion, parsePeers } from '../peer-regions.ts'
import { action, type CommandSession } from '../session.ts'
import { enumText, propertiesText, tableText } from '../table.ts'

const ABOUT_MAP = `
Makes an address space, adds the groups, allocates memory, maps it, and prints what the space can
do: whether a group can be used, how much may be mapped and where. With --hold it keeps all of it
until Ctrl-C, so that others can look at it (vfioctl spaces).

With --peer it opens a device of one of the groups as well and maps a region of it, such as
0000:00:05.0/BAR0, behind the memory: the other devices of the address space reach it by DMA.

The mappings of a process belong to it and end with it. With --hand-over they are kept without a
process until a client adopts them by the printed token (vfioctl unmap), or until the deadline.`

const ABOUT_UNMAP = `
Becomes the owner of everything the token is for, unmaps all of it or one range, prints what was
unmapped and what is left, and gives the rest back as it ends.`

const ACCESS = {
  read: 'ACCESS_READ',
  write: 'ACCESS_WRITE',
  'read-write': 'ACCESS_READ_WRITE',
} as const satisfies Record<string, Access>

const HUGE = { '2M': 'HUGE_PAGE_2M', '1G': 'HUGE_PAGE_1G' } as const satisfies Record<
  string,
  HugePage
>

const parseGroups = (text: string, before: readonly number[] = []): number[] => [
  ...before,
  parseSmall(text),
]

/** Of an owner that is gone and has handed over what it had. */
export const waitText = ({ waitsMs }: { readonly waitsMs: number }): string =>
  `gone; waits ${Math.ceil(waitsMs / 1000)} s for its token`

export const nameOf = ({ process, identity }: Owner): string =>
  process === null ? identity : `pid ${process.pid} (${process.command}), uid ${process.uid}`

const ownerText = ({ owner }: AddressSpace): string =>
  owner === null ? '' : `${nameOf(owner)}${owner.gone ? `\n${waitText(owner)}` : ''}`

const spacesText = (spaces: readonly AddressSpace[]): string =>
  tableText(
    ['SPACE', 'STATE', 'GROUPS', 'DEVICES', 'MAPPINGS', 'MAPPED', 'OWNER'],
    spaces.map((space) => [
      space.spaceId,
      enumText('SPACE_STATE_', space.state),
      space.groupIds.join(', '),
      space.devices.join('\n'),
      space.mappings,
      bytesText(space.mappedBytes),
      ownerText(space),
    ]),
  )

const listSpaces = async ({ client, output, signal }: CommandSession): Promise<void> => {
  const spaces = await allOf('spaces', (page) => client.addressSpace.listSpaces(page, { signal }))
  output.answer({ spaces }, () =>
    spaces.length === 0 ? 'no address spaces' : withConditions(spacesText(spaces), spaces),
  )
}

/** One bit per size: `4 KiB, 2 MiB`; a row of many neighbours by its ends only. */
const pageSizesText = (pageSizes: string): string => {
  const sizes: bigint[] = []
  for (let bit = 0n; bit < 64n; bit += 1n)
    if ((BigInt(pageSizes) >> bit) & 1n) sizes.push(1n << bit)
  const texts = sizes.map(bytesText)
  return texts.length > 4 ? `${texts[0]} to ${texts.at(-1)}` : texts.join(', ')
}

const apertureText = ({ start, last }: IovaRange): string =>
  `${hex(BigInt(start))}..${hex(BigInt(last))}`

const spaceText = (space: AddressSpace): string =>
  propertiesText([
    ['space', space.spaceId],
    ['state', enumText('SPACE_STATE_', space.state)],
    ['groups', space.groupIds.join(', ')],
    ['apertures', space.apertures.map(apertureText).join(', ')],
    ['page sizes', pageSizesText(space.pageSizes)],
    ['mappings', `${space.mappings}, ${space.mappingsAvailable} more possible`],
    ['mapped', bytesText(space.mappedBytes)],
    ['backend', space.backend.replace('SPACE_BACKEND_', '').toLowerCase().replace('_', '-')],
    ['remap', space.canRemap ? 'possible' : `not possible: ${space.remapBlocked}`],
  ])

/** The lowest iova where the length fits, from an iova on. */
const firstFit = (
  space: AddressSpace | null,
  length: bigint,
  { from = 0n, step = BigInt(space?.alignment ?? 1) || 1n } = {},
): bigint => {
  // Any will do for the daemon to say what keeps the space from being ready.
  if (space?.state !== 'SPACE_STATE_READY') return 0n
  for (const { start, last } of space.apertures) {
    const lowest = BigInt(start) > from ? BigInt(start) : from
    const aligned = ((lowest + step - 1n) / step) * step
    if (aligned + length - 1n <= BigInt(last)) return aligned
  }
  const found = space.apertures.map(apertureText).join(', ') || 'none'
  throw new CliError(`Cannot place ${hex(length)} bytes: they fit into no aperture (${found})`)
}

interface MapOptions {
  readonly group: number[]
  readonly length: bigint
  readonly iova?: bigint
  readonly access: keyof typeof ACCESS
  readonly huge?: keyof typeof HUGE
  readonly peer?: readonly PeerRegion[]
  readonly hold?: boolean
  readonly handOver?: number
}

/** Keeps what was made. An open stream tells when there is no daemon any more. */
const hold = async ({ client, output, signal }: CommandSession): Promise<void> => {
  output.note('Holding it; Ctrl-C ends.')
  try {
    for await (const _ of client.inventory.watchGroups({}, { signal }));
  } catch (error) {
    if (!signal.aborted) throw error
  }
}

const map = (session: CommandSession, options: MapOptions): Promise<void> =>
  options.handOver === undefined
    ? withSpace(session, (spaceId) => mapInto(session, options, spaceId))
    : mapAndLeave(session, options, options.handOver)

/** The mappings outlive this process, which must not destroy them. */
const mapAndLeave = async (
  session: CommandSession,
  options: MapOptions,
  deadlineMs: number,
): Promise<void> => {
  const { client, signal } = session
  const spaceId = newSpaceId()
  await client.addressSpace.createSpace({ spaceId }, { signal })
  await mapInto(session, options, spaceId)
  await leave(session, deadlineMs)
}

interface Place {
  readonly iova: bigint
  readonly length: bigint
}

const placeText = ({ iova: start, length }: Place): string =>
  rangeText(rangeOf(toIova(start), length))

const peerText = (peer: MappedRegion): string =>
  `mapped ${bytesText(peer.length)} at ${placeText(peer)}, ${peer.name} of ${peer.device}`

/** The regions behind the memory, each where a multiple of its size is. */
const mapPeers = async (
  session: CommandSession,
  spaceId: string,
  { peer: wanted = [], access }: MapOptions,
  at: { readonly space: AddressSpace | null; readonly from: bigint },
): Promise<MappedRegion[]> => {
  const mapped: MappedRegion[] = []
  for (const peer of wanted) {
    const [before] = mapped.slice(-1)
    const from = before === undefined ? at.from : before.iova + before.length
    const place = (length: bigint) => firstFit(at.space, length, { from, step: length })
    mapped.push(await mapPeer(session, spaceId, peer, { access: ACCESS[access], place }))
  }
  return mapped
}

const mapInto = async (
  session: CommandSession,
  options: MapOptions,
  spaceId: string,
): Promise<void> => {
  const { client, output, signal } = session
  const { length, access, huge } = options
  for (const groupId of options.group)
    await client.addressSpace.addGroup({ spaceId, groupId }, { signal })
  const { space: empty } = await client.addressSpace.getSpace({ spaceId }, { signal })
  const iova = options.iova ?? firstFit(empty, length)
  const hugePage = huge === undefined ? {} : { hugePage: HUGE[huge] }
  const allocated = await client.memory.allocateMemory(
    { length: String(length), ...hugePage },
    { signal },
  )
  const memoryId = allocated.memory?.memoryId ?? ''
  const range = { iova, length, memoryId, access: ACCESS[access] }
  await mapAll(client, spaceId, [range], { signal })
  const peers = await mapPeers(session, spaceId, options, { space: empty, from: iova + length })
  const { space } = await client.addressSpace.getSpace({ spaceId }, { signal })
  const answer = { space, mapping: range, ...(peers.length === 0 ? {} : { peers }) }
  output.answer(answer, () => {
    const lines = [
      `mapped ${bytesText(length)} at ${placeText(range)}, ${access}`,
      ...peers.map(peerText),
    ]
    return `${space === null ? '' : spaceText(space)}\n\n${lines.join('\n')}`
  })
  if (options.hold === true) await hold(session)
}

interface UnmapOptions {
  readonly iova?: bigint
  readonly length?: bigint
}

const unmap = async (
  session: CommandSession,
  token: string,
  options: UnmapOptions,
): Promise<void> => {
  const { client, output, signal } = session
  const { iova, length } = options
  if ((iova === undefined) !== (length === undefined))
    throw new CliError('Cannot unmap a range: --iova and --length belong together')
  const mine = await adopt(session, token)
  const what =
    iova === undefined ? { all: true } : { items: [{ iova: `${iova}`, length: `${length}` }] }
  for (const { spaceId } of mine) {
    const { results, unmappedBytes } = await client.addressSpace.unmap(
      { spaceId, ...what },
      { signal },
    )
    requireItems('vfiod.v1.AddressSpaceService/Unmap', results)
    const { space } = await client.addressSpace.getSpace({ spaceId }, { signal })
    output.answer({ space, unmappedBytes }, () => {
      const left = `${space?.mappings ?? 0} mappings left`
      return `${spaceId}: unmapped ${bytesText(unmappedBytes)}, ${left}`
    })
    await client.addressSpace.destroySpace({ spaceId }, { signal })
  }
}

export const addSpacesCommands = (program: Command): void => {
  program
    .command('spaces')
    .description('list the address spaces of all clients')
    .action(action(listSpaces))
  program
    .command('map')
    .description('map memory for the devices of a group, and show what its address space can do')
    .requiredOption('--group <number>', 'a group to add; may be repeated', parseGroups)
    .requiredOption('--length <bytes>', 'how much to allocate and map, such as 2M', parseNumber)
    .option('--iova <address>', 'where to map it (default: the lowest place)', parseNumber)
    .addOption(
      new Option('--access <kind>', 'what devices may do with it')
        .choices(Object.keys(ACCESS))
        .default('read-write'),
    )
    .addOption(
      new Option('--huge <size>', 'allocate huge pages of this size').choices(Object.keys(HUGE)),
    )
    .option(
      '--peer <device/region>',
      'open a device, and map a region of it for the others; may be repeated',
      parsePeers,
    )
    .option('--hold', 'keep it until Ctrl-C')
    .option(
      '--hand-over <ms>',
      'keep it for that long, for the client that has the token',
      parseSmall,
    )
    .addHelpText('after', ABOUT_MAP)
    .action(action(map))
  program
    .command('unmap')
    .description('adopt the resources of a token, and unmap them')
    .argument('<token>', 'as `map --hand-over` printed it')
    .option('--iova <address>', 'unmap only from here on', parseNumber)
    .option('--length <bytes>', 'and so many bytes', parseNumber)
    .addHelpText('after', ABOUT_UNMAP)
    .action(action(unmap))
}
