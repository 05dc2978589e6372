/** No-IOMMU groups of the simulator. */

import { createSim } from '../../src/backends/sim/sim.ts'
import { defaultMachine } from '../../src/backends/sim/spec/default-machine.ts'
import { Machine } from './machine.ts'
import { noIommuSuite } from './noiommu-suite.ts'

const groups = defaultMachine.groups.map((group) =>
  group.id === 3 ? { id: 3, reserved: [], isNoIommu: true } : group,
)
const sim = createSim({ ...defaultMachine, groups, mdevs: [] }, { time: 'poked' })

noIommuSuite('[sim]', new Machine('sim', sim.kernel, async () => void sim.step()))
