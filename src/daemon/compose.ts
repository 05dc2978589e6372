/** Which kernel is underneath: the one place that knows there are two. */
import { linuxKernel } from '../backends/linux/kernel.ts'
import type { Kernel } from '../kernel/port.ts'
import type { Config } from './config.ts'

export const kernelOf = async ({ backend, machine }: Config): Promise<Kernel> => {
  switch (backend) {
    case 'linux':
      return linuxKernel()
    case 'sim':
      throw new Error(`no simulator yet ${machine}`)
  }
}
