/** The oracle is a plain list that is searched from end to end. */

import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Range, RangeMap } from '../../src/rules/range-map.ts'

type Plain = Range<bigint> & { value: number }

/** `expect` takes its time, and this is asked a hundred thousand times. */
const same = (found: unknown, wanted: unknown): void => {
  if (!isDeepStrictEqual(found, wanted)) expect(found).toEqual(wanted)
}

const TOP = 2n ** 64n - 1n
const meets = (a: Range<bigint>, b: Range<bigint>): boolean =>
  !(a.last < b.start) && !(b.last < a.start)
const isIn = (inner: Range<bigint>, outer: Range<bigint>): boolean =>
  inner.start >= outer.start && inner.last <= outer.last

const rangeArbitrary = fc
  .tuple(fc.bigInt(0n, 200n), fc.bigInt(0n, 12n))
  .map(([start, extra]) => ({ start, last: start + extra }))

const commandArbitrary = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ act: fc.constant('insert' as const), range: rangeArbitrary }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ act: fc.constant('remove' as const), range: rangeArbitrary }),
  },
  { weight: 2, arbitrary: fc.record({ act: fc.constant('ask' as const), range: rangeArbitrary }) },
)

describe('RangeMap', () => {
  test('answers as a list searched from end to end does', () => {
    fc.assert(
      fc.property(fc.array(commandArbitrary, { maxLength: 200 }), (commands) => {
        const map = new RangeMap<number, bigint>()
        let list: Plain[] = []
        for (const [value, { act, range }] of commands.entries()) {
          if (act === 'insert') {
            const isFree = !list.some((entry) => meets(entry, range))
            same(map.insert(range, value), isFree)
            if (isFree)
              list = [...list, { ...range, value }].sort((a, b) => Number(a.start - b.start))
          } else if (act === 'remove') {
            same(
              map.remove(range.start),
              list.find(({ start }) => start === range.start),
            )
            list = list.filter(({ start }) => start !== range.start)
          } else {
            const probe = { start: range.start, last: range.start }
            same(
              map.find(range.start),
              list.find((entry) => meets(entry, probe)),
            )
            same(
              map.overlaps(range),
              list.some((entry) => meets(entry, range)),
            )
            same(
              [...map.overlapping(range)],
              list.filter((entry) => meets(entry, range)),
            )
            same(
              [...map.contained(range)],
              list.filter((entry) => isIn(entry, range)),
            )
          }
          same([...map], list)
          same(map.size, list.length)
        }
      }),
    )
  })

  test('keeps a range that ends at the top of the address space', () => {
    const map = new RangeMap<string, bigint>()

    expect(map.insert({ start: TOP - 0xfffn, last: TOP }, 'last page')).toBe(true)

    expect(map.find(TOP)?.value).toBe('last page')
    expect(map.insert({ start: 0n, last: TOP }, 'everything')).toBe(false)
    expect(map.insert({ start: TOP, last: TOP }, 'last byte')).toBe(false)
  })

  test('refuses a range that ends before it starts: RangeError', () => {
    expect(() => new RangeMap<number, bigint>().insert({ start: 2n, last: 1n }, 0)).toThrow(
      RangeError,
    )
  })

  test('is empty after clear', () => {
    const map = new RangeMap<number, bigint>()
    map.insert({ start: 0n, last: 1n }, 0)

    map.clear()

    expect(map.size).toBe(0)
    expect([...map]).toEqual([])
  })

  test('finds and removes among a million entries, inserted in no order', () => {
    const map = new RangeMap<number, bigint>()
    const count = 1_000_003
    for (let n = 0, at = 0; n < count; n++, at = (at + 600_011) % count) {
      const start = BigInt(at) * 0x2000n
      map.insert({ start, last: start + 0xfffn }, at)
    }
    expect(map.size).toBe(count)

    let wrong = 0
    for (let at = 0; at < count; at += 97) {
      const start = BigInt(at) * 0x2000n
      if (map.find(start + 0x7ffn)?.value !== at) wrong += 1
      if (map.find(start + 0x1000n) !== undefined) wrong += 1
      if (map.remove(start)?.value !== at || map.find(start) !== undefined) wrong += 1
    }
    expect(wrong).toBe(0)
  })
})
