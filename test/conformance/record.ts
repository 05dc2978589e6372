/**
 * Recording: the directed sequences, and of many random ones those that show something that none
 * before them did, until there is enough.
 */

import fc from 'fast-check'
import type { Area } from './areas/area.ts'
import { directed } from './directed.ts'
import type { Duel } from './duel.ts'
import { linesOf, type Trace } from './golden.ts'
import type { Op } from './operation.ts'

const SEQUENCES = 600
const BYTES_PER_AREA = 70_000

/** What a step shows: which call on what, and how it ended. */
const keyOf = ([op, outcome]: readonly [Op, string]): string => {
  const what =
    op.op === 'ioctl' || op.op === 'value'
      ? `${op.call} ${op.op === 'ioctl' ? (op.in?.flags ?? '') : op.value}`
      : op.op
  const where = 'fd' in op ? op.fd : op.op === 'open' ? op.place : ''
  const [answer = '', ...rest] = outcome.split(' ')
  return `${what} ${where} ${answer} ${rest.length > 0}`
}

export const record = async (
  { name, sequence }: Area,
  duel: Duel,
  seed: number,
): Promise<string[]> => {
  const traces: Trace[] = []
  const seen = new Set<string>()
  const add = async (
    title: string,
    lockPages: number | null,
    ops: readonly Op[],
  ): Promise<void> => {
    const { trace, difference } = await duel.run({ start: 0, ops, lockPages })
    if (difference) throw new Error(`${title} differs: ${JSON.stringify(difference)}`)
    for (const step of trace) seen.add(keyOf(step))
    traces.push({ name: title, lockPages, steps: trace })
  }
  for (const { title, ops, lockPages = null } of directed[name] ?? [])
    await add(title, lockPages, ops)

  const candidates = fc.sample(sequence, { seed, numRuns: SEQUENCES })
  let bytes = linesOf(traces).join().length
  for (const [index, candidate] of candidates.entries()) {
    if (bytes > BYTES_PER_AREA) break
    const { trace, difference } = await duel.run(candidate)
    if (difference) throw new Error(`${name} differs: run it before recording`)
    const news = trace.filter((step) => !seen.has(keyOf(step))).length
    // The first few show much; later ones must be worth their room.
    if (news < 3) continue
    for (const step of trace) seen.add(keyOf(step))
    traces.push({ name: `seed ${seed}, ${index}`, lockPages: candidate.lockPages, steps: trace })
    bytes = linesOf(traces).join().length
  }
  return linesOf(traces)
}
