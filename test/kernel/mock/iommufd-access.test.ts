/** Accesses that test requests make: the suite that the simulator's mediated device passes as well. */

import { readFileSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { IOMMU_IOAS_MAP_FIXED_IOVA, IOMMU_IOAS_MAP_READABLE } from '../../../src/abi/iommufd.ts'
import { linuxKernel } from '../../../src/backends/linux/kernel.ts'
import { viewOf } from '../../../src/os/async-call.ts'
import { sys } from '../../../src/os/libc.ts'
import type { Segment } from '../../../src/os/memory.ts'
import { type Access, accessSuite } from '../../contract/iommufd-access-suite.ts'
import { type Iommufd, openIommufd, PAGE } from '../../contract/iommufd-calls.ts'
import { Machine } from '../../contract/machine.ts'
import {
  checkHeld,
  checkMapped,
  copyAccess,
  moveAccess,
  newDevice,
  openAccess,
  pinAccess,
  setMemoryLimit,
  unpinAccess,
} from './test-command.ts'

const BASE = 0x100_0000n
/** Of the mock IOMMU: half a page of the CPU. */
const MOCK_PAGE = 2048n
const PAGES = 8n

const machine = new Machine('linux', linuxKernel(), async () => {})
afterEach(() => machine.cleanUp())

const pinnedPages = (): bigint => {
  const kilobytes = /^VmPin:\s*(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]
  return BigInt(kilobytes ?? 0) / 4n
}

const access = async (iommufd: Iommufd, ioas: number): Promise<Access> => {
  const fd = machine.track(await openAccess(iommufd, ioas))
  const { segment } = await machine.memory(4096)
  return {
    pin: async ({ iova, pages, vaddr, isWritten = false }) => {
      const at = { iova, length: BigInt(pages) * PAGE, uptr: vaddr, isWritten }
      const { answer, id } = await pinAccess(iommufd, fd, at)
      return { answer, unpin: () => unpinAccess(iommufd, fd, id) }
    },
    read: async (iova, length) => {
      const at = { iova, length: BigInt(length), uptr: segment.address, isWritten: false }
      const answer = await copyAccess(iommufd, fd, at)
      return answer === 0 ? Uint8Array.from(segment.bytes.subarray(0, length)) : answer
    },
    write: (iova, bytes) => {
      segment.bytes.set(bytes)
      const at = { iova, length: BigInt(bytes.length), uptr: segment.address, isWritten: true }
      return copyAccess(iommufd, fd, at)
    },
    move: (other) => moveAccess(iommufd, fd, other),
    close: async () => void (await machine.close(fd)),
  }
}

accessSuite('an access of a test request', {
  machine,
  open: () => openIommufd(machine),
  access,
  domain: async (iommufd, ioas) => {
    const { device } = await newDevice(iommufd, ioas, 0)
    return { leave: async () => void (await iommufd.destroy(device)) }
  },
  pinnedPages,
})

describe('the mock domain', () => {
  let iommufd: Iommufd
  let ioas: number
  let memory: Segment

  beforeEach(async () => {
    iommufd = await openIommufd(machine)
    ioas = await iommufd.newIoas()
    memory = (await machine.memory(Number(PAGES * PAGE))).segment
  })

  test('leads to the memory that is mapped, for every part of it (basic, all_aligns)', async () => {
    const { hwpt } = await newDevice(iommufd, ioas, 0)
    for (let start = 0n; start < PAGES * PAGE; start += 2n * MOCK_PAGE)
      for (let end = start + MOCK_PAGE; end <= PAGES * PAGE; end += 3n * MOCK_PAGE) {
        const [iova, vaddr, length] = [BASE + start, memory.address + start, end - start]
        expect(await iommufd.mapAt(ioas, { iova, vaddr, length })).toBe(0)
        expect(await checkMapped(iommufd, hwpt, { iova, length, uptr: vaddr })).toBe(0)
        expect(await iommufd.unmap(ioas, iova, length)).toEqual({ answer: 0, length })
      }
    const whole = { length: PAGES * PAGE, uptr: memory.address, refs: 0 }
    expect(await checkHeld(iommufd, whole)).toBe(0)
  })

  test('pins in small steps what it pins in large ones (memory_limit variants)', async () => {
    expect(await setMemoryLimit(iommufd, 16n)).toBe(0)
    const { hwpt } = await newDevice(iommufd, ioas, 0)
    const at = { iova: BASE, vaddr: memory.address, length: PAGES * PAGE }

    expect(await iommufd.mapAt(ioas, at)).toBe(0)
    const check = { iova: BASE, length: at.length, uptr: memory.address }
    expect(await checkMapped(iommufd, hwpt, check)).toBe(0)
    expect(await iommufd.unmapAll(ioas)).toMatchObject({ answer: 0 })

    expect(await setMemoryLimit(iommufd, 65536n)).toBe(0)
  })

  test('has nothing of memory that is not there: EFAULT (basic)', async () => {
    await newDevice(iommufd, ioas, 0)

    expect(await iommufd.mapAt(ioas, { iova: BASE, vaddr: PAGE, length: PAGE })).toBe('EFAULT')
    expect(await iommufd.unmap(ioas, BASE, PAGE)).toMatchObject({ answer: 'ENOENT' })
  })

  test('keeps the page of a private mapping that is written after it was mapped (ro_unshare)', async () => {
    const [PROT_READ_WRITE, MAP_PRIVATE] = [3, 2]
    const { hwpt } = await newDevice(iommufd, ioas, 0)
    const { fd } = await machine.memory(4096)
    const address = sys.mmapSync(0, 4096, PROT_READ_WRITE, MAP_PRIVATE, fd, 0n)
    const bytes = new Uint8Array(viewOf(address, 4096))
    // Until it is written it is the page of the file.
    expect(bytes[0]).toBe(0)
    const at = { iova: BASE, user_va: BigInt(address), length: PAGE }
    const flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE
    expect((await iommufd.map({ ioas_id: ioas, flags, ...at })).answer).toBe(0)

    bytes[0] = 1

    const check = { iova: BASE, length: PAGE, uptr: at.user_va }
    expect(await checkMapped(iommufd, hwpt, check)).toBe(0)
    expect(await iommufd.unmapAll(ioas)).toEqual({ answer: 0, length: PAGE })
    sys.munmapSync(address, 4096)
  })

  test('an access that pins nothing needs no alignment (access_rw_unaligned)', async () => {
    const fd = machine.track(await openAccess(iommufd, ioas, { pins: false }))
    const iova = BASE + MOCK_PAGE
    const length = PAGES * PAGE - MOCK_PAGE
    expect(await iommufd.mapAt(ioas, { iova, vaddr: memory.address, length })).toBe(0)
    const { segment } = await machine.memory(4096)
    memory.bytes.set([1, 2, 3, 4], 4094)

    const at = { iova: iova + 4094n, length: 4n, uptr: segment.address }
    expect(await copyAccess(iommufd, fd, { ...at, isWritten: false })).toBe(0)
    expect([...segment.bytes.subarray(0, 4)]).toEqual([1, 2, 3, 4])
    segment.bytes.set([5, 6, 7, 8])
    expect(await copyAccess(iommufd, fd, { ...at, isWritten: true })).toBe(0)
    expect([...memory.bytes.subarray(4094, 4098)]).toEqual([5, 6, 7, 8])
    const pin = { iova: BASE + PAGE, length: PAGE, uptr: memory.address + MOCK_PAGE }
    expect(await pinAccess(iommufd, fd, { ...pin, isWritten: false })).toMatchObject({
      answer: 'EOPNOTSUPP',
    })
  })
})
