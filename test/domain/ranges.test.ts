import { describe, expect, test } from 'vitest'
import { iova } from '../../src/base/units.ts'
import { requireInside, requireRange } from '../../src/domain/space/ranges.ts'

const refusing = (reason: string, field: string) =>
  expect.objectContaining({ reason, details: expect.objectContaining({ field }) })

describe('requireRange', () => {
  test('answers both ends, inside', () => {
    expect(requireRange('map', { iova: 0x1000n, length: 0x2000n }, 4096n)).toEqual({
      start: 0x1000n,
      last: 0x2fffn,
    })
  })

  test.each([
    ['a length of zero', { iova: 0n, length: 0n }, 'length'],
    ['a length that is not aligned', { iova: 0n, length: 100n }, 'length'],
    ['an iova that is not aligned', { iova: 1n, length: 4096n }, 'iova'],
    ['a range past 2^64', { iova: 0xffff_ffff_ffff_f000n, length: 0x2000n }, 'iova'],
    [
      'a range that ends exactly at 2^64',
      { iova: 0xffff_ffff_ffff_f000n, length: 0x1000n },
      'iova',
    ],
  ])('refuses %s, and names the field', (_, piece, field) => {
    expect(() => requireRange('map', piece, 4096n)).toThrow(refusing('BAD_RANGE', field))
  })

  test('takes the last page but one of the address space', () => {
    const { last } = requireRange('map', { iova: 0xffff_ffff_ffff_e000n, length: 0x1000n }, 4096n)

    expect(last).toBe(0xffff_ffff_ffff_efffn)
  })
})

describe('requireInside', () => {
  const apertures = [
    { start: iova(0n), last: iova(0xfedf_ffffn) },
    { start: iova(0xfef0_0000n), last: iova(0x7f_ffff_ffffn) },
  ]
  const inside = (start: bigint, last: bigint) => () =>
    requireInside('map', { start: iova(start), last: iova(last) }, apertures)

  test('takes a range inside one aperture, up to both of its ends', () => {
    expect(inside(0n, 0xfedf_ffffn)).not.toThrow()
    expect(inside(0xfef0_0000n, 0x7f_ffff_ffffn)).not.toThrow()
  })

  test('refuses a range that bridges two, or leaves them, and lists them', () => {
    expect(inside(0xfedf_f000n, 0xfef0_0fffn)).toThrow(
      '0x0..0xfedfffff and 0xfef00000..0x7fffffffff',
    )
    expect(inside(0x7f_ffff_f000n, 0x80_0000_0fffn)).toThrow(
      refusing('IOVA_OUT_OF_APERTURE', 'iova'),
    )
  })

  test('takes anything where nothing limits it', () => {
    expect(() =>
      requireInside('map', { start: iova(0n), last: iova(1n << 60n) }, undefined),
    ).not.toThrow()
  })
})
