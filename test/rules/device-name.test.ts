import { describe, expect, test } from 'vitest'
import { canonicalEntry, canonicalName } from '../../src/rules/device-name.ts'

const UUID = '83b8f4f2-509f-382f-3c1e-e6bfe0fa1001'

describe('the canonical name of a device', () => {
  test.each([
    ['0000:3b:00.0', '0000:3b:00.0'],
    ['0000:3B:00.0', '0000:3b:00.0'],
    ['00000000:3B:00.0', '0000:3b:00.0'],
    ['3b:00.0', '0000:3b:00.0'],
    ['3B:1f.7', '0000:3b:1f.7'],
    ['10000:01:00.0', '10000:01:00.0'],
    [UUID.toUpperCase(), UUID],
    ['MSFT0201:00', 'MSFT0201:00'],
    ['3b:20.0', '3b:20.0'],
    ['3b:00.8', '3b:00.8'],
    ['', ''],
  ])('of "%s" is "%s"', (name, canonical) => {
    expect(canonicalName(name)).toBe(canonical)
  })
})

describe('an entry of an allow-list', () => {
  test.each([
    ['*', '*'],
    ['10DE:1DB4', '10de:1db4'],
    ['3B:00.0', '0000:3b:00.0'],
    ['mtty-2', 'mtty-2'],
    ['i915-GVTg_V5_4', 'i915-GVTg_V5_4'],
    [UUID.toUpperCase(), UUID],
  ])('"%s" is kept as "%s"', (entry, canonical) => {
    expect(canonicalEntry(entry)).toBe(canonical)
  })

  test.each(['nonsense', '10de', '10de:1db', '0000:3b:00', '', '3b:00.9'])(
    '"%s" can match no device',
    (entry) => {
      expect(canonicalEntry(entry)).toBeUndefined()
    },
  )
})
