/** VF tokens of the real kernel: the suite that the simulator passes as well. */

import { beforeAll } from 'vitest'
import { linuxKernel } from '../../../src/backends/linux/kernel.ts'
import { Machine } from '../../contract/machine.ts'
import { vfTokenSuite } from '../../contract/vf-token-suite.ts'
import { physicalFunction } from './physical-function.ts'

beforeAll(() => {
  physicalFunction()
})

vfTokenSuite('[linux]', new Machine('linux', linuxKernel(), async () => {}))
