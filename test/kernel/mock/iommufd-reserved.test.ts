/** Reserved ranges at will, which only the test request of the kernel makes: selftests by name. */

import { afterEach, beforeEach, expect, test } from 'vitest'
import { linuxKernel } from '../../../src/backends/linux/kernel.ts'
import { type Iommufd, openIommufd, PAGE, U64_MAX } from '../../contract/iommufd-calls.ts'
import { Machine } from '../../contract/machine.ts'
import { addReserved, newDevice } from './test-command.ts'

const machine = new Machine('linux', linuxKernel(), async () => {})
let iommufd: Iommufd
let ioas: number

beforeEach(async () => {
  iommufd = await openIommufd(machine)
  ioas = await iommufd.newIoas()
})
afterEach(() => machine.cleanUp())

test('a reserved page splits the ranges: EMSGSIZE without room (iova_ranges)', async () => {
  expect(await addReserved(iommufd, ioas, { start: PAGE, length: PAGE })).toBe(0)

  const { answer, count, ranges } = await iommufd.ranges(ioas)
  expect({ answer, count, ranges }).toEqual({
    answer: 0,
    count: 2,
    ranges: [
      { start: 0n, last: PAGE - 1n },
      { start: 2n * PAGE, last: U64_MAX },
    ],
  })
  expect((await iommufd.ranges(ioas, 1)).answer).toBe('EMSGSIZE')
})

test('what is reserved is neither chosen nor taken: EINVAL (area_auto_iova)', async () => {
  for (let page = 1n; page < 16n; page += 2n)
    await addReserved(iommufd, ioas, { start: page * PAGE, length: PAGE })
  const { segment } = await machine.memory(8 * 4096)
  const map = { ioas_id: ioas, user_va: segment.address }
  const iovas: bigint[] = []
  for (const pages of [1n, 1n, 2n])
    iovas.push((await iommufd.map({ ...map, length: pages * PAGE })).iova)

  expect(iovas).toEqual([2n * PAGE, 4n * PAGE, 16n * PAGE])
  const at = { iova: 7n * PAGE, vaddr: segment.address, length: PAGE }
  expect(await iommufd.mapAt(ioas, at)).toBe('EINVAL')
})

test('allowed and reserved ranges exclude each other: EADDRINUSE (area_allowed)', async () => {
  const range = { start: PAGE, length: 4n * PAGE }
  const allowed = { start: 2n * PAGE, last: 3n * PAGE }
  expect(await iommufd.allow(ioas, [allowed])).toBe(0)
  expect(await addReserved(iommufd, ioas, range)).toBe('EADDRINUSE')

  expect(await iommufd.allow(ioas, [])).toBe(0)
  expect(await addReserved(iommufd, ioas, range)).toBe(0)
  expect(await iommufd.allow(ioas, [allowed])).toBe('EADDRINUSE')
})

test('a page table takes multiples of its page size only: EINVAL (ioas_iova_alloc)', async () => {
  await newDevice(iommufd, ioas, 0)
  const { segment } = await machine.memory(4096)
  const auto = async (length: bigint) =>
    (await iommufd.map({ ioas_id: ioas, user_va: segment.address, length })).answer

  expect([await auto(1n), await auto(2047n), await auto(2048n)]).toEqual(['EINVAL', 'EINVAL', 0])
})
