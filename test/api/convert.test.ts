// Between proto and domain values: what does not convert is BAD_ARGUMENT and names its field.

import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { accessOf, accessToProto, enumOf, itemStatus, u64 } from '../../src/api/services/convert.ts'
import {
  itemsOrAll,
  mapItemOf,
  mappingToProto,
  pieceOrAll,
} from '../../src/api/services/space-convert.ts'
import { VfiodError } from '../../src/base/error.ts'
import { ACCESSES, iova, U64_MAX } from '../../src/base/units.ts'

const badArgument = (field: string) =>
  expect.objectContaining({ reason: 'BAD_ARGUMENT', details: { field } })

describe('a number of 64 bits', () => {
  test('is the same on both sides, from 0 to 2^64-1', () => {
    fc.assert(
      fc.property(fc.bigInt(0n, U64_MAX), (value) => {
        expect(u64('iova', String(value))).toBe(value)
      }),
    )
    expect(u64('iova', '18446744073709551615')).toBe(U64_MAX)
  })

  test.each(['', '-1', '18446744073709551616', '1e3', '0x10', ' 1', '99999999999999999999999'])(
    'is not "%s"',
    (text) => {
      expect(() => u64('iova', text)).toThrow(badArgument('iova'))
    },
  )
})

describe('an enum', () => {
  test.each(ACCESSES)('has %s on both sides', (access) => {
    expect(accessOf('access', accessToProto(access) as string)).toBe(access)
  })

  test.each(['ACCESS_UNSPECIFIED', 99, 'toString', '__proto__', 'constructor'])(
    'is not %s',
    (name) => {
      expect(() => accessOf('items[0].access', name)).toThrow(badArgument('items[0].access'))
    },
  )

  test('that is refused names what it may be', () => {
    expect(() => enumOf('mode', { A: 1, B: 2 }, 'C')).toThrow('one of A, B is needed')
  })
})

describe('the source of a mapping', () => {
  const place = { iova: '4096', length: '8192', offset: '4096', access: 'ACCESS_READ' } as const
  const region = { device: '0000:00:05.0', region: 1 }

  test('is memory, or a region of a device', () => {
    const piece = { iova: 0x1000n, length: 0x2000n, offset: 0x1000n, access: 'read' }

    expect(mapItemOf({ ...place, memoryId: 'ram' }, 0)).toEqual({ ...piece, memoryId: 'ram' })
    expect(mapItemOf({ ...place, region }, 0)).toEqual({ ...piece, ...region })
  })

  test('is named by every item', () => {
    expect(() => mapItemOf(place, 2)).toThrow(badArgument('items[2].source'))
  })

  test('is listed as it was named, and the vaddr of a region is valid', () => {
    const range = { start: iova(0x1000n), last: iova(0x2fffn), offset: 0x1000n }
    const mapping = { ...range, access: 'read', ...region } as const

    expect(mappingToProto(mapping)).toEqual({ ...place, region, vaddrValid: true })
  })
})

describe('everything, or a part', () => {
  test('is one or the other for batches', () => {
    const items = [1, 2]

    expect(itemsOrAll({ all: true, items: [] }, String)).toBe('all')
    expect(itemsOrAll({ all: false, items }, (n) => String(n))).toEqual(['1', '2'])
    expect(() => itemsOrAll({ all: true, items }, String)).toThrow(badArgument('items'))
  })

  test('is one or the other for ranges', () => {
    expect(pieceOrAll({ all: true, iova: '0', length: '0' })).toBe('all')
    expect(pieceOrAll({ all: false, iova: '1', length: '2' })).toEqual({ iova: 1n, length: 2n })
    expect(() => pieceOrAll({ all: true, iova: '1', length: '0' })).toThrow(badArgument('all'))
  })
})

describe('the status of an item', () => {
  test('is 0 for one that succeeded', () => {
    expect(itemStatus(undefined)).toEqual({ code: 0 })
  })

  test('is status, reason and message of one that did not', () => {
    const failure = new VfiodError('IOVA_IN_USE', 'Cannot map iova 0x1000: it is mapped')

    expect(itemStatus(failure)).toEqual({
      code: 6,
      reason: 'IOVA_IN_USE',
      message: 'Cannot map iova 0x1000: it is mapped',
    })
  })
})
