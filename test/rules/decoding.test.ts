/** Which writes to the configuration space of a PCI function end the decoding of its memory. */

import { expect, test } from 'vitest'
import { pciCapabilities } from '../../src/rules/causes/pci-config.ts'
import { decodingEnd } from '../../src/rules/decoding.ts'

const PM = { id: 0x01, at: 0x50 }
const EXPRESS = { id: 0x10, at: 0x60 }
const AF = { id: 0x13, at: 0xa0 }

/** A function with power management, PCI Express and Advanced Features, with and without FLR. */
function config({ hasFlr = true } = {}): Uint8Array {
  const bytes = new Uint8Array(256)
  bytes[0x06] = 0x10
  bytes[0x34] = PM.at
  const list = [PM, EXPRESS, AF]
  for (const [n, { id, at }] of list.entries()) {
    bytes[at] = id
    bytes[at + 1] = list[n + 1]?.at ?? 0
  }
  if (hasFlr) {
    bytes[EXPRESS.at + 7] = 0x10
    bytes[AF.at + 3] = 3
  }
  return bytes
}

const write = (offset: number, ...data: number[]) => ({ offset, data: Uint8Array.from(data) })

test('the capabilities are found in their order', () => {
  expect([...pciCapabilities(config())]).toEqual([PM, EXPRESS, AF])
})

test('a list that leads back to itself ends', () => {
  const bytes = config()
  bytes[AF.at + 1] = PM.at

  expect([...pciCapabilities(bytes)].length).toBeLessThanOrEqual(48)
})

test.each([
  ['COMMAND without memory decoding', write(4, 0x04, 0), 'COMMAND'],
  ['its low byte alone', write(4, 0x05), 'COMMAND'],
  ['a wide write that begins before it', write(0, 0, 0, 0, 0, 0, 0, 0, 0), 'COMMAND'],
  ['PMCSR of D3hot', write(PM.at + 4, 3, 0), 'power state'],
  ['PMCSR of D1', write(PM.at + 4, 1), 'power state'],
  ['FLR of PCI Express', write(EXPRESS.at + 8, 0, 0x80), 'resets it'],
  ['its high byte alone', write(EXPRESS.at + 9, 0x80), 'resets it'],
  ['FLR of Advanced Features', write(AF.at + 4, 1), 'resets it'],
])('%s ends it', (_what, written, why) => {
  expect(decodingEnd(config(), written)).toContain(why)
})

test.each([
  ['COMMAND with memory decoding', write(4, 0x06, 0)],
  ['the high byte of COMMAND', write(5, 0)],
  ['PMCSR of D0', write(PM.at + 4, 0, 0)],
  ['the other bytes of PMCSR', write(PM.at + 5, 0xff)],
  ['Device Control without FLR', write(EXPRESS.at + 8, 0xff, 0x7f)],
  ['a BAR', write(0x10, 0, 0, 0, 0)],
  ['what is behind all of them', write(0xf0, 0xff, 0xff)],
])('%s does not', (_what, written) => {
  expect(decodingEnd(config(), written)).toBeUndefined()
})

test('a function without FLR ignores the bits that ask for it', () => {
  const plain = config({ hasFlr: false })

  expect(decodingEnd(plain, write(EXPRESS.at + 9, 0x80))).toBeUndefined()
  expect(decodingEnd(plain, write(AF.at + 4, 1))).toBeUndefined()
})

test('where the configuration space cannot be read, a write to a capability may be anything', () => {
  expect(decodingEnd(undefined, write(PM.at + 4, 0))).toContain('may reset it')
  expect(decodingEnd(undefined, write(0x10, 0))).toBeUndefined()
  expect(decodingEnd(undefined, write(4, 0))).toContain('COMMAND')
})
