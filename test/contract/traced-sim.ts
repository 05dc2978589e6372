/**
 * The simulator whose every call is traced: what createSim is in the project `traced`
 * (vitest.config.ts), so that the whole contract runs over a kernel that writes down its calls.
 */

// By another way than the alias of that project, which leads here.
import * as real from '../../src/backends/sim/../sim/sim.ts'
import { TracedKernel } from '../../src/kernel/trace.ts'

export type { Sim, SimProcess, SpawnOptions } from '../../src/backends/sim/../sim/sim.ts'

/** What a line of the trace looks like; a ? stands for what could not be shown. */
const LINE = /^\w+\([^?]*\) = [^?]+ <\d+us>\n$/

let lines = 0
const wrong: string[] = []

const write = (line: string): void => {
  lines += 1
  if (!LINE.test(line)) wrong.push(line)
}

/** How many lines there were since the last look, and those that are none. */
export const takeLines = (): { readonly lines: number; readonly wrong: readonly string[] } => {
  const taken = { lines, wrong: wrong.splice(0) }
  lines = 0
  return taken
}

const traced = <Handle extends real.SimProcess>(handle: Handle): Handle =>
  Object.assign(handle, { kernel: new TracedKernel(handle.kernel, write) })

export const createSim: typeof real.createSim = (...given) => {
  const sim = traced(real.createSim(...given))
  const spawn = sim.spawn.bind(sim)
  return Object.assign(sim, {
    spawn: (...options: Parameters<typeof spawn>) => traced(spawn(...options)),
  })
}
