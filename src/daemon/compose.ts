/** Which kernel is underneath: the one place that knows there are two. */

import type { Simulator } from '../api/services/simulator.ts'
import { linuxKernel } from '../backends/linux/kernel.ts'
import { loadMachineFile, MachineFileError } from '../backends/sim/machine-file/machine-file.ts'
import { createSim, type Sim } from '../backends/sim/sim.ts'
import { defaultMachine } from '../backends/sim/spec/default-machine.ts'
import type { Kernel } from '../kernel/port.ts'
import { TracedKernel } from '../kernel/trace.ts'
import type { Config } from './config.ts'
import { ConfigError } from './config-error.ts'
import { simulatorOf } from './simulator.ts'
import { openTrace } from './trace-file.ts'

export interface KernelBackend {
  readonly kernel: Kernel
  /** Where the kernel is a simulated one. */
  readonly simulator?: Simulator
}

/** `over` puts helpers in the place of calls of the kernel of this host. */
export const createBackend = async (
  config: Config,
  over: (kernel: Kernel) => Kernel = (kernel) => kernel,
): Promise<KernelBackend> => {
  const ground = await untraced(config, over)
  if (config.trace === undefined) return ground
  const trace = openTrace(config.trace)
  process.once('exit', () => trace.flush())
  return { ...ground, kernel: new TracedKernel(ground.kernel, (line) => trace.write(line)) }
}

const untraced = async (
  { backend, machine }: Config,
  over: (kernel: Kernel) => Kernel,
): Promise<KernelBackend> => {
  switch (backend) {
    case 'linux':
      return { kernel: over(linuxKernel()) }
    case 'sim': {
      const sim = simOf(machine)
      return { kernel: sim.kernel, simulator: simulatorOf(sim) }
    }
  }
}

/** The simulator of a machine file, or of the default machine. */
const simOf = (file: string | undefined): Sim => {
  try {
    const spec = file === undefined ? defaultMachine : loadMachineFile(file)
    return createSim(spec)
  } catch (error) {
    // RangeError: a fault that does not fit the machine.
    if (error instanceof MachineFileError || error instanceof RangeError)
      throw new ConfigError(error.message)
    throw error
  }
}
