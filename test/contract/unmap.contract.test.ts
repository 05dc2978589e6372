/** vfio.h: VFIO_IOMMU_UNMAP_DMA. */

import { beforeAll, describe, expect, test } from 'vitest'
import {
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
  VFIO_DMA_UNMAP_FLAG_VADDR,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_TYPE1_IOMMU,
} from '../../src/abi/container.ts'
import type { Segment } from '../../src/os/memory.ts'
import { type Said, said } from './answers.ts'
import { describeContract, unless } from './backends.ts'
import { mapDma, type UnmapArguments, unmapDma } from './calls.ts'

const PAGE = 0x1000n
const IOVA = 0x10_0000n
const SIZE = 0x4000n
const TOP = 1n << 64n
const ALL = VFIO_DMA_UNMAP_FLAG_ALL

describeContract('VFIO_IOMMU_UNMAP_DMA', (machine) => {
  const { kernel } = machine
  let edu = ''

  beforeAll(async () => {
    ;[edu] = await machine.edus()
  })

  const unmap = async (container: number, what: UnmapArguments): Promise<[Said, bigint]> => {
    const { answer, size } = await unmapDma(kernel, container, what)
    return [said(answer), size]
  }

  /** Mappings of SIZE at IOVA, IOVA + 0x10000 and so on. */
  const ready = async (
    count: number,
    model?: number,
  ): Promise<{ container: number; segment: Segment }> => {
    const { container } = await machine.mappable([edu], model)
    const { segment } = await machine.memory(Number(SIZE))
    for (let at = 0n; at < count; at++) {
      const iova = IOVA + at * 0x1_0000n
      const answer = await mapDma(kernel, container, { vaddr: segment.address, iova, size: SIZE })
      expect(answer).toBe(0)
    }
    return { container, segment }
  }

  describe('refuses', () => {
    const refused: [what: string, wrong: UnmapArguments, inCompat?: Said][] = [
      ['an argsz below 24', { argsz: 23 }],
      ['a flag that it does not know', { flags: 8 }],
      ['a bitmap together with ALL', { flags: VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP | ALL }],
      [
        'a bitmap together with VADDR',
        { flags: VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP | VFIO_DMA_UNMAP_FLAG_VADDR },
      ],
      ['a bitmap that argsz has no room for', { flags: VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP }],
      ['an iova that is no multiple of the page', { iova: IOVA + 1n }, 'ENOENT'],
      ['a size of 0', { size: 0n }],
      ['a size that is no multiple of the page', { size: PAGE - 1n }, 'ENOENT'],
      ['a range that wraps', { iova: TOP - PAGE, size: 2n * PAGE }, 'EOVERFLOW'],
      ['ALL with an iova', { flags: ALL, size: 0n }],
      ['ALL with a size', { flags: ALL, iova: 0n }],
    ]
    // An iommufd that comes as far as its ioas says that nothing was unmapped.
    test.each(
      refused.map(([what, wrong, inCompat]) =>
        machine.isCompat && inCompat !== undefined
          ? { what, wrong, errno: inCompat, size: '0' }
          : { what, wrong, errno: 'EINVAL' as const, size: 'what was asked' },
      ),
    )('$what: $errno, and the size is $size', async ({ wrong, errno, size }) => {
      const { container } = await ready(1)
      const asked = { iova: IOVA, size: SIZE, ...wrong }

      expect(await unmap(container, asked)).toEqual([errno, size === '0' ? 0n : asked.size])
      expect(await unmap(container, { flags: ALL })).toEqual([0, SIZE])
    })

    const cut: Said = machine.isCompat ? 'ENOENT' : 'EINVAL'
    test.each<[string, bigint, bigint]>([
      ['starts inside a mapping', IOVA + PAGE, SIZE],
      ['ends inside a mapping', IOVA - PAGE, SIZE],
      ['lies inside a mapping', IOVA + PAGE, PAGE],
    ])(`a range that %s, and unmaps nothing: ${cut}`, async (_what, iova, size) => {
      const { container } = await ready(1)

      expect((await unmap(container, { iova, size }))[0]).toBe(cut)
      expect(await unmap(container, { flags: ALL })).toEqual([0, SIZE])
    })

    unless(machine.isCompat, 'an ioas unmaps those before it: iommufd-compat.contract.test.ts')(
      'a range that cuts only its last mapping, and unmaps none before it: EINVAL',
      async () => {
        const { container } = await ready(2)

        expect((await unmap(container, { iova: IOVA, size: 0x1_0000n + PAGE }))[0]).toBe('EINVAL')
        expect(await unmap(container, { flags: ALL })).toEqual([0, 2n * SIZE])
      },
    )

    test('a pointer that leads nowhere: EFAULT', async () => {
      const { container } = await ready(1)

      expect(said(await kernel.ioctl(container, VFIO_IOMMU_UNMAP_DMA.number, undefined))).toBe(
        'EFAULT',
      )
    })
  })

  describe('answers how many bytes were mapped', () => {
    test('for exactly one mapping', async () => {
      const { container } = await ready(2)

      expect(await unmap(container, { iova: IOVA, size: SIZE })).toEqual([0, SIZE])
      expect(await unmap(container, { flags: ALL })).toEqual([0, SIZE])
    })

    test('for a range with holes, which do not count', async () => {
      const { container } = await ready(2)

      expect(await unmap(container, { iova: IOVA - PAGE, size: 0x2_0000n })).toEqual([0, 2n * SIZE])
    })

    test('for a range without mappings: 0', async () => {
      const { container } = await ready(1)

      expect(await unmap(container, { iova: IOVA + SIZE, size: PAGE })).toEqual([0, 0n])
    })

    test('for ALL, and for ALL of nothing', async () => {
      const { container } = await ready(3)

      expect(await unmap(container, { flags: ALL })).toEqual([0, 3n * SIZE])
      expect(await unmap(container, { flags: ALL })).toEqual([0, 0n])
    })

    test('for the whole address space below 2^64', async () => {
      const { container } = await ready(1)

      expect(await unmap(container, { iova: 0n, size: TOP - PAGE })).toEqual([0, SIZE])
    })

    test('a mapping that was unmapped can be mapped again', async () => {
      const { container, segment } = await ready(1)
      await unmap(container, { iova: IOVA, size: SIZE })

      const again = { vaddr: segment.address, iova: IOVA, size: SIZE }
      expect(await mapDma(kernel, container, again)).toBe(0)
    })
  })

  describe('with VFIO_TYPE1_IOMMU, the first version', () => {
    const v1Test = unless(
      machine.isCompat,
      'an ioas of v1 cuts mappings: iommufd-compat.contract.test.ts',
    )
    v1Test('a range that starts inside a mapping removes nothing: 0', async () => {
      const { container } = await ready(1, VFIO_TYPE1_IOMMU)

      expect(await unmap(container, { iova: IOVA + PAGE, size: SIZE })).toEqual([0, 0n])
      expect(await unmap(container, { flags: ALL })).toEqual([0, SIZE])
    })

    v1Test('a range over the start of a mapping removes all of it, and says so', async () => {
      const { container } = await ready(2, VFIO_TYPE1_IOMMU)

      expect(await unmap(container, { iova: IOVA, size: 0x1_0000n + PAGE })).toEqual([0, 2n * SIZE])
    })
  })
})
