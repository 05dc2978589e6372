/** Choosing an iova, compared with looking at every address from below. */

import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Mm } from '../../src/backends/sim/core/mm.ts'
import { IoPagetable } from '../../src/backends/sim/iommufd/io-pagetable.ts'
import { UserMemory } from '../../src/backends/sim/iommufd/memory-source.ts'
import { Pages } from '../../src/backends/sim/iommufd/pages.ts'
import { PAGE_SIZE } from '../../src/base/units.ts'
import { overlaps, type Range } from '../../src/rules/range-map.ts'

const RW = 6
const END = 96n * PAGE_SIZE

type Step =
  | { readonly op: 'map'; readonly pages: number; readonly at: number }
  | { readonly op: 'unmap'; readonly nth: number }
  | { readonly op: 'reserve'; readonly page: number; readonly pages: number }
  | { readonly op: 'unreserve' }
  | { readonly op: 'allow'; readonly ranges: readonly (readonly [number, number])[] }

const steps: fc.Arbitrary<readonly Step[]> = fc.array(
  fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        op: fc.constant('map' as const),
        pages: fc.integer({ min: 1, max: 9 }),
        at: fc.integer({ min: 0, max: 15 }),
      }),
    },
    { weight: 3, arbitrary: fc.record({ op: fc.constant('unmap' as const), nth: fc.nat(63) }) },
    {
      weight: 1,
      arbitrary: fc.record({
        op: fc.constant('reserve' as const),
        page: fc.nat(90),
        pages: fc.integer({ min: 1, max: 6 }),
      }),
    },
    { weight: 1, arbitrary: fc.record({ op: fc.constant('unreserve' as const) }) },
    {
      weight: 1,
      arbitrary: fc.record({
        op: fc.constant('allow' as const),
        ranges: fc.array(fc.tuple(fc.nat(80), fc.integer({ min: 1, max: 15 })), { maxLength: 3 }),
      }),
    },
  ),
  { minLength: 10, maxLength: 80 },
)

const pagesFrom = (page: number, pages: number): Range<bigint> => ({
  start: BigInt(page) * PAGE_SIZE,
  last: BigInt(page + pages) * PAGE_SIZE - 1n,
})

/** The lowest address from the second page on where nothing is in the way. */
const lowest = (
  want: { readonly address: bigint; readonly length: bigint },
  taken: readonly Range<bigint>[],
  allowed: readonly Range<bigint>[],
): bigint | undefined => {
  let alignment = PAGE_SIZE
  while (alignment < want.length) alignment *= 2n
  while (want.address % alignment !== 0n) alignment /= 2n
  for (let at = alignment; at < END; at += alignment) {
    const range = { start: at, last: at + want.length - 1n }
    if (taken.some((one) => overlaps(one, range))) continue
    const pages = (at: bigint) => allowed.some(({ start, last }) => start <= at && at <= last)
    let isAllowed = true
    for (let page = range.start; page < range.last; page += PAGE_SIZE) isAllowed &&= pages(page)
    if (allowed.length === 0 || isAllowed) return at
  }
  return undefined
}

test('the iova is the lowest that is free, allowed and aligned, whatever came before', () => {
  fc.assert(
    fc.property(steps, (sequence) => {
      const iopt = new IoPagetable()
      const owner = { mm: new Mm(null), accountMode: 'none' as const }
      const mapped: Range<bigint>[] = []
      let reserved: Range<bigint>[] = []
      let allowed: Range<bigint>[] = []
      const region = {}
      for (const step of sequence) {
        if (step.op === 'map') {
          const address = 0x7f00_0000_0000n + BigInt(step.at) * PAGE_SIZE
          const length = BigInt(step.pages) * PAGE_SIZE
          const pages = new Pages(
            new UserMemory(owner.mm, address),
            BigInt(step.pages),
            owner,
            true,
          )
          const wanted = lowest({ address, length }, [...mapped, ...reserved], allowed)
          const iova = iopt.map([{ pages, startByte: 0n, length }], length, {
            iova: undefined,
            access: RW,
          })
          if (wanted === undefined) {
            // Above what the oracle looks at there is room, unless only some ranges are allowed.
            expect(iova < 0n || iova >= END - length).toBe(true)
            if (iova >= 0n) iopt.unmap({ start: iova, last: iova + length - 1n })
            continue
          }
          expect(iova).toBe(wanted)
          mapped.push({ start: iova, last: iova + length - 1n })
        } else if (step.op === 'unmap') {
          const [gone] = mapped.splice(step.nth % Math.max(mapped.length, 1), 1)
          if (gone) expect(iopt.unmap(gone).answer).toBe(0)
        } else if (step.op === 'reserve') {
          const range = pagesFrom(step.page, step.pages)
          const isInUse = [...mapped, ...allowed].some((one) => overlaps(one, range))
          expect(iopt.reserve(range, region) < 0).toBe(isInUse)
          if (!isInUse) reserved.push(range)
        } else if (step.op === 'unreserve') {
          iopt.unreserve(region)
          reserved = []
        } else {
          const ranges = step.ranges.map(([page, pages]) => pagesFrom(page, pages))
          const isInUse = ranges.some((range) => reserved.some((one) => overlaps(one, range)))
          expect(iopt.setAllowed(ranges) < 0).toBe(isInUse)
          if (!isInUse) allowed = ranges
        }
      }
    }),
    { numRuns: 400 },
  )
})
