/** Numbers as people type them, and bytes as people read them. */

import { describe, expect, test } from 'vitest'
import { hexDump } from '../../src/cli/hex-dump.ts'
import {
  bytesText,
  parseDuration,
  parseNumber,
  parseSmall,
  parseWidth,
} from '../../src/cli/numbers.ts'

describe('a number on the command line', () => {
  test.each([
    ['0', 0n],
    ['4096', 4096n],
    ['0x1000', 0x1000n],
    ['0XfeE0', 0xfee0n],
    ['4K', 4096n],
    ['2M', 2n << 20n],
    ['2MiB', 2n << 20n],
    ['1g', 1n << 30n],
    ['1T', 1n << 40n],
    ['0x10K', 0x4000n],
    ['0x1B', 0x1bn],
    ['18446744073709551615', 2n ** 64n - 1n],
  ])('%s is read as %s', (text, value) => {
    expect(parseNumber(text)).toBe(value)
  })

  test.each(['', '-1', '1.5', '4 K', '12z', '0x', 'K', '1KK'])('%j is refused', (text) => {
    expect(() => parseNumber(text)).toThrow(/number is needed/)
  })

  test('has at most 64 bits, and an index 32', () => {
    expect(() => parseNumber('18446744073709551616')).toThrow(/64 bits/)
    expect(() => parseNumber('16777216T')).toThrow(/64 bits/)
    expect(parseSmall('0xffffffff')).toBe(0xffff_ffff)
    expect(() => parseSmall('4G')).toThrow(/32 bits/)
  })

  test('is a register width only as 1, 2, 4 or 8', () => {
    expect(['1', '2', '4', '8'].map(parseWidth)).toEqual([1, 2, 4, 8])
    expect(() => parseWidth('3')).toThrow(/One of 1, 2, 4, 8/)
  })
})

describe('a duration on the command line', () => {
  test.each([
    ['0', 0],
    ['10', 10_000],
    ['10s', 10_000],
    ['1.5s', 1500],
    ['500ms', 500],
    ['2m', 120_000],
    ['1h', 3_600_000],
  ])('%s is read as %d milliseconds', (text, ms) => {
    expect(parseDuration(text)).toBe(ms)
  })

  test.each(['', '-1s', '10 s', 's', '10d', '1e3'])('%j is refused', (text) => {
    expect(() => parseDuration(text)).toThrow(/duration is needed/)
  })

  test('is at most what a timer can wait', () => {
    expect(() => parseDuration('600h')).toThrow(/longer than 24 days/)
  })
})

describe('a count of bytes', () => {
  test.each([
    ['0', '0 B'],
    ['1023', '1023 B'],
    ['1024', '1 KiB'],
    ['1536', '1.5 KiB'],
    ['2097152', '2 MiB'],
    ['18446744073709551615', '16 EiB'],
  ])('%s reads as %s', (count, text) => {
    expect(bytesText(count)).toBe(text)
  })
})

describe('a hex dump', () => {
  test('shows offset, bytes and letters, and aligns a short last line', () => {
    const data = Buffer.from('The quick brown fox\n')

    expect(hexDump(data, { offset: 0x40n })).toBe(
      [
        '0040  54 68 65 20 71 75 69 63 6b 20 62 72 6f 77 6e 20  The quick brown ',
        '0050  66 6f 78 0a                                      fox.',
      ].join('\n'),
    )
  })

  test('shows little-endian words of the width', () => {
    const data = Buffer.from('0123456789abcdef', 'hex')

    expect(hexDump(data, { offset: 0n, width: 4 })).toMatch(/^0000 {2}67452301 efcdab89 /)
    expect(hexDump(data, { offset: 0n, width: 8 })).toMatch(/^0000 {2}efcdab8967452301 /)
  })

  test('shows equal lines once, and always the last one', () => {
    const lines = hexDump(Buffer.alloc(80), { offset: 0n }).split('\n')

    expect(lines.map((line) => line.slice(0, 4))).toEqual(['0000', '*', '0040'])
  })

  test('has offsets wide enough for the last byte', () => {
    expect(hexDump(Buffer.alloc(1), { offset: 0x12_3456n })).toMatch(/^123456 {2}00 /)
  })
})
