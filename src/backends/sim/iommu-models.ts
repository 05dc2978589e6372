/**
 * IOMMUs to put into a machine, as their manuals and drivers have them: page sizes, address width,
 * what they keep for interrupts, and whether they track writes.
 */

import { U64_MAX } from '../../base/units.ts'
import type { IommuSpec, ReservedRegion } from './machine.ts'

/** Where x86 takes writes for message signalled interrupts. */
const MSI: ReservedRegion = { start: 0xfee0_0000n, last: 0xfeef_ffffn, kind: 'msi' }

/** An AMD v1 table: every power of two from 4 KiB but 512 GiB, and 64 bits. */
export const amdV1: IommuSpec = {
  pageSizes: 0xf_fff7_ffff_f000n,
  aperture: { start: 0n, last: U64_MAX },
  isCacheCoherent: true,
  model: { dirtyTracking: 'on-demand' },
}

/** What HyperTransport takes from every device of an AMD machine, besides interrupts. */
export const amdReserved: readonly ReservedRegion[] = [
  MSI,
  { start: 0xfd_0000_0000n, last: 0xff_ffff_ffffn, kind: 'reserved' },
]

/** An Intel VT-d second stage with 2 MiB and 1 GiB pages, in scalable mode with dirty bits. */
export const intelVtd = (addressBits: 39 | 48 | 57): IommuSpec => ({
  pageSizes: 0x4020_1000n,
  aperture: { start: 0n, last: (1n << BigInt(addressBits)) - 1n },
  isCacheCoherent: true,
  model: {
    dirtyTracking: 'on-demand',
    canNest: true,
    vtd: { capability: 0xd2_008c_2226_0286n, extendedCapability: SCALABLE, errata: 0 },
  },
})

/** Coherent, interrupt remapping, nesting (bit 26), scalable mode (43), dirty bits (45). */
const SCALABLE = 0xf0_0f4bn | (1n << 26n) | (1n << 43n) | (1n << 45n)

export const intelReserved: readonly ReservedRegion[] = [MSI]

/** An Arm SMMUv3 first stage with a granule of 4 KiB: dirty state is always kept once asked for. */
export const smmuV3: IommuSpec = {
  pageSizes: 0x4020_1000n,
  aperture: { start: 0n, last: (1n << 48n) - 1n },
  isCacheCoherent: true,
  model: { dirtyTracking: 'always', takesNestingType: true },
}

/** The window that software chose for interrupts. */
export const smmuReserved: readonly ReservedRegion[] = [
  { start: 0x800_0000n, last: 0x80f_ffffn, kind: 'sw-msi' },
]
