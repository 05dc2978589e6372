/**
 * The virtual functions of an SR-IOV device (PCI Express, chapter 9): where each is, and what it is.
 * A routing id is the bus, and below it the device and function, of 8 bits each.
 */

import type { FunctionSpec } from './machine-spec.ts'

/** All that a function can have, by number; none where it has no such capability. */
export const virtualFunctions = (physical: FunctionSpec): FunctionSpec[] => {
  const { sriov, parent } = physical
  if (!sriov) return []
  // A driver has to find it first.
  const { boundDriver: _, ...vf } = sriov.vf
  return Array.from({ length: sriov.totalVfs }, (_, n) => ({
    ...vf,
    vendor: physical.vendor,
    address: addressAt(physical.address, sriov.offset + n * sriov.stride),
    group: sriov.firstGroup + n,
    ...(parent !== undefined && { parent }),
  }))
}

const addressAt = (physical: string, offset: number): string => {
  const [domain = '', bus = '', slot = '', fn = ''] = physical.split(/[:.]/)
  const hex = (text: string): number => Number.parseInt(text, 16)
  const routing = (hex(bus) << 8) + (hex(slot) << 3) + hex(fn) + offset
  const digits = (value: number): string => value.toString(16).padStart(2, '0')
  return `${domain}:${digits(routing >> 8)}:${digits((routing >> 3) & 0x1f)}.${routing & 7}`
}
