/** Which kernel is underneath: the one place that knows there are two. */

import type { Simulator } from '../api/simulator.ts'
import { linuxKernel } from '../backends/linux/kernel.ts'
import { defaultMachine } from '../backends/sim/default-machine.ts'
import type { MachineSpec } from '../backends/sim/machine.ts'
import { createSim, type Sim } from '../backends/sim/sim.ts'
import type { Kernel } from '../kernel/port.ts'
import type { Config } from './config.ts'
import { ConfigError } from './config-error.ts'
import { loadMachineFile } from './machine-file.ts'
import { simulatorOf } from './simulator.ts'

export interface Ground {
  readonly kernel: Kernel
  /** Where the kernel is a simulated one. */
  readonly simulator?: Simulator
}

export const groundOf = async ({ backend, machine }: Config): Promise<Ground> => {
  switch (backend) {
    case 'linux':
      return { kernel: await linuxKernel() }
    case 'sim': {
      const spec = machine === undefined ? defaultMachine : loadMachineFile(machine)
      const sim = simOf(spec)
      return { kernel: sim.kernel, simulator: simulatorOf(sim) }
    }
  }
}

const simOf = (spec: MachineSpec): Sim => {
  try {
    return createSim(spec, { time: spec.time ?? 'auto' })
  } catch (error) {
    // A fault that makes no sense for this machine.
    if (error instanceof RangeError) throw new ConfigError(error.message)
    throw error
  }
}
