/**
 * Fronts that are killed under load, again and again: the daemon stays, its books are exact, a client of
 * another account is answered all the time, and nothing is kept. `npm run soak:fronts` kills 10,000.
 */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { connect, type VfiodClient } from '../../src/client/client.ts'
import { ClientProcess } from '../api/client-process.ts'
import { canBeOthers, noOtherUsers } from '../other-users.ts'
import { until } from '../system/world.ts'
import { SoakDaemon, seed } from './daemon.ts'
import { Random } from './random.mjs'

const KILLS = Number(process.env.VFIOD_KILLS ?? 6)
const VICTIM = 20_005
/** Accounts whose fronts are killed: many, because each front is started later the sooner it ended. */
const ACCOUNTS = KILLS < 1000 ? 2 : 16
const loadId = (n: number): number => 20_100 + n
const rules = [VICTIM, ...Array.from({ length: ACCOUNTS }, (_, n) => loadId(n))].map(
  (uid) => `[[rule]]\nuser = ${uid}\nrole = "operate"\n`,
)
const POLICY = `[[rule]]\nuser = "root"\nrole = "admin"\n${rules.join('')}`
/** Clients of each account. */
const LOAD = 2

const childrenOf = (pid: number): number[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .trim()
    .split(' ')
    .filter(Boolean)
    .map(Number)

const secondsSince = (started: number): number => Math.round((performance.now() - started) / 1000)

/** What each account uses, as `uid 20005: 1 fds`. */
const usageOf = async (client: VfiodClient): Promise<string[]> => {
  const { accounts } = await client.admin.getUsage()
  return accounts
    .flatMap(({ account, used }) =>
      used.map(({ name, current }) => `${account}: ${current} ${name}`),
    )
    .sort()
}

test.skipIf(!canBeOthers)(
  `fronts that are killed under load cost their connections alone${noOtherUsers}`,
  { timeout: 60_000 + KILLS * 5000 },
  async () => {
    const random = new Random(seed)
    const daemon = await SoakDaemon.start('', POLICY)
    const victim = new ClientProcess(daemon.socket, { uid: VICTIM, gid: VICTIM })
    await victim.call('addressSpace', 'createSpace', { spaceId: 'victim' })
    const [ofVictim] = childrenOf(daemon.child.pid ?? 0)
    let isOver = false
    const clients = Array.from({ length: ACCOUNTS * LOAD }, (_, n) => {
      const id = loadId(n % ACCOUNTS)
      return new ClientProcess(daemon.socket, { uid: id, gid: id })
    })
    /** By account. */
    const served = Array.from({ length: ACCOUNTS }, () => 0)
    const load = clients.map(async (client, n) => {
      for (let call = 0; !isOver; call += 1) {
        const request = { spaceId: `load-${n}-${call}` }
        const { error } = await client.call('addressSpace', 'createSpace', request)
        // Its front is gone: the next call connects again.
        if (error === undefined) served[n % ACCOUNTS] = (served[n % ACCOUNTS] ?? 0) + 1
        else expect(error.status).toBe('UNAVAILABLE')
        await client.call('addressSpace', 'destroySpace', request)
      }
    })
    const started = performance.now()
    let asked = 0
    const asking = (async () => {
      while (!isOver) {
        const { result, error } = await victim.call('addressSpace', 'getSpace', {
          spaceId: 'victim',
        })
        expect(error).toBeUndefined()
        expect(result.space.spaceId).toBe('victim')
        asked += 1
      }
    })()

    let kills = 0
    while (kills < KILLS) {
      const before = [...served]
      await until(() => served.every((count, n) => count > (before[n] ?? 0)))
      const others = childrenOf(daemon.child.pid ?? 0).filter((pid) => pid !== ofVictim)
      for (const pid of others) {
        process.kill(pid, random.below(2) === 0 ? 'SIGKILL' : 'SIGABRT')
        kills += 1
        if (kills % 500 === 0) console.log(`fronts killed: ${kills} in ${secondsSince(started)} s`)
      }
      expect(daemon.isAlive, `VFIOD_SEED=${seed}`).toBe(true)
    }
    isOver = true
    await Promise.all([...load, asking])
    const all = served.reduce((sum, count) => sum + count, 0)
    const figures = { seed, kills, seconds: secondsSince(started), served: all, asked }
    console.log(`fronts ${JSON.stringify(figures)}`)

    expect(asked).toBeGreaterThan(0)
    await Promise.all(clients.map((each) => each.kill()))
    const client = connect({ socket: daemon.socket })
    await expect
      .poll(() => usageOf(client), { timeout: 40_000 })
      .toEqual(
        [
          ...['connections', 'processes'].map((name) => `uid 0: 1 ${name}`),
          ...['address_spaces', 'connections', 'fds', 'processes'].map(
            (name) => `uid ${VICTIM}: 1 ${name}`,
          ),
        ].sort(),
      )
    client.close()
    await victim.kill()
    expect(daemon.mistakes(), `VFIOD_SEED=${seed}`).toEqual([])
    expect(await daemon.stop(), daemon.output.slice(-4000)).toBe(0)
  },
)
