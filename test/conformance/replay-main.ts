/** Replays the golden traces of a folder; fails with the first answer of each that is another. */

import { golden, replay } from './golden.ts'
import { Memory } from './memory.ts'
import { Processes } from './processes.ts'
import { SimSide } from './sim-side.ts'

const [folder = ''] = process.argv.slice(2)
const sim = new Processes(await SimSide.make(await Memory.make(), await Memory.make()))
let failed = 0
for (const [area, traces] of golden(folder))
  for (const trace of traces) {
    const answers = await replay(sim, trace)
    const at = answers.length - 1
    const [op, recorded] = trace.steps[at] ?? []
    if (answers[at] === recorded) continue
    failed += 1
    if (failed > 1) continue
    console.log(`${area}, ${trace.name}: ${JSON.stringify(op)} -> ${answers[at]}, not ${recorded}`)
  }
console.log(`${failed} traces differ`)
process.exitCode = failed === 0 ? 0 : 1
