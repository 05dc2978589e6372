/**
 * The stream of changes is all there is to know: replayed on an empty state it gives the same state,
 * and the running sums are what the records add up to. VFIOD_RUNS asks for more runs, VFIOD_SEED
 * repeats them.
 */

import fc from 'fast-check'
import { expect, test } from 'vitest'
import { ERRNO } from '../../src/base/errno.ts'
import type { Change } from '../../src/domain/state/changes.ts'
import { State } from '../../src/domain/state/state.ts'
import { describeModes, TYPE1 } from '../modes.ts'
import { world } from './machine.ts'
import { perform, runs, settle } from './random-client.ts'
import { requireRightBooks, WatchedKernel } from './watched-kernel.ts'

const RUNS = Number(process.env.VFIOD_RUNS ?? 100)
const SEED = process.env.VFIOD_SEED === undefined ? 2026 : Number(process.env.VFIOD_SEED)

/** What a journal would keep of a change. */
const written = (change: Change): string =>
  JSON.stringify(change, (_, value) => (typeof value === 'bigint' ? { bigint: `${value}` } : value))

const read = (text: string): Change =>
  JSON.parse(text, (_, value) => (value?.bigint === undefined ? value : BigInt(value.bigint)))

describeModes('changes that were written down', (mode) => {
  test('give the same state when they are replayed, and the same usage', async () => {
    const kinds = new Set<string>()
    const property = fc.asyncProperty(runs, async ({ operations, faults, concurrency }) => {
      const watched = new WatchedKernel()
      const at = world({}, { mode, time: 'poked', over: watched.over })
      const journal: string[] = []
      at.domain.state.listen((change) => {
        journal.push(written(change))
        kinds.add(change.kind)
      })
      await settle(at)
      watched.arm((call) => (faults.includes(call) ? ERRNO.EIO : undefined))
      await perform(at, operations, concurrency)
      watched.arm()

      const again = new State()
      for (const line of journal) again.apply(read(line))
      expect(again.snapshot()).toEqual(at.domain.state.snapshot())
      requireRightBooks(at)

      await at.domain.releaseAll('the run is over')
      requireRightBooks(at)
      expect([...watched.openFds]).toEqual([])
      expect([...watched.segments]).toEqual([])
    })
    await fc.assert(property, { numRuns: RUNS, seed: SEED, endOnFailure: true })

    // The runs are worth something only if they get far.
    const reached = ['mapped', 'unmapped', 'device-opened', 'session-opened', 'adopted', 'released']
    const ofType1 = mode === TYPE1 ? ['remapped', 'tracking-started', 'regions-unmapped'] : []
    expect([...kinds]).toEqual(expect.arrayContaining([...reached, ...ofType1]))
  })
})
