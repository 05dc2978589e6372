/**
 * Many processes of many users who grab each other's things: nobody gets them, nobody is taken for
 * another, and the daemon is afterwards what it was. `npm run soak` makes 100,000 calls of it.
 */

import { spawn } from 'node:child_process'
import { chmodSync, mkdirSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { connect, type VfiodClient } from '../../src/client/client.ts'
import { canBeOthers, noOtherUsers } from '../other-users.ts'
import { until } from '../system/world.ts'
import { type Held, isLong, SoakDaemon, seed } from './daemon.ts'

const PROGRAM = new URL('./storm-client.mjs', import.meta.url).pathname

const STORM = isLong
  ? { clients: 64, users: 16, calls: 100_000 }
  : { clients: 8, users: 4, calls: 3000 }
const FIRST_UID = 20_000

const rules = Array.from(
  { length: STORM.users },
  (_, n) => `[[rule]]\nuser = ${FIRST_UID + n}\nrole = "operate"\ndevices = ["*"]\n`,
)
const POLICY = `[[rule]]\nuser = "root"\nrole = "admin"\n${rules.join('')}`

interface Outcome {
  readonly calls: number
  readonly hostile: number
  readonly refusals: Readonly<Record<string, number>>
  readonly wrong: readonly string[]
}

let daemon: SoakDaemon
let client: VfiodClient
/** Where clients leave tickets of theirs for the others to steal. */
let tickets: string

/** All of them at once; each is killed when the last has told what it saw. */
async function storm(calls: number, seedOfStorm: number): Promise<Outcome[]> {
  const children = Array.from({ length: STORM.clients }, (_, n) => {
    const each = Math.ceil(calls / STORM.clients)
    const words = [PROGRAM, daemon.socket, seedOfStorm, each, n, STORM.clients, tickets]
    const id = FIRST_UID + (n % STORM.users)
    return spawn(process.execPath, words.map(String), {
      uid: id,
      gid: id,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
  })
  try {
    return await Promise.all(
      children.map(async ({ stdout }) => {
        for await (const line of createInterface({ input: stdout })) return JSON.parse(line)
        throw new Error(`a client of the storm ended; VFIOD_SEED=${seed}`)
      }),
    )
  } finally {
    for (const child of children) child.kill('SIGKILL')
  }
}

/** Every client but this process is forgotten, and what it had released. */
const calm = async (): Promise<Held> => {
  await until(async () => (await client.admin.listClients()).clients.length === 1)
  const inUse = async () => {
    const { usage } = await client.admin.getUsage()
    return usage.flatMap(({ name, current }) => (current === '0' ? [] : [`${current} ${name}`]))
  }
  // The kernel tells of a process before Node tells of its connection.
  await until(async () => (await inUse()).includes('1 connections'))
  expect(await inUse()).toEqual(['1 connections', '1 processes'])
  return daemon.held()
}

const sumOf = (counts: readonly Readonly<Record<string, number>>[]): Record<string, number> => {
  const total: Record<string, number> = {}
  for (const each of counts)
    for (const [name, count] of Object.entries(each)) total[name] = (total[name] ?? 0) + count
  return total
}

const figures = ({ fds, maps, used, rss }: Held): object => ({ fds: fds.length, maps, used, rss })

describe.skipIf(!canBeOthers)(`a storm of clients${noOtherUsers}`, () => {
  let outcomes: Outcome[]
  let before: Held
  let after: Held

  beforeAll(async () => {
    daemon = await SoakDaemon.start('log_level = "warn"\n', POLICY)
    tickets = `${daemon.directory}/tickets`
    mkdirSync(tickets)
    chmodSync(tickets, 0o777)
    client = connect({ socket: daemon.socket })
    const { devices } = await client.inventory.listDevices()
    const edus = devices.filter(({ deviceId }) => deviceId === 0x11e8)
    await client.inventory.bindDevices({ devices: edus.map(({ name }) => name) })
    // Caches and compiled code are not leaks: a smaller storm before makes them.
    await storm(STORM.calls / 5, seed + 1)
    before = await calm()
    outcomes = await storm(STORM.calls, seed)
    after = await calm()
    const refusals = sumOf(outcomes.map((outcome) => outcome.refusals))
    const made = sumOf(outcomes.map(({ calls, hostile }) => ({ calls, hostile })))
    const all = { seed, ...made, refusals, before: figures(before), after: figures(after) }
    console.log(`storm ${JSON.stringify(all)}`)
  }, 900_000)
  afterAll(async () => {
    client.close()
    expect(await daemon.stop(), daemon.output).toBe(0)
  })

  test('lets no client touch what another owns, and takes no client for another', () => {
    expect(
      outcomes.flatMap(({ wrong }) => wrong),
      `VFIOD_SEED=${seed}`,
    ).toEqual([])
  })

  test('has been one: every kind of trespass was tried and refused', () => {
    const refusals = sumOf(outcomes.map((outcome) => outcome.refusals))
    for (const reason of ['NOT_MM_OWNER', 'NO_SUCH_SPACE', 'BAD_TICKET', 'ROLE_NEEDED'])
      expect(refusals[reason], reason).toBeGreaterThan(0)
  })

  test('leaves the daemon without a mistake in its log', () => {
    expect(daemon.mistakes(), `VFIOD_SEED=${seed}`).toEqual([])
  })

  test('leaves no fd behind, and no pin of an mm', () => {
    expect(after.fds, `VFIOD_SEED=${seed}`).toEqual(before.fds)
  })

  test('leaves no memory of clients mapped, and its memory within a tenth', () => {
    expect(after.sharedMaps).toBe(before.sharedMaps)
    expect(after.used, 'bytes of heap and buffers').toBeLessThan(before.used * 1.1)
    // V8 maps pages of its own, by hundreds on Node 24: these settle only over the long storm.
    if (STORM.calls < 100_000) return
    expect(after.maps, 'mappings').toBeLessThan(before.maps * 1.1)
    expect(after.rss, 'resident bytes').toBeLessThan(before.rss * 1.1)
  })
})
