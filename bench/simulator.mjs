/** The simulator as bench/simulator-hook.mjs gives it to the daemon: over the kernel of kernel.mjs. */
import { createSim as createReal } from '../dist/backends/sim/sim.js'
import { benchKernel } from './kernel.mjs'

const sessionBytes = Number(new URL(import.meta.url).searchParams.get('sessionBytes'))

export const createSim = (spec, options) => {
  const sim = createReal(spec, options)
  const kernel = benchKernel(sim.kernel, { sessionBytes })
  return Object.create(sim, { kernel: { value: kernel } })
}
