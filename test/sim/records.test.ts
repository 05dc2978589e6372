/** The stream of a vendor-like device: a flipped bit is noticed, in whichever record it is. */

import { expect, test } from 'vitest'
import { StateImage } from '../../src/backends/sim/devices/profiles/image.ts'
import {
  RECORD_SIZE,
  ReceivedState,
  writePageRecord,
  writeRegistersRecord,
} from '../../src/backends/sim/devices/profiles/records.ts'
import { ERRNO } from '../../src/base/errno.ts'

const imageOf = () => new StateImage(8192n, { seed: 77, make: 0x15b3 })

const stream = (): Uint8Array => {
  const image = imageOf()
  image.change(1)
  const bytes = new Uint8Array(3 * RECORD_SIZE)
  const record = (n: number) => bytes.subarray(n * RECORD_SIZE, (n + 1) * RECORD_SIZE)
  for (let page = 0; page < image.pages; page++)
    writePageRecord(record(page), image.id(page), image.pages)
  const registers = Uint8Array.from({ length: 0x100 }, (_, n) => n)
  writeRegistersRecord(record(2), registers, image)
  return bytes
}

test('a whole stream is taken, and its registers come out', () => {
  const received = new ReceivedState(imageOf())

  expect(received.take(stream())).toBe(0)

  expect([...(received.load() ?? []).slice(0, 4)]).toEqual([0, 1, 2, 3])
})

test('a flipped bit in any byte of any record is refused', () => {
  const bytes = stream()
  const accepted: number[] = []
  for (let at = 0; at < bytes.length; at++) {
    const former = bytes[at] ?? 0
    bytes[at] = former ^ (1 << (at % 8))
    if (new ReceivedState(imageOf()).take(bytes) === 0) accepted.push(at)
    bytes[at] = former
  }

  expect(accepted).toEqual([])
})

test('registers that are wrong are EINVAL at the write that completes them', () => {
  const bytes = stream()
  bytes[bytes.length - 1] = 1
  const received = new ReceivedState(imageOf())

  expect(received.take(bytes.subarray(0, -1))).toBe(0)
  expect(received.take(bytes.subarray(-1))).toBe(-ERRNO.EINVAL)
})
