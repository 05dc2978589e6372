/** The struct codec: what a compiler for x86-64 or arm64 does with the same fields. */

import { describe, expect, test } from 'vitest'
import { struct } from '../../src/abi/layout.ts'

const mixed = struct('mixed', { a: 'u8', b: 'u16', c: 'u8', d: 'u32', e: 'u8', f: 'u64', g: 's32' })

const hexOf = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')

describe('size and offsets', () => {
  test('every field is aligned to its own size', () => {
    expect(mixed.offsets).toEqual({ a: 0, b: 2, c: 4, d: 8, e: 12, f: 16, g: 24 })
  })

  test('the struct ends at a multiple of its widest field', () => {
    expect(mixed.size).toBe(32)
    expect(struct('five_words', { a: 'u32', b: 'u32', c: 'u32', d: 'u32', e: 's32' }).size).toBe(20)
    expect(struct('u64_first', { a: 'u64', b: 'u8' }).size).toBe(16)
    expect(struct('bytes', { a: 'u8', b: 'u8', c: 'u8' }).size).toBe(3)
  })

  test('a given size replaces the computed one', () => {
    expect(struct('packed', { a: 'u64', b: 'u32' }, { size: 12 }).size).toBe(12)
  })
})

describe('encode', () => {
  test('writes little-endian and leaves zero what is not named', () => {
    const bytes = mixed.encode({ b: 0x0102, d: 0x03040506, f: 0x0708090a0b0c0d0en })

    expect(hexOf(bytes)).toBe(
      ['0000', '0201', '00000000', '06050403', '00000000', '0e0d0c0b0a090807', '00'.repeat(8)].join(
        '',
      ),
    )
  })

  test('adds a tail of zero bytes', () => {
    expect(struct('head', { a: 'u32' }).encode({ a: 0xffff_ffff }, 3)).toEqual(
      Uint8Array.of(255, 255, 255, 255, 0, 0, 0),
    )
  })

  test('refuses a field that the struct does not have', () => {
    const values = { argsz: 8 } as object

    expect(() => mixed.encode(values)).toThrow(new TypeError('mixed has no field argsz'))
  })
})

describe('decode', () => {
  test('gives back what encode took, at the ends of every type', () => {
    const low = { a: 0, b: 0, c: 0, d: 0, e: 0, f: 0n, g: -0x8000_0000 }
    const high = {
      a: 0xff,
      b: 0xffff,
      c: 0xff,
      d: 0xffff_ffff,
      e: 0xff,
      f: 0xffff_ffff_ffff_ffffn,
      g: 0x7fff_ffff,
    }

    expect(mixed.decode(mixed.encode(low))).toEqual(low)
    expect(mixed.decode(mixed.encode(high))).toEqual(high)
  })

  test('reads s32 -1, the fd that is none, as -1', () => {
    expect(mixed.decode(mixed.encode({ g: -1 })).g).toBe(-1)
  })

  test('reads at a base, and at an address within a larger ArrayBuffer', () => {
    const pair = struct('pair', { start: 'u64', last: 'u64' })
    const within = new Uint8Array(64).subarray(8)

    pair.write(within, { start: 1n, last: 2n }, 12)

    expect(pair.decode(within, 12)).toEqual({ start: 1n, last: 2n })
    expect(within.buffer.byteLength).toBe(64)
    expect(new Uint8Array(within.buffer)[20]).toBe(1)
  })

  test('throws a RangeError for a buffer that is one byte short', () => {
    const bytes = mixed.encode({})

    expect(() => mixed.decode(bytes.subarray(0, 27))).toThrow(RangeError)
    expect(() => mixed.decode(bytes, 5)).toThrow(RangeError)
    expect(() => mixed.decode(bytes, -1)).toThrow(RangeError)
  })
})

describe('write', () => {
  test('leaves the fields that are not named as they are', () => {
    const bytes = mixed.encode({ a: 1, d: 2, g: -3 })

    mixed.write(bytes, { d: 7 })

    expect(mixed.decode(bytes)).toMatchObject({ a: 1, d: 7, g: -3 })
  })

  test('throws a RangeError where the field does not fit', () => {
    expect(() => mixed.write(new Uint8Array(16), { f: 1n })).toThrow(RangeError)
  })
})
