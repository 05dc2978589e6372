/**
 * Golden traces: what the real kernel answered, kept in golden/AREA.json and replayed against the
 * simulator without a machine. Operations are numbered, since sequences share how they begin.
 */

import { readdirSync, readFileSync } from 'node:fs'
import type { Op, Sequence } from './operation.ts'
import type { Processes } from './processes.ts'

export interface Trace {
  readonly name: string
  readonly lockPages: Sequence['lockPages']
  readonly steps: readonly (readonly [Op, string])[]
}

interface StoredTrace {
  readonly name: string
  readonly lockPages: Sequence['lockPages']
  readonly steps: readonly (readonly [number, string])[]
}

/** Lines of a file: all operations first, then one for each trace. */
export const linesOf = (traces: readonly Trace[]): string[] => {
  const ops = new Map<string, number>()
  const numberOf = (op: Op): number => {
    const text = JSON.stringify(op)
    const number = ops.get(text) ?? ops.size
    ops.set(text, number)
    return number
  }
  const stored = traces.map(
    ({ steps, ...rest }): StoredTrace => ({
      ...rest,
      steps: steps.map(([op, outcome]) => [numberOf(op), outcome]),
    }),
  )
  return [`[${[...ops.keys()].join(',\n')}]`, ...stored.map((trace) => JSON.stringify(trace))]
}

export const golden = (folder: string): ReadonlyMap<string, readonly Trace[]> => {
  const files = readdirSync(folder).filter((name) => name.endsWith('.json'))
  return new Map(
    files.map((name) => {
      const text = readFileSync(`${folder}/${name}`, 'utf8')
      const [ops, ...stored] = JSON.parse(text) as [Op[], ...StoredTrace[]]
      const traces = stored.map(
        ({ steps, ...rest }): Trace => ({
          ...rest,
          steps: steps.map(([number, outcome]) => [ops[number] as Op, outcome]),
        }),
      )
      return [name.replace(/\.json$/, ''), traces]
    }),
  )
}

/** What the simulator answers, step by step, for as long as it is what is recorded. */
export const replay = async (sim: Processes, { lockPages, steps }: Trace): Promise<string[]> => {
  const answers: string[] = []
  sim.begin(lockPages)
  for (const [op, recorded] of steps) {
    const answer = await sim.act(op)
    answers.push(answer)
    if (answer !== recorded) break
  }
  sim.end()
  return answers
}
