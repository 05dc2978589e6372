/** Which kernel is underneath: the one place that knows there are two. */
import { linuxKernel } from '../backends/linux/kernel.ts'
import { defaultMachine } from '../backends/sim/default-machine.ts'
import { createSim } from '../backends/sim/sim.ts'
import type { Kernel } from '../kernel/port.ts'
import type { Config } from './config.ts'
import { loadMachineFile } from './machine-file.ts'

export const kernelOf = async ({ backend, machine }: Config): Promise<Kernel> => {
  switch (backend) {
    case 'linux':
      return linuxKernel()
    case 'sim': {
      const spec = machine === undefined ? defaultMachine : loadMachineFile(machine)
      return createSim(spec, { time: 'auto' }).kernel
    }
  }
}
