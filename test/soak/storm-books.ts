/**
 * The books of the daemon against what is there: what each account uses, as an administrator is told, and
 * the sum of what its clients list. Nothing that is charged is missing in a list, and nothing is charged
 * to another account.
 */

import type { VfiodClient } from '../../src/client/client.ts'
import { allOf } from '../../src/client/verbs.ts'

/** What a client of the storm says that it owns. */
export interface Report {
  readonly clientId: string
  readonly identity: string
  readonly pid: number
  readonly connections: number
  readonly memories: readonly {
    readonly memoryId: string
    readonly length: string
    readonly allocated: boolean
    readonly views: number
  }[]
  readonly spaces: readonly string[]
  readonly sessions: readonly string[]
  /** Why it could not say. */
  readonly failed?: string
}

type Amounts = Readonly<Record<string, bigint>>

class Sums {
  readonly #sums = new Map<string, bigint>()

  add(account: string, amounts: Amounts): void {
    for (const [name, amount] of Object.entries(amounts)) {
      const key = `${account}: ${name}`
      this.#sums.set(key, (this.#sums.get(key) ?? 0n) + amount)
    }
  }

  /** Those that are not zero, as `uid 20000: mappings 3`. */
  get lines(): string[] {
    const used = [...this.#sums].filter(([, sum]) => sum !== 0n)
    return used.map(([key, sum]) => `${key} ${sum}`).sort()
  }
}

const memoryPrice = ({ length, allocated, views }: Report['memories'][number]): Amounts => ({
  memories: 1n,
  fds: 1n,
  memory_bytes: BigInt(length) * BigInt(views),
  ...(allocated && { allocated_bytes: BigInt(length) }),
})

/** What differs between the books and the lists; empty where nothing does. */
export async function differences(
  client: VfiodClient,
  reports: readonly Report[],
): Promise<string[]> {
  const failed = reports.flatMap(({ failed, clientId }) =>
    failed === undefined ? [] : [`${clientId}: ${failed}`],
  )
  if (failed.length > 0) return failed
  const sums = new Sums()
  sums.add(`uid ${process.getuid?.()}`, { connections: 1n, processes: 1n })
  const ofSpace = new Map<string, string>()
  for (const report of reports) {
    const { identity, connections, memories, sessions, spaces, clientId } = report
    sums.add(identity, { connections: BigInt(connections), processes: 1n })
    for (const memory of memories) sums.add(identity, memoryPrice(memory))
    for (const _ of sessions) sums.add(identity, { sessions: 1n, fds: 1n })
    for (const space of spaces) ofSpace.set(space, clientId)
  }
  const spaces = await allOf('spaces', (page) => client.addressSpace.listSpaces(page))
  for (const { owner, mappings, mappedBytes, devices } of spaces) {
    sums.add(owner?.identity ?? 'no one', {
      address_spaces: 1n,
      mappings: BigInt(mappings),
      locked_bytes: BigInt(mappedBytes),
      devices: BigInt(devices.length),
      fds: 1n + 3n * BigInt(devices.length),
    })
  }
  const misattributed = spaces
    .filter(({ spaceId, owner }) => ofSpace.get(spaceId) !== owner?.clientId)
    .map(({ spaceId, owner }) => `${spaceId} is of ${owner?.clientId}, not ${ofSpace.get(spaceId)}`)

  const books = new Sums()
  const all = new Sums()
  const { usage, accounts } = await client.admin.getUsage()
  for (const { account, used } of accounts) {
    const amounts = Object.fromEntries(used.map(({ name, current }) => [name, BigInt(current)]))
    books.add(account, amounts)
    all.add('all', amounts)
  }
  const total = new Sums()
  for (const { name, current } of usage) total.add('all', { [name]: BigInt(current) })
  return [
    ...misattributed,
    ...apart(sums.lines, books.lines, 'listed, not in the books'),
    ...apart(books.lines, sums.lines, 'in the books, not listed'),
    ...apart(total.lines, all.lines, 'of all, not of the accounts'),
  ]
}

const apart = (some: readonly string[], others: readonly string[], why: string): string[] =>
  some.filter((line) => !others.includes(line)).map((line) => `${line} (${why})`)
