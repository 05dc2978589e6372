/**
 * Attacks, each with a well-behaved client of another identity beside it: its calls are answered, what it
 * has stays its own, an administrator gets in, and afterwards the daemon has what it had before. Here a
 * sample of each attack; `npm run attacks` measures how long the calls take, against those without one.
 */

import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { lacksOpenssl } from '../api/certificates.ts'
import { canBeOthers, noOtherUsers } from '../other-users.ts'
import { ATTACKS, hasFuse, NETWORK } from './attacks.ts'
import { type Attack, type Looked, Scene } from './scene.ts'

const isLong = process.env.VFIOD_ATTACKS === 'long'

/** What the bystander does: a few calls, answered at all; or ten calls a second, in time. */
const LOOK = isLong
  ? { count: 200, everyMs: 100, deadlineMs: 500 }
  : { count: 10, everyMs: 10, deadlineMs: 100_000 }

vi.setConfig({ testTimeout: 300_000 })

/** How long a client on another host may be unheard: it says every half second that it is there. */
const LEASE_MS = isLong ? 4000 : 30_000

/** Of the slowest of a hundred calls, beside an attack and without. */
const RATIO_MAX = 20

/** Of what the daemon holds after an attack: its heap is not that of an empty daemon. */
const GROWTH_MAX = 64 << 20

/** How long what an attack had may take to be given back: a closer of fds lives a second. */
const BACK = { timeout: 100_000 }

/** Of each family, so many in a sample. */
const SAMPLE = 2

const quantile = (of: Looked, part: number): number => {
  const sorted = [...of.took].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0
}

const rows: Record<string, string | number>[] = []

const measure = (attack: Attack, bystander: string, idle: Looked, under: Looked): void => {
  const [before, beside] = [quantile(idle, 0.99), quantile(under, 0.99)]
  const ratio = beside / before
  rows.push({
    attack: attack.name,
    bystander,
    failed: under.failures.length,
    'p99 before, ms': before.toFixed(1),
    'p99 beside, ms': beside.toFixed(1),
    ratio: ratio.toFixed(1),
  })
  expect(ratio, `p99 ${beside} ms against ${before} ms`).toBeLessThanOrEqual(RATIO_MAX)
}

const title = [
  `attacks${noOtherUsers}`,
  ...(hasFuse ? [] : ['(without those by FUSE: there is no /dev/fuse)']),
  ...(lacksOpenssl ? ['(without those from other hosts: there is no openssl)'] : []),
].join(' ')

const families = Object.entries({ ...ATTACKS, ...(lacksOpenssl ? {} : NETWORK) })

describe.skipIf(!canBeOthers)(title, () => {
  let scene: Scene
  let before: { readonly inUse: string; readonly fds: number; readonly used: number }
  const inUse = async (): Promise<string> => (await scene.inUse()).join(', ')
  const heldNow = async () => {
    const { fds, used } = await scene.daemon.held()
    return { used, fds: fds.length, inUse: await inUse() }
  }

  beforeAll(async () => {
    scene = await Scene.set(LEASE_MS)
    await scene.warmUp()
    await scene.look(LOOK)
    before = await heldNow()
  })
  afterAll(async () => {
    if (rows.length > 0) console.table(rows)
    expect(await scene.end(), scene.daemon.output.slice(-4000)).toBe(0)
  })

  for (const [family, attacks] of families) {
    describe(family, () => {
      let idle: readonly Looked[]
      beforeAll(async () => {
        if (isLong) idle = await scene.look(LOOK)
      })

      test.each(isLong ? attacks : attacks.slice(0, SAMPLE))('$name', async (attack) => {
        const { daemon } = scene
        const attacker = await scene.start(attack)

        const beside = async () => ({
          under: await scene.look(LOOK),
          isIn: await scene.letsAdministratorIn(),
        })
        const { under, isIn } = await beside().finally(() => attacker.end())

        for (const [each, bystander] of scene.bystanders.entries()) {
          const { failures, guest } = under[each] as Looked
          expect(failures, bystander.name).toEqual([])
          expect(guest, bystander.name).toEqual(bystander.guest)
        }
        expect(isIn).toBe(true)
        expect(scene.released()).toEqual([])
        expect(daemon.isAlive, daemon.output.slice(-4000)).toBe(true)
        expect(daemon.mistakes()).toEqual([])
        await expect.poll(inUse, BACK).toBe(before.inUse)
        await expect.poll(() => daemon.fds().length, BACK).toBeLessThanOrEqual(before.fds)
        const growth = async () => (await heldNow()).used - before.used
        await expect.poll(growth, BACK).toBeLessThan(GROWTH_MAX)
        for (const [each, { name }] of scene.bystanders.entries())
          if (isLong) measure(attack, name, idle[each] as Looked, under[each] as Looked)
      })
    })
  }
})
