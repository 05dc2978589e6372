/**
 * What the kernel itself does to memory through an ioas, for devices without hardware: pinning,
 * reading and writing. The same suite runs over a mediated device of the simulator that pins what
 * it is told to, and over the accesses that test requests of the kernel make. The names in brackets
 * are those of tools/testing/selftests/iommu/iommufd.c.
 */

import { beforeEach, describe, expect, test } from 'vitest'
import type { Segment } from '../../src/os/memory.ts'
import type { Said } from './answers.ts'
import { FIXED, type Iommufd, PAGE, RW, U64_MAX } from './iommufd-calls.ts'
import type { Machine } from './machine.ts'

/** Pages that an access has pinned. */
export interface Pinned {
  readonly answer: Said
  /** ENOENT once they were unmapped. */
  unpin(): Promise<Said>
}

/** A driver that does the DMA of a device, attached to an ioas. */
export interface Access {
  /** `vaddr` is where the pages must turn out to be. */
  pin(at: {
    readonly iova: bigint
    readonly pages: number
    readonly vaddr: bigint
    readonly isWritten?: boolean
  }): Promise<Pinned>
  read(iova: bigint, length: number): Promise<Said | Uint8Array>
  write(iova: bigint, bytes: Uint8Array): Promise<Said>
  /** To another ioas. */
  move(ioas: number): Promise<Said>
  close(): Promise<void>
}

export interface AccessBench {
  readonly machine: Machine
  open(): Promise<Iommufd>
  access(iommufd: Iommufd, ioas: number): Promise<Access>
  /** A device with a page table of the ioas; `leave` takes both away. */
  domain(iommufd: Iommufd, ioas: number): Promise<{ leave(): Promise<void> }>
  /** VmPin of this process, in pages. */
  pinnedPages(): bigint
}

const BASE = 0x100_0000n
const PAGES = 8
/** Below what a process may map. */
const NOWHERE = 0x1000n
/** Around the ends of pages, where a part of one is copied. */
const OFFSETS = [0, 1, 7, 8, 2047, 2048, 4088, 4095, 4096, 4097, 8191]
const LENGTHS = [1, 2, 7, 8, 9, 2048, 4095, 4096]

export const accessSuite = (name: string, bench: AccessBench): void => {
  describe.each([
    ['without a page table', false],
    ['with a page table', true],
  ])(`${name}, %s`, (_what, hasDomain) => {
    const { machine } = bench
    let iommufd: Iommufd
    let ioas: number
    let access: Access
    let memory: Segment
    let leave: () => Promise<void>

    const map = (pages: number, at = BASE, from = 0n): Promise<Said> =>
      iommufd.mapAt(ioas, {
        iova: at,
        vaddr: memory.address + from,
        length: BigInt(pages) * PAGE,
      })
    const pin = (page: number, pages: number, isWritten = false): Promise<Pinned> => {
      const offset = BigInt(page) * PAGE
      return access.pin({ iova: BASE + offset, pages, vaddr: memory.address + offset, isWritten })
    }
    const fill = (seed: number): void => {
      for (let at = 0; at < memory.length; at++) memory.bytes[at] = (at * 13 + seed) & 0xff
    }

    beforeEach(async () => {
      iommufd = await bench.open()
      ioas = await iommufd.newIoas()
      access = await bench.access(iommufd, ioas)
      const joined = hasDomain ? await bench.domain(iommufd, ioas) : undefined
      leave = async () => joined?.leave()
      memory = (await machine.memory(PAGES * Number(PAGE))).segment
    })

    test('pins any number of pages, to read and to write, more than once (access_pin)', async () => {
      for (let pages = 1; pages <= PAGES; pages++) {
        expect(await map(pages)).toBe(0)
        const first = await pin(0, pages)
        const second = await pin(0, pages, true)
        const last = await pin(pages - 1, 1)

        expect([first.answer, second.answer, last.answer]).toEqual([0, 0, 0])
        for (const pinned of [second, first, last]) expect(await pinned.unpin()).toBe(0)
        expect(await iommufd.unmap(ioas, BASE, BigInt(pages) * PAGE)).toMatchObject({ answer: 0 })
      }
    })

    test('holds each page once, with or without other holders', async () => {
      const before = bench.pinnedPages()
      await map(4)
      const filled = bench.pinnedPages() - before

      const first = await pin(1, 2)
      const second = await pin(2, 2)
      expect(filled).toBe(hasDomain ? 4n : 0n)
      expect(bench.pinnedPages() - before).toBe(hasDomain ? 4n : 3n)

      await first.unpin()
      expect(bench.pinnedPages() - before).toBe(hasDomain ? 4n : 2n)
      await second.unpin()
      expect(bench.pinnedPages() - before).toBe(filled)
    })

    test('lets go of what is unmapped (access_pin_unmap)', async () => {
      const before = bench.pinnedPages()
      await map(4)
      const [low, high] = [await pin(0, 2), await pin(3, 1)]

      expect(await iommufd.unmap(ioas, BASE, 4n * PAGE)).toEqual({ answer: 0, length: 4n * PAGE })

      expect([await low.unpin(), await high.unpin()]).toEqual(['ENOENT', 'ENOENT'])
      expect(bench.pinnedPages()).toBe(before)
      expect(await map(4)).toBe(0)
      expect((await pin(0, 4)).answer).toBe(0)
    })

    test('keeps what lies beside what is unmapped', async () => {
      await map(2)
      await map(2, BASE + 2n * PAGE, 2n * PAGE)
      const [low, high] = [await pin(0, 1), await pin(2, 2)]

      await iommufd.unmap(ioas, BASE, 2n * PAGE)

      expect([await low.unpin(), await high.unpin()]).toEqual(['ENOENT', 0])
    })

    test('keeps its pages when the page table goes (access_domain_destory)', async () => {
      const before = bench.pinnedPages()
      await map(PAGES)
      const pinned = await pin(1, 1)
      fill(3)

      await leave()

      expect(bench.pinnedPages() - before).toBe(1n)
      expect(await access.read(BASE + PAGE, 16)).toEqual(memory.bytes.slice(4096, 4112))
      expect(await pinned.unpin()).toBe(0)
      expect(bench.pinnedPages()).toBe(before)
    })

    test('pins across areas, and none over a hole: ENOENT', async () => {
      await map(1)
      await map(1, BASE + PAGE, PAGE)
      await map(1, BASE + 3n * PAGE, 3n * PAGE)
      const before = bench.pinnedPages()

      const across = await pin(0, 2)
      expect(across.answer).toBe(0)
      expect(await across.unpin()).toBe(0)
      expect((await pin(0, 3)).answer).toBe('ENOENT')
      expect((await pin(1, 3)).answer).toBe('ENOENT')
      expect((await pin(2, 1)).answer).toBe('ENOENT')
      expect(bench.pinnedPages()).toBe(before)
    })

    // A page table would have refused to map it.
    test.skipIf(hasDomain)('pins nothing where a part is not there: EFAULT', async () => {
      const before = bench.pinnedPages()
      await map(1)
      await iommufd.mapAt(ioas, { iova: BASE + PAGE, vaddr: NOWHERE, length: PAGE })

      expect((await pin(0, 2)).answer).toBe('EFAULT')

      expect(bench.pinnedPages()).toBe(before)
      expect((await pin(0, 1)).answer).toBe(0)
    })

    test('does not pin to write what may only be read: EPERM', async () => {
      const flags = FIXED & ~(RW & 2)
      const map_ = { flags, ioas_id: ioas, iova: BASE, user_va: memory.address, length: PAGE }
      expect((await iommufd.map(map_)).answer).toBe(0)

      expect((await pin(0, 1, true)).answer).toBe('EPERM')
      expect(await access.write(BASE, Uint8Array.of(1))).toBe('EPERM')
      expect((await pin(0, 1)).answer).toBe(0)
    })

    test('reads and writes at any place and length (access_rw)', async () => {
      // Two areas, so that some of it crosses from one to the other.
      await map(1)
      await map(PAGES - 1, BASE + PAGE, PAGE)
      for (const offset of OFFSETS)
        for (const length of LENGTHS) {
          fill(offset + length)
          const wanted = memory.bytes.slice(offset, offset + length)
          expect(await access.read(BASE + BigInt(offset), length)).toEqual(wanted)

          const bytes = wanted.map((byte) => byte ^ 0xff)
          const expected = memory.bytes.slice()
          expected.set(bytes, offset)
          expect(await access.write(BASE + BigInt(offset), bytes)).toBe(0)
          expect(Buffer.compare(memory.bytes, expected)).toBe(0)
        }
    })

    test('does not read or write over the end: ENOENT; nor what wraps: EOVERFLOW', async () => {
      await map(1)

      expect(await access.read(BASE + PAGE, 1)).toBe('ENOENT')
      expect(await access.read(BASE + PAGE - 1n, 2)).toBe('ENOENT')
      expect(await access.write(BASE + PAGE - 1n, Uint8Array.of(1, 2))).toBe('ENOENT')
      expect(await access.read(U64_MAX, 2)).toBe('EOVERFLOW')
      expect(await access.read(BASE, 0)).toBe('EINVAL')
    })

    test('leaves what it has when it moves to another ioas, where copies are (user_copy)', async () => {
      const before = bench.pinnedPages()
      await map(4)
      fill(9)
      const other = await iommufd.newIoas()
      const pinned = await pin(0, 4)
      const copy = { dst_ioas_id: other, src_ioas_id: ioas, length: 4n * PAGE, src_iova: BASE }
      expect(await iommufd.copy({ ...copy, flags: FIXED, dst_iova: BASE })).toMatchObject({
        answer: 0,
      })

      expect(await access.move(other)).toBe(0)
      expect(await pinned.unpin()).toBe('ENOENT')
      expect((await pin(1, 2)).answer).toBe(0)
      await iommufd.unmapAll(ioas)

      expect(await access.read(BASE + 5n, 300)).toEqual(memory.bytes.slice(5, 305))
      await access.close()
      expect(bench.pinnedPages()).toBe(before)
      expect(await iommufd.destroy(other)).toBe(0)
    })

    test('gives all pages back, wherever areas begin and end (all_aligns, all_aligns_copy)', async () => {
      const before = bench.pinnedPages()
      const other = await iommufd.newIoas()
      for (let first = 0; first < PAGES; first++)
        for (let end = first + 1; end <= PAGES; end++) {
          const [pages, offset] = [end - first, BigInt(first) * PAGE]
          expect(await map(pages, BASE + offset, offset)).toBe(0)
          fill(first * PAGES + end)
          const length = BigInt(pages) * PAGE
          const copy = { dst_ioas_id: other, src_ioas_id: ioas, length, src_iova: BASE + offset }
          const { answer, dst_iova } = await iommufd.copy(copy)
          expect(answer).toBe(0)
          const pinned = await pin(first, pages)
          expect(bench.pinnedPages() - before).toBe(BigInt(pages))

          const tail = memory.bytes.slice(end * 4096 - 8, end * 4096)
          expect(await access.read(BASE + BigInt(end) * PAGE - 8n, 8)).toEqual(tail)
          expect(await pinned.unpin()).toBe(0)
          await iommufd.unmap(other, dst_iova, length)
          await iommufd.unmap(ioas, BASE + offset, length)
          expect(bench.pinnedPages()).toBe(before)
        }
    })

    test('keeps the ioas in use until it is closed: EBUSY (ioas_destroy, ioas_area_destroy)', async () => {
      await leave()
      await map(1)
      const pinned = await pin(0, 1)
      expect(await iommufd.destroy(ioas)).toBe('EBUSY')

      await access.close()

      expect(pinned.answer).toBe(0)
      expect(await iommufd.destroy(ioas)).toBe(0)
    })
  })
}
