/**
 * iommufd.h: dirty tracking by the IOMMU. The same suite runs over the simulator's hardware, where a
 * device writes, and over the mock domain of the kernel, the only one here that tracks writes,
 * where a test request stands for the device: see also test/kernel/mock.
 */

import { beforeEach, describe, expect, test } from 'vitest'
import {
  IOMMU_GET_HW_INFO,
  IOMMU_HW_CAP_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_GET_DIRTY_BITMAP,
  IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
  IOMMU_HWPT_SET_DIRTY_TRACKING,
  iommu_hw_info,
  iommu_hwpt_get_dirty_bitmap,
  iommu_hwpt_set_dirty_tracking,
} from '../../src/abi/iommufd.ts'
import type { Segment } from '../../src/os/memory.ts'
import type { Said } from './answers.ts'
import type { Iommufd } from './iommufd-calls.ts'
import type { Machine } from './machine.ts'

/** A device that is bound to an iommufd and attached to an ioas of it. */
export interface BenchDevice {
  readonly id: number
  /** The hwpt that it was attached to first. */
  readonly hwpt: number
  attach(ptId: number): Promise<Said>
}

/** What the suite asks of a machine with an IOMMU that tracks writes. */
export interface Bench {
  readonly machine: Machine
  /** The smallest page of the IOMMU, and one of its large pages. */
  readonly page: bigint
  readonly largePage: bigint
  open(): Promise<Iommufd>
  device(iommufd: Iommufd, ioas: number): Promise<BenchDevice>
  /** A device whose IOMMU does not track. */
  plainDevice(iommufd: Iommufd, ioas: number): Promise<BenchDevice>
  /** The device writes into each of these pages. */
  write(hwpt: number, iovas: readonly bigint[]): Promise<void>
  /** Memory that can be mapped with large pages. */
  largeMemory(): Promise<Segment>
}

const BASE = 0x200_0000n
const PAGES = 64n

export const dirtySuite = (name: string, bench: Bench): void => {
  describe(name, () => {
    const { machine, page } = bench
    const length = PAGES * page
    let iommufd: Iommufd
    let ioas: number
    let device: BenchDevice
    let hwpt: number
    let memory: Segment
    let bitmap: Segment

    const set = async (isOn: boolean, id = hwpt): Promise<Said> => {
      const values = { hwpt_id: id, flags: isOn ? 1 : 0 }
      const { answer } = await iommufd.ask(
        IOMMU_HWPT_SET_DIRTY_TRACKING,
        iommu_hwpt_set_dirty_tracking,
        values,
      )
      return answer
    }
    const ask = async (values: object): Promise<Said> =>
      (
        await iommufd.ask(IOMMU_HWPT_GET_DIRTY_BITMAP, iommu_hwpt_get_dirty_bitmap, {
          hwpt_id: hwpt,
          iova: BASE,
          length,
          page_size: page,
          data: bitmap.address,
          ...values,
        })
      ).answer
    /** The numbers of the bits that a read sets in a clean bitmap. */
    const get = async (values: object = {}): Promise<number[]> => {
      bitmap.bytes.fill(0)
      expect(await ask(values)).toBe(0)
      return bitsOf(bitmap.bytes)
    }
    const write = (...pages: bigint[]): Promise<void> =>
      bench.write(
        hwpt,
        pages.map((number) => BASE + number * page),
      )
    const NO_CLEAR = { flags: IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR }

    beforeEach(async () => {
      iommufd = await bench.open()
      ioas = await iommufd.newIoas()
      device = await bench.device(iommufd, ioas)
      const flags = IOMMU_HWPT_ALLOC_DIRTY_TRACKING
      const made = await iommufd.hwpt({ dev_id: device.id, pt_id: ioas, flags })
      expect(made.answer).toBe(0)
      hwpt = made.out_hwpt_id
      expect(await device.attach(hwpt)).toBe(0)
      memory = (await machine.memory(Number(length))).segment
      bitmap = (await machine.memory(8192)).segment
      await iommufd.mapAt(ioas, { iova: BASE, vaddr: memory.address, length })
    })

    test('is reported by IOMMU_GET_HW_INFO (device_dirty_capability)', async () => {
      const info = await iommufd.ask(IOMMU_GET_HW_INFO, iommu_hw_info, { dev_id: device.id })

      expect(info.out_capabilities & BigInt(IOMMU_HW_CAP_DIRTY_TRACKING)).toBe(1n)
    })

    test('needs the device to track: EOPNOTSUPP, EINVAL (enforce_dirty)', async () => {
      const plain = await bench.plainDevice(iommufd, ioas)
      const flags = IOMMU_HWPT_ALLOC_DIRTY_TRACKING
      const made = await iommufd.hwpt({ dev_id: plain.id, pt_id: ioas, flags })

      expect(made.answer).toBe('EOPNOTSUPP')
      expect(await plain.attach(hwpt)).toBe('EINVAL')
    })

    test('is of no hwpt that came of attaching to an ioas: EOPNOTSUPP', async () => {
      const { hwpt: auto } = await bench.plainDevice(iommufd, ioas)

      expect(await set(true, auto)).toBe('EOPNOTSUPP')
      expect(await ask({ hwpt_id: auto })).toBe('EOPNOTSUPP')
    })

    test('can be set and ended, as often as one likes (set_dirty_tracking)', async () => {
      for (const isOn of [true, true, false, false, true]) expect(await set(isOn)).toBe(0)
    })

    test('reports exactly the pages that were written, once (get_dirty_bitmap)', async () => {
      await set(true)
      await write(0n, 3n, 7n, 8n, 31n, 63n)

      expect(await get()).toEqual([0, 3, 7, 8, 31, 63])
      expect(await get()).toEqual([])
    })

    test('reports as often as wanted with NO_CLEAR (get_dirty_bitmap_no_clear)', async () => {
      await set(true)
      await write(5n, 40n)

      expect(await get(NO_CLEAR)).toEqual([5, 40])
      expect(await get(NO_CLEAR)).toEqual([5, 40])
      expect(await get()).toEqual([5, 40])
      expect(await get(NO_CLEAR)).toEqual([])
    })

    test('counts bits from the iova that is asked for', async () => {
      await set(true)
      await write(9n, 10n, 20n)

      expect(await get({ iova: BASE + 10n * page, length: 8n * page })).toEqual([0])
      expect(await get()).toEqual([9, 20])
    })

    test('only sets bits: what the caller had stays', async () => {
      await set(true)
      await write(1n)
      bitmap.bytes.fill(0)
      bitmap.bytes.set([0b1000_0000, 0xff])

      expect(await ask({})).toBe(0)

      expect([...bitmap.bytes.subarray(0, 3)]).toEqual([0b1000_0010, 0xff, 0])
    })

    test('takes a bitmap at any address', async () => {
      await set(true)
      await write(0n, 9n, 63n)
      bitmap.bytes.fill(0)

      expect(await ask({ data: (bitmap.address as bigint) + 0xff1n })).toBe(0)

      expect(bitsOf(bitmap.bytes.subarray(0xff1))).toEqual([0, 9, 63])
      expect(bitsOf(bitmap.bytes.subarray(0, 0xff1))).toEqual([])
    })

    test('reports larger pages when any of them was written, smaller ones all', async () => {
      await set(true)
      await write(1n, 2n, 9n)

      expect(await get({ ...NO_CLEAR, page_size: 4n * page })).toEqual([0, 2])
      expect(await get({ page_size: page / 2n })).toEqual([2, 3, 4, 5, 18, 19])
    })

    test('says nothing for a page size that is not a power of two', async () => {
      await set(true)

      expect(await ask({ iova: 0n, length: 1n << 40n, page_size: 3000n })).toBe(0)
    })

    test('starts clean each time it is set, even when it is on', async () => {
      await set(true)
      await write(4n)
      await set(true)

      expect(await get()).toEqual([])
      await write(5n)
      await set(false)
      await set(true)
      expect(await get()).toEqual([])
    })

    test('reads as clean while it is off', async () => {
      expect(await get()).toEqual([])
      await set(true)
      await write(4n)
      await set(false)

      expect(await get()).toEqual([])
    })

    test('covers later mappings, which start clean', async () => {
      await set(true)
      const iova = BASE + length
      await iommufd.mapAt(ioas, { iova, vaddr: memory.address, length })

      expect(await get({ iova })).toEqual([])
      await bench.write(hwpt, [iova + 2n * page])
      expect(await get({ iova })).toEqual([2])
      expect(await get()).toEqual([])
    })

    test('forgets what is unmapped', async () => {
      await set(true)
      await write(4n)
      await iommufd.unmapAll(ioas)
      await iommufd.mapAt(ioas, { iova: BASE, vaddr: memory.address, length })

      expect(await get()).toEqual([])
    })

    test('finds nothing in a range that begins in a hole, without a word', async () => {
      await set(true)
      await write(0n)

      expect(await get({ iova: BASE - page, length: 2n * page })).toEqual([])
      expect(await get({ iova: BASE - 8n * page, length: 4n * page })).toEqual([])
      expect(await get()).toEqual([0])
    })

    test('stops at a hole, without a word', async () => {
      await set(true)
      const behind = BASE + length + page
      await iommufd.mapAt(ioas, { iova: behind, vaddr: memory.address, length: page })
      await write(63n)
      await bench.write(hwpt, [behind])

      expect(await get({ length: length + 2n * page })).toEqual([63])
      expect(await get({ iova: behind, length: page })).toEqual([0])
    })

    test('loses what it cannot write down, without a word', async () => {
      await set(true)
      await write(4n)

      expect(await ask({ ...NO_CLEAR, data: 0x1000n })).toBe(0)
      expect(await get(NO_CLEAR)).toEqual([4])
      expect(await ask({ data: 0x1000n })).toBe(0)
      expect(await get()).toEqual([])
    })

    test('needs whole pages of the ioas and of the bitmap: EINVAL', async () => {
      expect(await ask({ iova: BASE + page / 2n })).toBe('EINVAL')
      expect(await ask({ length: page / 2n })).toBe('EINVAL')
      expect(await ask({ iova: BASE + page, page_size: 2n * page })).toBe('EINVAL')
      expect(await ask({ length: 3n * page, page_size: 2n * page })).toBe('EINVAL')
    })

    test('belongs to an entry of the page table: a write dirties all of a large page', async () => {
      const large = await bench.largeMemory()
      const iova = 0x1000_0000n
      const size = bench.largePage
      await iommufd.mapAt(ioas, { iova, vaddr: large.address, length: size })
      await set(true)
      const pages = Number(size / page)

      await bench.write(hwpt, [iova + 5n * page])

      const bits = await get({ iova, length: size })
      expect([bits.length, bits[0], bits.at(-1)]).toEqual([pages, 0, pages - 1])
      expect(await get({ iova, length: size })).toEqual([])
    })

    test('is as fine as the page with HUGE_PAGES 0', async () => {
      const large = await bench.largeMemory()
      const iova = 0x1000_0000n
      const size = bench.largePage
      await iommufd.unmapAll(ioas)
      expect(await iommufd.setHugePages(ioas, 0n)).toBe(0)
      await iommufd.mapAt(ioas, { iova, vaddr: large.address, length: size })
      await set(true)

      await bench.write(hwpt, [iova + 4n * page])

      const bits = await get({ iova, length: size, page_size: 4096n })
      expect(bits).toEqual([Number((4n * page) / 4096n)])
    })
  })
}

const bitsOf = (bytes: Uint8Array): number[] => {
  const bits: number[] = []
  for (const [index, byte] of bytes.entries())
    for (let bit = 0; bit < 8; bit++) if ((byte >> bit) & 1) bits.push(index * 8 + bit)
  return bits
}
