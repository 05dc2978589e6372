/**
 * The machine that both sides have: on the real kernel what the test machine offers, on the
 * simulator the same as data. Every function that vfio-pci is to drive is bound before.
 */

import { defaultMachine } from '../../src/backends/sim/spec/default-machine.ts'
import type {
  FunctionSpec,
  MachineSpec,
  MdevSpec,
} from '../../src/backends/sim/spec/machine-spec.ts'
import type { Place } from './operation.ts'

export const PCI: Partial<Record<Place, string>> = {
  edu0: '0000:00:04.0',
  edu1: '0000:00:05.0',
  card0: '0000:01:00.0',
  card1: '0000:01:00.1',
  chipset: '0000:00:1f.0',
  testdev: '0000:00:06.0',
}

export const MDEVS: Partial<Record<Place, { readonly uuid: string; readonly type: string }>> = {
  mtty0: { uuid: '83b8f4f2-509f-382f-3c1e-e6bfe0fa1001', type: 'mtty-2' },
  mtty1: { uuid: '83b8f4f2-509f-382f-3c1e-e6bfe0fa1002', type: 'mtty-2' },
  solo: { uuid: '83b8f4f2-509f-382f-3c1e-e6bfe0fa1003', type: 'mtty-1' },
}

/** The test device has no driver at all, so that its group has no node. */
const BOUND: readonly Place[] = ['edu0', 'edu1', 'card0', 'card1', 'chipset']
export const boundAddresses = BOUND.flatMap((place) => PCI[place] ?? [])

const bound = (fn: FunctionSpec): FunctionSpec =>
  boundAddresses.includes(fn.address) ? { ...fn, boundDriver: 'vfio-pci' } : fn

export const conformanceMachine = (memlockBytes: bigint | null): MachineSpec => ({
  ...defaultMachine,
  memlockBytes,
  functions: defaultMachine.functions.map(bound),
  mdevs: Object.values(MDEVS).map((mdev): MdevSpec => ({ ...mdev, parent: 'mtty' })),
})
