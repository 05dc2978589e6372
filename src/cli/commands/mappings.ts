/** mappings: the mappings of the address spaces of a token. */
import type { Command } from 'commander'
import { hex, iova, rangeOf, rangeText } from '../../base/units.ts'
import type { VfiodClient } from '../../client/client.ts'
import type { Mapping__Output as Mapping } from '../../proto/vfiod/v1/Mapping.ts'
import { withAdopted } from '../adopted.ts'
import { bytesText, parseSmall } from '../numbers.ts'
import { action, type CommandSession } from '../session.ts'
import { enumText, tableText } from '../table.ts'

const ABOUT = `
Becomes the owner of everything the token is for, lists the mappings of its address spaces, and hands
everything over again for --keep milliseconds: the new token is printed at the end.`

const KEEP_MS = 60_000

const allMappings = async (
  client: VfiodClient,
  spaceId: string,
  signal: AbortSignal,
): Promise<Mapping[]> => {
  const all: Mapping[] = []
  for (let fromIova = '0'; ; ) {
    const page = await client.addressSpace.listMappings({ spaceId, fromIova }, { signal })
    all.push(...page.mappings)
    const last = page.mappings.at(-1)
    if (!page.more || last === undefined) return all
    fromIova = String(BigInt(last.iova) + BigInt(last.length))
  }
}

const sourceText = ({ memoryId, region }: Mapping): string =>
  region ? `region ${region.region} of ${region.device}` : `memory ${memoryId ?? ''}`

const mappingsText = (mappings: readonly Mapping[]): string =>
  tableText(
    ['IOVA', 'LENGTH', 'SOURCE', 'OFFSET', 'ACCESS'],
    mappings.map((mapping) => [
      rangeText(rangeOf(iova(BigInt(mapping.iova)), BigInt(mapping.length))),
      bytesText(mapping.length),
      sourceText(mapping),
      hex(BigInt(mapping.offset)),
      enumText('ACCESS_', mapping.access).replace(' ', '-'),
    ]),
  )

const list = (
  session: CommandSession,
  token: string,
  { keep }: { readonly keep: number },
): Promise<void> =>
  withAdopted(session, { token, keepMs: keep }, async (spaceId) => {
    const { client, output, signal } = session
    const mappings = await allMappings(client, spaceId, signal)
    output.answer({ spaceId, mappings }, () =>
      mappings.length === 0 ? `${spaceId} has no mappings` : mappingsText(mappings),
    )
  })

export const addMappingsCommand = (program: Command): void => {
  program
    .command('mappings')
    .description('list the mappings of the address spaces of a token')
    .argument('<token>', 'as `map --hand-over` or the command before printed it')
    .option('--keep <ms>', 'how long to keep it for the next owner', parseSmall, KEEP_MS)
    .addHelpText('after', ABOUT)
    .action(action(list))
}
