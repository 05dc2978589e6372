/** VF tokens of the simulator, on a machine with an SR-IOV device. */

import { createSim } from '../../src/backends/sim/sim.ts'
import { defaultMachine, PLAIN_FUNCTION } from '../../src/backends/sim/spec/default-machine.ts'
import type { FunctionSpec } from '../../src/backends/sim/spec/machine-spec.ts'
import { Machine } from './machine.ts'
import { vfTokenSuite } from './vf-token-suite.ts'

const nvme: FunctionSpec = {
  ...PLAIN_FUNCTION,
  address: '0000:09:00.0',
  group: 30,
  vendor: 0x1b36,
  device: 0x10,
  isPcie: true,
  hasReset: true,
  sriov: {
    totalVfs: 2,
    numVfs: 0,
    offset: 1,
    stride: 1,
    firstGroup: 31,
    vf: { ...PLAIN_FUNCTION, device: 0x10, isPcie: true, hasReset: true },
  },
}

const spec = {
  ...defaultMachine,
  functions: [...defaultMachine.functions, nvme],
  groups: [...defaultMachine.groups, ...[30, 31, 32].map((id) => ({ id, reserved: [] }))],
  mdevs: [],
}
const sim = createSim(spec, { time: 'poked' })

vfTokenSuite('[sim]', new Machine('sim', sim.kernel, async () => void sim.step()))
