import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type IovaRange, iova } from '../../src/base/units.ts'
import { DirtyPages, type PageBitmap } from '../../src/rules/dirty-pages.ts'

const PAGE = 4096n
/** Far enough up that numbers of pages need more than 32 bits, and next to the edge of a chunk. */
const BASE = 0x7_ffff_f000n

/** The pages from `first` to before `end`, counted from BASE. */
const pages = (first: number, end: number): IovaRange => ({
  start: iova((BASE + BigInt(first)) * PAGE),
  last: iova((BASE + BigInt(end)) * PAGE - 1n),
})
const numberOf = (address: bigint): number => Number(address / PAGE - BASE)

/** What the bitmaps of a set say, page by page. */
const fromBitmaps = (set: DirtyPages): number[] =>
  [...set.bitmaps()].flatMap(({ iova: start, bytes }) =>
    [...bytes].flatMap((byte, at) =>
      [0, 1, 2, 3, 4, 5, 6, 7]
        .filter((bit) => (byte >> bit) & 1)
        .map((bit) => numberOf(start) + at * 8 + bit),
    ),
  )

const fromRanges = (set: DirtyPages): number[] =>
  [...set.ranges()].flatMap(({ start, last }) => {
    const first = numberOf(start)
    return Array.from({ length: numberOf(last + 1n) - first }, (_, n) => first + n)
  })

/** A bitmap from `first` on with exactly these pages. */
const bitmapOf = (first: number, wanted: readonly number[]): PageBitmap => {
  const bytes = new Uint8Array(9000)
  for (const page of wanted) {
    const bit = page - first
    if (bit >= 0) bytes[bit >> 3] = (bytes[bit >> 3] as number) | (1 << (bit & 7))
  }
  return { iova: pages(first, first + 1).start, bytes }
}

const span = fc
  .tuple(fc.nat(40_000), fc.integer({ min: 1, max: 9000 }))
  .map(([first, length]) => ({ first, end: first + length }))
const few = fc.array(fc.nat(49_000), { maxLength: 30 })

describe('a set of pages', () => {
  test('has what was marked and added and not taken, as a plain set has', () => {
    const step = fc.oneof(
      fc.record({ do: fc.constant('mark' as const), span }),
      fc.record({ do: fc.constant('take' as const), span }),
      fc.record({ do: fc.constant('add' as const), span, few, before: fc.nat(200) }),
      fc.record({ do: fc.constant('merge' as const), span }),
    )
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
        const set = new DirtyPages(PAGE)
        const oracle = new Set<number>()
        for (const each of steps) {
          const { first, end } = each.span
          const inside = (page: number) => page >= first && page < end
          if (each.do === 'mark') {
            set.mark(pages(first, end))
            for (let page = first; page < end; page++) oracle.add(page)
          } else if (each.do === 'add') {
            const from = Math.max(first - each.before, 0)
            set.add(
              pages(first, end),
              bitmapOf(
                from,
                each.few.filter((page) => page < from + 60_000),
              ),
            )
            for (const page of each.few.filter(inside)) oracle.add(page)
          } else if (each.do === 'take') {
            const taken = set.take(pages(first, end))
            expect(fromBitmaps(taken)).toEqual([...oracle].filter(inside).sort((a, b) => a - b))
            for (const page of [...oracle].filter(inside)) oracle.delete(page)
          } else {
            const other = new DirtyPages(PAGE)
            other.mark(pages(first, first + 3))
            set.merge(other)
            for (let page = first; page < first + 3; page++) oracle.add(page)
          }
        }
        const expected = [...oracle].sort((a, b) => a - b)
        expect(fromBitmaps(set)).toEqual(expected)
        expect(fromRanges(set)).toEqual(expected)
        expect(set.count).toBe(expected.length)
      }),
      { numRuns: 150 },
    )
  })

  test('has the pages of a long bitmap, however it lies', () => {
    const given = [0, 31, 32, 4096, 32_767, 32_768, 40_000, 69_999]
    for (const first of [-0x1000 - 0x8000, 0, 1, 5, 32]) {
      const set = new DirtyPages(PAGE)
      const wanted = given.map((page) => first + page)
      set.add(pages(first, first + 70_000), bitmapOf(first, wanted))
      expect(fromRanges(set)).toEqual(wanted)
      expect(fromBitmaps(set)).toEqual(wanted)
    }
  })

  test('keeps its own pages when those of another are merged in twice', () => {
    const set = new DirtyPages(PAGE)
    const other = new DirtyPages(PAGE)
    other.mark(pages(0, 4))
    set.merge(other)
    set.take(pages(0, 2))

    expect(fromRanges(other)).toEqual([0, 1, 2, 3])
    expect(fromRanges(set)).toEqual([2, 3])
  })

  test('joins neighbours across bytes and chunks, and only neighbours', () => {
    const set = new DirtyPages(PAGE)
    set.mark(pages(0, 40_000))
    set.mark(pages(40_001, 40_002))

    expect([...set.ranges()]).toEqual([pages(0, 40_000), pages(40_001, 40_002)])
  })

  test('can be taken as a whole, whatever its addresses', () => {
    const set = new DirtyPages(PAGE)
    set.mark({ start: iova(0n), last: iova(PAGE - 1n) })
    set.mark({ start: iova(0xffff_ffff_ffff_e000n), last: iova(0xffff_ffff_ffff_ffffn) })

    const all = set.take({ start: iova(0n), last: iova(0xffff_ffff_ffff_ffffn) })

    expect([set.count, all.count]).toEqual([0, 3])
    expect([...all.ranges()].at(-1)?.last).toBe(0xffff_ffff_ffff_ffffn)
  })

  test('gives bitmaps of 4 KiB at most, without zeros at either end', () => {
    const set = new DirtyPages(PAGE)
    set.mark(pages(0, 300_000))
    const lengths = [...set.bitmaps()].map(({ bytes }) => bytes.length)
    const counts = [...set.bitmaps()].map(({ count }) => count)

    expect(Math.max(...lengths)).toBe(4096)
    expect(lengths.reduce((sum, length) => sum + length, 0)).toBe(300_000 / 8)
    expect(counts).toEqual(lengths.map((length) => length * 8))
  })
})
