/** A machine with devices behind bridges, in groups of their own: buses that can be reset, and one that cannot. */

import {
  defaultMachine,
  EDU_FUNCTION,
  MSI_WINDOW,
  PLAIN_FUNCTION,
  vendorFunction,
} from '../../src/backends/sim/spec/default-machine.ts'
import type { FunctionSpec, MachineSpec } from '../../src/backends/sim/spec/machine-spec.ts'

const bridge = (address: string, group: number, parent?: string): FunctionSpec => ({
  ...{ ...PLAIN_FUNCTION, address, group, classCode: 0x060400, isPcie: true, isBridge: true },
  ...{ nativeDriver: 'pcieport', boundDriver: 'pcieport' },
  ...(parent === undefined ? {} : { parent }),
})

const edu = (address: string, group: number, parent: string): FunctionSpec => ({
  ...{ ...EDU_FUNCTION, address, group, parent, boundDriver: 'vfio-pci' },
})

/** Two functions without a reset of their own on one bus. */
export const FIRST = { name: '0000:02:00.0', group: 21 }
export const SECOND = { name: '0000:02:00.1', group: 22 }
/** The same beside a device that migrates and can be reset. */
export const PLAIN = { name: '0000:03:00.0', group: 24 }
export const MIGRATES = { name: '0000:03:00.1', group: 25 }
/** One whose bus has a bridge, and one behind that. */
export const ABOVE = { name: '0000:04:00.0', group: 27 }
export const NESTED_BRIDGE = '0000:04:01.0'
export const BELOW = { name: '0000:05:00.0', group: 29 }

const functions: readonly FunctionSpec[] = [
  ...defaultMachine.functions,
  bridge('0000:00:09.0', 20),
  edu(FIRST.name, FIRST.group, '0000:00:09.0'),
  edu(SECOND.name, SECOND.group, '0000:00:09.0'),
  bridge('0000:00:0a.0', 23),
  edu(PLAIN.name, PLAIN.group, '0000:00:0a.0'),
  {
    ...{ ...vendorFunction('mlx5-like'), address: MIGRATES.name, group: MIGRATES.group },
    ...{ parent: '0000:00:0a.0', boundDriver: 'vfio-pci' },
  },
  bridge('0000:00:0b.0', 26),
  edu(ABOVE.name, ABOVE.group, '0000:00:0b.0'),
  bridge(NESTED_BRIDGE, 28, '0000:00:0b.0'),
  edu(BELOW.name, BELOW.group, NESTED_BRIDGE),
]

const known = new Set(defaultMachine.groups.map(({ id }) => id))

export const busMachine: Partial<MachineSpec> = {
  functions,
  groups: [
    ...defaultMachine.groups,
    ...functions
      .filter(({ group }) => !known.has(group))
      .map(({ group: id }) => ({ id, reserved: [MSI_WINDOW] })),
  ],
}
