/** Finds out why the kernel does not map a range in an address space. */

import { type IovaRange, lengthOf, rangeText } from '../../base/units.ts'
import type { Judge } from '../../kernel/diagnosis.ts'
import { memoryFacts } from '../../kernel/memory-facts.ts'
import { memlockOf } from '../../kernel/own-limits.ts'
import type { Kernel } from '../../kernel/port.ts'
import type { CauseId } from '../../rules/causes/catalog.ts'
import { ruledOut, type Verdict } from '../../rules/causes/cause.ts'
import { judgeMemlock, judgeMemory } from '../../rules/causes/judge-memory.ts'
import type { IommuBackend, Limits } from '../iommu/backend.ts'

/** Where a mapping was to be. */
interface WantedPlace {
  readonly range: IovaRange
  readonly vaddr: bigint
  /** Of the address space. */
  readonly alignment: bigint
}

/** What a mapping of memory was to be. */
export interface WantedMapping extends WantedPlace {
  readonly memory: { readonly id: string; readonly fd: number; readonly offset: bigint }
}

/** For IommuBackend.map. */
export const judgeMap =
  (kernel: Kernel, iommu: IommuBackend, wanted: WantedMapping): Judge =>
  async ({ errno }) => {
    const length = lengthOf(wanted.range)
    if (errno === 'ENOMEM') return judgeMemlock(await memlockOf(kernel), length)
    const limits = await iommu.limits()
    const verdicts = limits === undefined ? [] : judgeLimits(limits, wanted)
    if (errno !== 'EFAULT') return verdicts
    return [...verdicts, ...judgeMemory(memoryFacts({ ...wanted.memory, length, isMapped: true }))]
  }

/** For RegionMaps.map: a device that does not decode is refused as memory that is not there. */
export const judgeMapRegion =
  (iommu: IommuBackend, wanted: WantedPlace, judgeRegion: Judge): Judge =>
  async (refused) => {
    const limits = await iommu.limits()
    const verdicts = limits === undefined ? [] : judgeLimits(limits, wanted)
    return refused.errno === 'EFAULT' ? [...verdicts, ...(await judgeRegion(refused))] : verdicts
  }

/** The most pages that a bitmap of dirty pages has bits for. */
const TRACKED_PAGES = 2n ** 31n

function judgeLimits(
  { apertures }: Limits,
  { range, vaddr, alignment }: WantedPlace,
): Verdict<CauseId>[] {
  const verdicts: Verdict<CauseId>[] = []
  if (vaddr % alignment === 0n) verdicts.push(...ruledOut<CauseId>('vaddr-misaligned'))
  if (lengthOf(range) / alignment < TRACKED_PAGES)
    verdicts.push(...ruledOut<CauseId>('too-large-to-track'))
  const isInside =
    apertures?.some(({ start, last }) => start <= range.start && range.last <= last) ?? true
  if (isInside) return [...verdicts, ...ruledOut<CauseId>('iova-not-allowed', 'iova-beyond-width')]
  const ranges = apertures?.map(rangeText).join(' and ')
  const found = `iova ${rangeText(range)} is not inside one of the ranges that the IOMMU takes by now, ${ranges}`
  return [...verdicts, { cause: 'iova-not-allowed', isSo: true, found }]
}
