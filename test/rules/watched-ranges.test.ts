import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type IovaRange, iova } from '../../src/base/units.ts'
import {
  covered,
  slicesOf,
  uncovered,
  WINDOW_PAGES,
  widened,
  windowsOf,
} from '../../src/rules/watched-ranges.ts'

const PAGE = 4096n

/** So many pages from a page on. */
const at = (page: number | bigint, count: number | bigint): IovaRange => ({
  start: iova(BigInt(page) * PAGE),
  last: iova((BigInt(page) + BigInt(count)) * PAGE - 1n),
})

/** Ascending ranges of pages with gaps. */
const ranges = fc
  .array(fc.tuple(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: 300 })), {
    maxLength: 40,
  })
  .map((steps) => {
    let next = 0
    return steps.map(([gap, count]) => {
      const range = at(next + gap, count)
      next += gap + count
      return range
    })
  })

const inside = (address: bigint, all: readonly IovaRange[]) =>
  all.some(({ start, last }) => start <= address && address <= last)

describe('windows over mappings', () => {
  test('have every mapping once, in order, each on a word of the bitmap and none too long', () => {
    fc.assert(
      fc.property(ranges, (mappings) => {
        const windows = [...windowsOf(mappings, PAGE)]

        expect(windows.flat()).toEqual(mappings)
        for (const window of windows) {
          const offsets = window.map(({ start }) => (start - window[0].start) / PAGE)
          expect(offsets.filter((offset) => offset % 64n !== 0n)).toEqual([])
        }
      }),
    )
  })

  test('go on over gaps as long as the next mapping is on a word', () => {
    const mappings = [at(0, 3), at(64, 10), at(128, 1), at(130, 1), at(194, 1)]

    expect([...windowsOf(mappings, PAGE)].map((window) => window.length)).toEqual([3, 2])
  })

  test('end where a bitmap would be too long, unless one mapping is', () => {
    const long = at(0, WINDOW_PAGES * 3n)
    const mappings = [long, at(WINDOW_PAGES * 3n, 64), at(WINDOW_PAGES * 4n, 64)]

    expect([...windowsOf(mappings, PAGE)].map((window) => window.length)).toEqual([1, 1, 1])
    expect([...windowsOf(mappings.slice(1), PAGE)].map((window) => window.length)).toEqual([1, 1])
    expect([...windowsOf([at(0, 64), at(64, WINDOW_PAGES - 64n)], PAGE)]).toHaveLength(1)
  })
})

describe('ranges to watch', () => {
  test('are widened to whole units, joined where they meet, and have all pages inside', () => {
    fc.assert(
      fc.property(ranges, fc.integer({ min: 0, max: 6 }), (given, shift) => {
        const unit = PAGE << BigInt(shift)
        const wide = widened([...given].reverse(), unit)

        for (const { start, last } of wide)
          expect([start % unit, (last + 1n) % unit]).toEqual([0n, 0n])
        for (const [n, { start }] of wide.entries())
          if (n > 0) expect(start > (wide[n - 1]?.last ?? 0n) + 1n).toBe(true)
        for (const { start, last } of given)
          expect([inside(start, wide), inside(last, wide)]).toEqual([true, true])
      }),
    )
  })

  test('are covered by as many as there may be, and by no more than is needed', () => {
    fc.assert(
      fc.property(ranges, fc.integer({ min: 1, max: 8 }), (given, max) => {
        const found = covered(given, max)

        expect(found).toHaveLength(Math.min(given.length, max))
        for (const { start, last } of given)
          expect(found.some((range) => range.start <= start && last <= range.last)).toBe(true)
        const starts = new Set(given.map(({ start }) => start))
        const ends = new Set(given.map(({ last }) => last))
        for (const { start, last } of found)
          expect([starts.has(start), ends.has(last)]).toEqual([true, true])
      }),
    )
  })

  test('give up the smallest gaps first', () => {
    expect(covered([at(0, 1), at(2, 1), at(100, 1), at(110, 1)], 2)).toEqual([
      at(0, 3),
      at(100, 11),
    ])
  })
})

describe('slices of a range', () => {
  test('are the range, cut at multiples of the step', () => {
    expect([...slicesOf(at(3, 10), 4n * PAGE)]).toEqual([at(3, 1), at(4, 4), at(8, 4), at(12, 1)])
    expect([...slicesOf(at(5, 2), 16n * PAGE)]).toEqual([at(5, 2)])
  })

  test('end at the top of the address space', () => {
    const top = { start: iova(0xffff_ffff_ffff_e000n), last: iova(0xffff_ffff_ffff_ffffn) }

    expect([...slicesOf(top, PAGE)]).toHaveLength(2)
  })
})

test('what others leave uncovered of a range is every address of it that is in none of them', () => {
  fc.assert(
    fc.property(ranges, fc.nat(2000), fc.integer({ min: 1, max: 4000 }), (others, first, count) => {
      const range = at(first, count)
      const left = [...uncovered(range, others)]

      for (let page = first; page < first + count; page++) {
        const address = BigInt(page) * PAGE
        if (inside(address, left) === inside(address, others)) expect.unreachable(`page ${page}`)
      }
      for (const { start, last } of left)
        expect(start >= range.start && last <= range.last && start <= last).toBe(true)
    }),
    { numRuns: 60 },
  )
})
