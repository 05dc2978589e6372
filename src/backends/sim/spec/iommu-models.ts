/**
 * IOMMUs to put into a machine, as their manuals and drivers have them: page sizes, address width,
 * what they keep for interrupts, and whether they track writes.
 */

import { U64_MAX } from '../../../base/units.ts'
import type { IommuSpec, ReservedRegion } from './machine-spec.ts'

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

export const VTD_ADDRESS_BITS = [39, 48, 57] as const
export type VtdAddressBits = (typeof VTD_ADDRESS_BITS)[number]

/** An Intel VT-d second stage with 2 MiB and 1 GiB pages, in scalable mode. */
export const intelVtd = (
  addressBits: VtdAddressBits,
  { tracksDirty = true, canNest = true }: VtdOptions = {},
): IommuSpec => ({
  pageSizes: 0x4020_1000n,
  aperture: { start: 0n, last: (1n << BigInt(addressBits)) - 1n },
  isCacheCoherent: true,
  model: {
    ...(tracksDirty && { dirtyTracking: 'on-demand' }),
    canNest,
    vtd: {
      capability: VTD_CAPABILITY | SAGAW[addressBits] | (BigInt(addressBits - 1) << 16n),
      extendedCapability:
        VTD_SCALABLE | (canNest ? VTD_NESTING : 0n) | (tracksDirty ? VTD_DIRTY_BITS : 0n),
      errata: 0,
    },
  },
})

export interface VtdOptions {
  readonly tracksDirty?: boolean
  readonly canNest?: boolean
}

/** The capability register without the fields that say how wide addresses are. */
const VTD_CAPABILITY = 0xd2_008c_2200_0086n

/** Bits 8 to 12 of it: the table depths, each with those below. */
const SAGAW: Record<VtdAddressBits, bigint> = { 39: 0x200n, 48: 0x600n, 57: 0xe00n }

/** The extended capability register: coherent, interrupt remapping, scalable mode. */
const VTD_SCALABLE = 0xf0_0f4bn | (1n << 43n)
const VTD_NESTING = 1n << 26n
const VTD_DIRTY_BITS = 1n << 45n

export const intelReserved: readonly ReservedRegion[] = [MSI]

/** What an SMMUv3 finds in its tables: pages of the granule, and blocks of the levels above. */
const SMMU_PAGE_SIZES = {
  4096: 0x4020_1000n,
  16384: 0x200_4000n,
  65536: 0x2001_0000n,
} as const
export type SmmuGranule = keyof typeof SMMU_PAGE_SIZES
export const SMMU_GRANULES = [0x1000, 0x4000, 0x1_0000] as const satisfies SmmuGranule[]

/** An Arm SMMUv3 first stage: dirty state is always kept once asked for. */
export const smmuV3 = ({
  granule,
  addressBits,
}: {
  readonly granule: SmmuGranule
  readonly addressBits: number
}): IommuSpec => ({
  pageSizes: SMMU_PAGE_SIZES[granule],
  aperture: { start: 0n, last: (1n << BigInt(addressBits)) - 1n },
  isCacheCoherent: true,
  model: { dirtyTracking: 'always', takesNestingType: true },
})

/** The window that software chose for interrupts. */
export const smmuReserved: readonly ReservedRegion[] = [
  { start: 0x800_0000n, last: 0x80f_ffffn, kind: 'sw-msi' },
]
