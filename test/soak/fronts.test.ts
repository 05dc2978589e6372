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
const POLICY = `[[rule]]\nuser = "root"\nrole = "admin"\n[[rule]]\nuser = ${VICTIM}\nrole = "operate"\n`
/** What is killed for: clients of the account whose front goes. */
const LOAD = 4

const childrenOf = (pid: number): number[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .trim()
    .split(' ')
    .filter(Boolean)
    .map(Number)

const usageOf = async (client: VfiodClient): Promise<string[]> => {
  const { usage } = await client.admin.getUsage()
  return usage.flatMap(({ name, current }) => (current === '0' ? [] : [`${current} ${name}`]))
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
    let served = 0
    const clients = Array.from({ length: LOAD }, () => new ClientProcess(daemon.socket))
    const load = clients.map(async (client, n) => {
      for (let call = 0; !isOver; call += 1) {
        const request = { spaceId: `load-${n}-${call}` }
        const { error } = await client.call('addressSpace', 'createSpace', request)
        // Its front is gone: the next call connects again.
        if (error === undefined) served += 1
        else expect(error.status).toBe('UNAVAILABLE')
        await client.call('addressSpace', 'destroySpace', request)
      }
    })
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

    for (let kill = 0; kill < KILLS; kill += 1) {
      const before = served
      await until(() => served > before)
      const others = childrenOf(daemon.child.pid ?? 0).filter((pid) => pid !== ofVictim)
      for (const pid of others) process.kill(pid, random.below(2) === 0 ? 'SIGKILL' : 'SIGABRT')
      expect(daemon.isAlive, `VFIOD_SEED=${seed}`).toBe(true)
    }
    isOver = true
    await Promise.all([...load, asking])

    expect(asked).toBeGreaterThan(0)
    await Promise.all(clients.map((each) => each.kill()))
    const client = connect({ socket: daemon.socket })
    await expect
      .poll(() => usageOf(client), { timeout: 40_000 })
      .toEqual(['1 address_spaces', '1 fds', '2 connections', '2 processes'])
    client.close()
    await victim.kill()
    expect(daemon.mistakes(), `VFIOD_SEED=${seed}`).toEqual([])
    expect(await daemon.stop(), daemon.output.slice(-4000)).toBe(0)
  },
)
