// Fields are counted from the bytes alone, as the decoder would find them.

import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { countFields } from '../../src/wire/field-count.ts'
import { methodsOf, shapeOf } from '../../src/wire/protos.ts'

const map = Object.fromEntries(methodsOf('addressSpace')).Map
const shape = shapeOf(map?.requestType as NonNullable<typeof map>['requestType'])
const bytesOf = (request: object): Buffer => map?.requestSerialize(request) ?? Buffer.of()
const MANY = 1_000_000

describe('the fields of a message', () => {
  test('are its own and those of the messages in it; its items are the most frequent one', () => {
    const item = fc.record({
      iova: fc.bigInt({ min: 1n, max: 2n ** 64n - 1n }).map(String),
      length: fc.bigInt({ min: 1n, max: 2n ** 64n - 1n }).map(String),
      memoryId: fc.string({ minLength: 1, maxLength: 300 }),
    })
    fc.assert(
      fc.property(fc.array(item, { minLength: 1, maxLength: 50 }), (items) => {
        const bytes = bytesOf({ spaceId: 'vm', items })

        expect(countFields(bytes, shape, MANY)).toEqual({
          items: items.length,
          fields: 1 + items.length * 4,
          isWhole: true,
        })
      }),
    )
  })

  test('that are empty items count as items', () => {
    expect(countFields(Buffer.from('1200'.repeat(1000), 'hex'), shape, MANY)).toEqual({
      items: 1000,
      fields: 1000,
      isWhole: true,
    })
  })

  test('count in the items as well: unknown ones, and the marks of groups', () => {
    const bytes = Buffer.from('1206'.concat('3801', '3b', '3c', '0a00'), 'hex')

    expect(countFields(bytes, shape, MANY)).toEqual({ items: 1, fields: 5, isWhole: true })
  })

  test.each([
    ['a length beyond the end', '0affffffff0f'],
    ['a length beyond the item that it is in', '12030a05610000000000'],
    ['a number that does not end', '0880'],
  ])('end where the message ends: it is not whole with %s', (_what, hex) => {
    expect(countFields(Buffer.from(hex, 'hex'), shape, MANY).isWhole).toBe(false)
  })

  test('are not counted far beyond the most that is wanted', () => {
    const bytes = Buffer.from('1200'.repeat(100_000), 'hex')

    expect(countFields(bytes, shape, 1000).fields).toBeLessThan(1010)
  })

  test('of any bytes have a count', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        const { items, fields } = countFields(bytes, shape, MANY)

        expect(items).toBeLessThanOrEqual(fields)
        expect(fields).toBeLessThanOrEqual(bytes.length)
      }),
    )
  })
})
