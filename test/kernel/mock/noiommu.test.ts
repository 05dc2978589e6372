/** No-IOMMU groups of the real kernel: the suite that the simulator passes as well. */

import { linuxKernel } from '../../../src/backends/linux/kernel.ts'
import { Machine } from '../../contract/machine.ts'
import { noIommuSuite } from '../../contract/noiommu-suite.ts'

noIommuSuite('[linux]', new Machine('linux', linuxKernel(), async () => {}))
