/**
 * `iommu` of the machine file, the machine's and a group's: either a model, which decides what its
 * hardware decides, or page sizes and an aperture of one's own.
 */
import { z } from 'zod'
import { MSI_WINDOW } from '../spec/default-machine.ts'
import {
  amdReserved,
  amdV1,
  intelReserved,
  intelVtd,
  SMMU_GRANULES,
  smmuReserved,
  smmuV3,
  VTD_ADDRESS_BITS,
} from '../spec/iommu-models.ts'
import type { IommuSpec, ReservedRegion } from '../spec/machine-spec.ts'
import { range, u64 } from './numbers.ts'

/** An IOMMU, and what its groups have reserved where they do not say so themselves. */
export interface IommuTable {
  readonly spec: IommuSpec
  readonly reserved: readonly ReservedRegion[]
}

const keys = z.strictObject({
  model: z.enum(['vt-d', 'amd', 'smmuv3']).optional(),
  page_sizes: u64.refine((bits) => bits !== 0n, 'one bit per page size is needed').optional(),
  aperture: range.optional(),
  address_bits: z.int().optional(),
  granule: z.literal([...SMMU_GRANULES]).optional(),
  dirty_tracking: z.boolean().optional(),
  nesting: z.boolean().optional(),
  cache_coherent: z.boolean().optional(),
  interrupt_remapping: z.boolean().default(true),
})
type Keys = z.infer<typeof keys>
type Kind = NonNullable<Keys['model']> | 'none'

/** What each kind may say, besides what all may. */
const OWN_KEYS: Record<Kind, readonly (keyof Keys)[]> = {
  none: ['page_sizes', 'aperture'],
  'vt-d': ['address_bits', 'dirty_tracking', 'nesting'],
  amd: ['dirty_tracking'],
  smmuv3: ['address_bits', 'granule', 'dirty_tracking'],
}
const SPECIAL: readonly (keyof Keys)[] = [...new Set(Object.values(OWN_KEYS).flat())]

/** An SMMUv3 with a granule of 64 KiB may reach 52 bits, others 48 (Arm IHI 0070). */
const smmuBits = (granule: number): { readonly min: number; readonly max: number } => ({
  min: 32,
  max: granule === 0x1_0000 ? 52 : 48,
})

interface Mistake {
  readonly key: keyof Keys
  readonly message: string
}

const mistakesOf = (given: Keys): Mistake[] => {
  const { model = 'none', address_bits: bits, granule = 0x1000 } = given
  const mistakes: Mistake[] = SPECIAL.filter(
    (key) => given[key] !== undefined && !OWN_KEYS[model].includes(key),
  ).map((key) => ({ key, message: notOf(model, key) }))
  if (model === 'none')
    for (const key of OWN_KEYS.none)
      if (given[key] === undefined) mistakes.push({ key, message: 'it is needed without a model' })
  if (bits === undefined) return mistakes
  const { min, max } = smmuBits(granule)
  if (model === 'vt-d' && !VTD_ADDRESS_BITS.some((known) => known === bits))
    mistakes.push({ key: 'address_bits', message: 'VT-d has 39, 48 or 57' })
  if (model === 'smmuv3' && (bits < min || bits > max))
    mistakes.push({ key: 'address_bits', message: `with this granule it has ${min} to ${max}` })
  return mistakes
}

const notOf = (model: Kind, key: keyof Keys): string => {
  if (model === 'none') return 'only a model has it: say which'
  const isDecided = OWN_KEYS.none.includes(key) || (model === 'amd' && key === 'address_bits')
  return isDecided ? `the model "${model}" decides it` : `the model "${model}" has none`
}

const modelOf = (given: Keys): IommuTable => {
  const tracksDirty = given.dirty_tracking ?? true
  switch (given.model) {
    case 'vt-d': {
      const bits = VTD_ADDRESS_BITS.find((known) => known === given.address_bits) ?? 39
      const spec = intelVtd(bits, { tracksDirty, canNest: given.nesting ?? true })
      return { spec, reserved: intelReserved }
    }
    case 'amd':
      return { spec: tracking(amdV1, tracksDirty), reserved: amdReserved }
    case 'smmuv3': {
      const { granule = 0x1000, address_bits: addressBits = 48 } = given
      const spec = smmuV3({ granule, addressBits })
      return { spec: tracking(spec, tracksDirty), reserved: smmuReserved }
    }
    case undefined: {
      const { page_sizes: pageSizes = 0n, aperture = { start: 0n, last: 0n } } = given
      return { spec: { pageSizes, aperture, isCacheCoherent: true }, reserved: [MSI_WINDOW] }
    }
  }
}

const tracking = (spec: IommuSpec, isOn: boolean): IommuSpec => {
  const { dirtyTracking, ...rest } = spec.model ?? {}
  return isOn || dirtyTracking === undefined ? spec : { ...spec, model: rest }
}

export const iommuTable = keys
  .superRefine((given, context) => {
    for (const { key, message } of mistakesOf(given))
      context.addIssue({ code: 'custom', path: [key], message })
  })
  .transform((given): IommuTable => {
    const { spec, reserved } = modelOf(given)
    const { cache_coherent: isCacheCoherent = spec.isCacheCoherent } = given
    const model = given.interrupt_remapping
      ? spec.model
      : { ...spec.model, isolatesInterrupts: false }
    return { spec: { ...spec, isCacheCoherent, ...(model && { model }) }, reserved }
  })
