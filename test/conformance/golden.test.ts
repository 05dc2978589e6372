// The simulator answers as the real kernel did when the golden traces were recorded.

import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { golden, replay } from './golden.ts'
import { Memory } from './memory.ts'
import { Processes } from './processes.ts'
import { SimSide } from './sim-side.ts'

const folder = fileURLToPath(new URL('golden', import.meta.url))
const sim = new Processes(await SimSide.make(await Memory.make(), await Memory.make()))

for (const [area, traces] of golden(folder))
  describe(`golden traces of ${area}`, () => {
    test.each(traces)('$name', async (trace) => {
      const answers = await replay(sim, trace)

      const told = trace.steps.slice(0, answers.length).map(([op]) => JSON.stringify(op))
      const recorded = trace.steps.slice(0, answers.length).map(([, outcome]) => outcome)
      expect(told.map((op, at) => `${op} -> ${answers[at]}`)).toEqual(
        told.map((op, at) => `${op} -> ${recorded[at]}`),
      )
      expect(answers).toHaveLength(trace.steps.length)
    })
  })
