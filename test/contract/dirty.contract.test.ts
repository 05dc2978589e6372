/** vfio.h: VFIO_IOMMU_DIRTY_PAGES, and VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP. */

import { beforeAll, describe, expect, test } from 'vitest'
import {
  VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
  VFIO_IOMMU_DIRTY_PAGES,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
  VFIO_TYPE1_IOMMU,
} from '../../src/abi/container.ts'
import { allocPages, type Segment } from '../../src/os/memory.ts'
import { type Said, said } from './answers.ts'
import { describeType1 } from './backends.ts'
import { dirtyPages, type GetBitmap, getDirtyBitmap, mapDma, unmapDma } from './calls.ts'

const PAGE = 0x1000n
const IOVA = 0x10_0000n
const START = VFIO_IOMMU_DIRTY_PAGES_FLAG_START
const STOP = VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP
const WITH_BITMAP = VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP

describeType1(
  'DIRTY_PAGES of an iommufd is ENOTTY; iommufd-dirty.contract.test.ts has what it tracks',
)('dirty pages', (machine) => {
  const { kernel } = machine
  let edu = ''
  let mtty = ''
  const bits = allocPages(4096)

  beforeAll(async () => {
    ;[edu] = await machine.edus()
    mtty = await machine.mtty('mtty-1', { forSuite: true })
  })

  const words = (count: number): bigint[] => [
    ...new BigUint64Array(bits.bytes.slice(0, count * 8).buffer),
  ]

  const ones = (count: number): bigint => (1n << BigInt(count)) - 1n

  const bitmap = (bytes = 4096n): GetBitmap['bitmap'] => ({
    pgsize: PAGE,
    size: bytes,
    data: bits.address,
  })

  const map = async (container: number, segment: Segment, at: number, pages: number) => {
    const iova = IOVA + BigInt(at) * PAGE
    const size = BigInt(pages) * PAGE
    expect(await mapDma(kernel, container, { vaddr: segment.address, iova, size })).toBe(0)
  }

  /** A container that tracks, and 16 pages to map. */
  const ready = async (names = [edu]): Promise<{ container: number; segment: Segment }> => {
    const { container } = await machine.attached(names)
    const { segment } = await machine.memory(16 * 4096)
    expect(await dirtyPages(kernel, container, START)).toBe(0)
    bits.bytes.fill(0)
    return { container, segment }
  }

  const get = async (container: number, at: number, pages: number): Promise<Said> => {
    const iova = IOVA + BigInt(at) * PAGE
    const size = BigInt(pages) * PAGE
    return said(await getDirtyBitmap(kernel, container, { iova, size, bitmap: bitmap() }))
  }

  describe('VFIO_IOMMU_DIRTY_PAGES', () => {
    test.each([
      ['no flag', 0, 8],
      ['START and STOP together', START | STOP, 8],
      ['a flag that it does not know', 8, 8],
      ['an argsz below 8', START, 7],
    ])('refuses %s: EINVAL', async (_what, flags, argsz) => {
      const { container } = await machine.attached([edu])

      expect(said(await dirtyPages(kernel, container, flags, argsz))).toBe('EINVAL')
    })

    test('refuses VFIO_TYPE1_IOMMU, the first version, whatever it is asked: EACCES', async () => {
      const { container } = await machine.attached([edu], VFIO_TYPE1_IOMMU)

      expect(said(await dirtyPages(kernel, container, 0, 0))).toBe('EACCES')
    })

    test('refuses a pointer that leads nowhere: EFAULT', async () => {
      const { container } = await machine.attached([edu])

      expect(said(await kernel.ioctl(container, VFIO_IOMMU_DIRTY_PAGES.number, undefined))).toBe(
        'EFAULT',
      )
    })

    test('starts and stops as often as it is asked', async () => {
      const { container } = await machine.attached([edu])

      for (const flags of [STOP, START, START, STOP, STOP, START])
        expect(await dirtyPages(kernel, container, flags)).toBe(0)
    })
  })

  describe('VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP', () => {
    test.each<[string, (good: GetBitmap) => GetBitmap]>([
      ['an argsz below 48', (good) => ({ ...good, argsz: 47 })],
      ['an iova off the page', (good) => ({ ...good, iova: IOVA + 1n })],
      ['a size of 0', (good) => ({ ...good, size: 0n })],
      ['a size off the page', (good) => ({ ...good, size: PAGE + 1n })],
      ['a range that wraps', (good) => ({ ...good, iova: (1n << 64n) - PAGE, size: 2n * PAGE })],
      ['a page of 8 KiB', (good) => ({ ...good, bitmap: { ...good.bitmap, pgsize: 2n * PAGE } })],
      [
        'a page of 2 MiB',
        (good) => ({
          ...good,
          size: 0x20_0000n,
          bitmap: { ...good.bitmap, pgsize: 0x20_0000n },
        }),
      ],
      ['a bitmap of 0 bytes', (good) => ({ ...good, bitmap: { ...good.bitmap, size: 0n } })],
      [
        'a bitmap that is too small',
        (good) => ({ ...good, size: 65n * PAGE, bitmap: { ...good.bitmap, size: 8n } }),
      ],
      [
        'a bitmap above the limit',
        (good) => ({ ...good, bitmap: { ...good.bitmap, size: 0x1000_0001n } }),
      ],
      [
        'a bitmap outside the memory of the process',
        (good) => ({ ...good, bitmap: { ...good.bitmap, data: 1n << 63n } }),
      ],
    ])('refuses %s: EINVAL', async (_what, change) => {
      const { container, segment } = await ready()
      await map(container, segment, 0, 4)
      const good = { iova: IOVA, size: 4n * PAGE, bitmap: bitmap() }
      expect(await getDirtyBitmap(kernel, container, good)).toBe(0)

      expect(said(await getDirtyBitmap(kernel, container, change(good)))).toBe('EINVAL')
    })

    test('refuses while nothing is tracked: EINVAL', async () => {
      const { container, segment } = await ready()
      await map(container, segment, 0, 4)
      await dirtyPages(kernel, container, STOP)

      expect(await get(container, 0, 4)).toBe('EINVAL')
    })

    test.each([
      ['start', 1, 3],
      ['end', 0, 3],
    ])('refuses a range whose %s cuts a mapping: EINVAL', async (_end, at, pages) => {
      const { container, segment } = await ready()
      await map(container, segment, 0, 4)

      expect(await get(container, at, pages)).toBe('EINVAL')
    })

    test('refuses a bitmap that is not there: EFAULT', async () => {
      const { container, segment } = await ready()
      await map(container, segment, 0, 4)
      const get = { iova: IOVA, size: 4n * PAGE, bitmap: { ...bitmap(8n), data: 0x1000n } }

      expect(said(await getDirtyBitmap(kernel, container, get))).toBe('EFAULT')
    })

    test('leaves the bitmap of a range without mappings as it is: 0', async () => {
      const { container } = await ready()
      bits.bytes.fill(0xaa, 0, 8)

      expect(await get(container, 0, 4)).toBe(0)

      expect(words(1)).toEqual([0xaaaa_aaaa_aaaa_aaaan])
    })

    test('with an IOMMU, reports every page of every mapping, each time', async () => {
      const { container, segment } = await ready()
      await map(container, segment, 0, 4)

      expect(await get(container, 0, 64)).toBe(0)
      expect(words(2)).toEqual([ones(4), 0n])

      bits.bytes.fill(0)
      expect(await get(container, 0, 64)).toBe(0)
      expect(words(1)).toEqual([ones(4)])
    })

    test('reports mappings from before and from after START alike', async () => {
      const { container } = await machine.attached([edu])
      const { segment } = await machine.memory(16 * 4096)
      await map(container, segment, 0, 2)
      await dirtyPages(kernel, container, START)
      await map(container, segment, 64, 2)
      bits.bytes.fill(0)

      expect(await get(container, 0, 128)).toBe(0)

      expect(words(3)).toEqual([3n, 3n, 0n])
    })

    test('stores whole words, and merges only the one that a mapping begins in', async () => {
      const { container, segment } = await ready()
      await map(container, segment, 4, 4)
      bits.bytes.fill(0xff, 0, 16)

      expect(await get(container, 0, 64)).toBe(0)

      expect(words(2)).toEqual([ones(64), ones(64)])
    })

    test('overwrites what stood in the word of a mapping that begins with it', async () => {
      const { container, segment } = await ready()
      await map(container, segment, 0, 4)
      bits.bytes.fill(0xff, 0, 16)

      expect(await get(container, 0, 64)).toBe(0)

      expect(words(2)).toEqual([ones(4), ones(64)])
    })

    test('leaves bits behind its last page the second time, where it had to shift', async () => {
      const { container, segment } = await ready()
      await map(container, segment, 8, 12)

      expect(await get(container, 0, 64)).toBe(0)
      expect(words(1)).toEqual([ones(12) << 8n])

      bits.bytes.fill(0)
      expect(await get(container, 0, 64)).toBe(0)
      expect(words(1)).toEqual([ones(20) << 8n])
    })

    test('has shifted them even where the bitmap was not there: EFAULT', async () => {
      const { container, segment } = await ready()
      await map(container, segment, 8, 12)
      const nowhere = { iova: IOVA, size: 64n * PAGE, bitmap: { ...bitmap(8n), data: 0x1000n } }

      expect(said(await getDirtyBitmap(kernel, container, nowhere))).toBe('EFAULT')
      expect(await get(container, 0, 64)).toBe(0)

      expect(words(1)).toEqual([ones(20) << 8n])
    })

    test('with mediated devices that pin nothing, reports no page', async () => {
      const { container, segment } = await ready([mtty])
      await map(container, segment, 0, 4)
      bits.bytes.fill(0xff, 0, 8)

      expect(await get(container, 0, 4)).toBe(0)

      expect(words(1)).toEqual([0n])
    })

    test('reports every page once more after the last group with an IOMMU left', async () => {
      const { container } = await machine.attached([mtty, edu])
      const { segment } = await machine.memory(16 * 4096)
      await map(container, segment, 0, 4)
      await dirtyPages(kernel, container, START)
      bits.bytes.fill(0)
      await get(container, 0, 4)
      expect(words(1)).toEqual([ones(4)])

      await machine.leave(edu)

      await get(container, 0, 4)
      expect(words(1)).toEqual([ones(4)])
      await get(container, 0, 4)
      expect(words(1)).toEqual([0n])
    })
  })

  describe('VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP', () => {
    const unmap = (container: number, at: number, pages: number, wanted = bitmap()) =>
      unmapDma(kernel, container, {
        flags: WITH_BITMAP,
        iova: IOVA + BigInt(at) * PAGE,
        size: BigInt(pages) * PAGE,
        bitmap: wanted,
      })

    test('unmaps and tells what was dirty', async () => {
      const { container, segment } = await ready()
      await map(container, segment, 0, 4)

      expect(await unmap(container, 0, 4)).toEqual({ answer: 0, size: 4n * PAGE })

      expect(words(1)).toEqual([ones(4)])
      expect((await unmapDma(kernel, container, { flags: 2 })).size).toBe(0n)
    })

    test.each([
      ['a page of another size', { pgsize: 2n * PAGE }],
      ['a bitmap of 0 bytes', { size: 0n }],
      ['a bitmap outside the memory of the process', { data: 1n << 63n }],
    ])('refuses %s, and unmaps nothing: EINVAL', async (_what, wrong) => {
      const { container, segment } = await ready()
      await map(container, segment, 0, 4)

      const refused = await unmap(container, 0, 4, { ...bitmap(), ...wrong })

      expect(said(refused.answer)).toBe('EINVAL')
      expect((await unmapDma(kernel, container, { flags: 2 })).size).toBe(4n * PAGE)
    })

    test('refuses while nothing is tracked: EINVAL', async () => {
      const { container, segment } = await ready()
      await map(container, segment, 0, 4)
      await dirtyPages(kernel, container, STOP)

      expect(said((await unmap(container, 0, 4)).answer)).toBe('EINVAL')
    })
  })

  describe('a mapping of more pages than one bitmap has bits', () => {
    const large = { vaddr: PAGE, iova: 1n << 43n, size: 1n << 43n }

    test('is refused while pages are tracked, and leaves nothing: EINVAL', async () => {
      const { container } = await machine.attached([mtty])
      await dirtyPages(kernel, container, START)

      expect(said(await mapDma(kernel, container, large))).toBe('EINVAL')

      expect((await unmapDma(kernel, container, { flags: 2 })).size).toBe(0n)
    })

    test('keeps tracking from being started: EINVAL', async () => {
      const { container } = await machine.attached([mtty])
      const small = { vaddr: PAGE, iova: IOVA, size: PAGE }
      expect(await mapDma(kernel, container, small)).toBe(0)
      expect(await mapDma(kernel, container, large)).toBe(0)

      expect(said(await dirtyPages(kernel, container, START))).toBe('EINVAL')

      expect(await get(container, 0, 4)).toBe('EINVAL')
      await unmapDma(kernel, container, { iova: large.iova, size: large.size })
      expect(await dirtyPages(kernel, container, START)).toBe(0)
    })
  })
})
