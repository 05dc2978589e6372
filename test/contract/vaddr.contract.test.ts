/** vfio.h: VFIO_DMA_UNMAP_FLAG_VADDR and VFIO_DMA_MAP_FLAG_VADDR, for live update. */

import { beforeAll, describe, expect, test } from 'vitest'
import {
  VFIO_DMA_MAP_FLAG_VADDR,
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_DMA_UNMAP_FLAG_VADDR,
} from '../../src/abi/container.ts'
import type { Segment } from '../../src/os/memory.ts'
import { type Said, said } from './answers.ts'
import { describeType1 } from './backends.ts'
import { mapDma, setContainer, type UnmapArguments, unmapDma } from './calls.ts'

const PAGE = 0x1000n
const IOVA = 0x10_0000n
const NEXT = 0x20_0000n
const SIZE = 0x4000n
const VADDR = VFIO_DMA_UNMAP_FLAG_VADDR
const ALL = VFIO_DMA_UNMAP_FLAG_ALL

describeType1('the memory of an ioas has no vaddr')('the vaddr of a mapping', (machine) => {
  const { kernel } = machine
  let edu = ''
  let other = ''
  let mtty = ''

  beforeAll(async () => {
    ;[edu, other] = await machine.edus()
    mtty = await machine.mtty('mtty-1', { forSuite: true })
  })

  const invalidate = async (container: number, what: UnmapArguments): Promise<[Said, bigint]> => {
    const { answer, size } = await unmapDma(kernel, container, {
      ...what,
      flags: VADDR | (what.flags ?? 0),
    })
    return [said(answer), size]
  }

  const update = async (
    container: number,
    vaddr: bigint,
    { iova = IOVA, size = SIZE }: { readonly iova?: bigint; readonly size?: bigint } = {},
  ): Promise<Said> =>
    said(await mapDma(kernel, container, { flags: VFIO_DMA_MAP_FLAG_VADDR, vaddr, iova, size }))

  /** Two mappings of the same memory. */
  const ready = async (): Promise<{ container: number; segment: Segment; moved: Segment }> => {
    const { container } = await machine.attached([edu])
    const { fd, segment } = await machine.memory(Number(SIZE))
    const moved = await machine.mapped(fd, Number(SIZE))
    for (const iova of [IOVA, NEXT])
      await mapDma(kernel, container, { vaddr: segment.address, iova, size: SIZE })
    return { container, segment, moved }
  }

  describe('VFIO_DMA_UNMAP_FLAG_VADDR', () => {
    test('marks the mappings of a range and answers their bytes', async () => {
      const { container } = await ready()

      expect(await invalidate(container, { iova: IOVA, size: SIZE })).toEqual([0, SIZE])
    })

    test('marks everything with ALL', async () => {
      const { container } = await ready()

      expect(await invalidate(container, { flags: ALL })).toEqual([0, 2n * SIZE])
    })

    test('refuses a range with a mapping that is marked already, and marks none: EINVAL', async () => {
      const { container, moved } = await ready()
      await invalidate(container, { iova: NEXT, size: SIZE })

      expect((await invalidate(container, { flags: ALL }))[0]).toBe('EINVAL')

      expect(await update(container, moved.address)).toBe('EINVAL')
      expect(await update(container, moved.address, { iova: NEXT })).toBe(0)
    })

    test('refuses a range that cuts a mapping: EINVAL', async () => {
      const { container } = await ready()

      expect((await invalidate(container, { iova: IOVA, size: PAGE }))[0]).toBe('EINVAL')
    })

    test('finds nothing in an empty range: 0', async () => {
      const { container } = await ready()

      expect(await invalidate(container, { iova: 0n, size: PAGE })).toEqual([0, 0n])
    })

    test('refuses while a mediated device is in the container, before anything else: EBUSY', async () => {
      const { container } = await machine.attached([edu, mtty])

      expect((await invalidate(container, { iova: 1n, size: 0n }))[0]).toBe('EBUSY')
    })
  })

  describe('VFIO_DMA_MAP_FLAG_VADDR', () => {
    test('sets the vaddr of a marked mapping, once', async () => {
      const { container, moved } = await ready()
      await invalidate(container, { iova: IOVA, size: SIZE })

      expect(await update(container, moved.address)).toBe(0)
      expect(await update(container, moved.address)).toBe('EINVAL')
    })

    test('refuses where nothing is mapped: ENOENT', async () => {
      const { container, moved } = await ready()

      expect(await update(container, moved.address, { iova: 0x30_0000n })).toBe('ENOENT')
    })

    test('refuses another iova or size than the mapping has: EINVAL', async () => {
      const { container, moved } = await ready()
      await invalidate(container, { iova: IOVA, size: SIZE })

      expect(await update(container, moved.address, { size: PAGE })).toBe('EINVAL')
      expect(await update(container, moved.address, { iova: IOVA + PAGE, size: PAGE })).toBe(
        'EINVAL',
      )
      expect(await update(container, moved.address, { iova: IOVA - PAGE })).toBe('EINVAL')
    })

    test('refuses a vaddr that is not a multiple of the page: EINVAL', async () => {
      const { container, moved } = await ready()
      await invalidate(container, { iova: IOVA, size: SIZE })

      expect(await update(container, moved.address + 1n)).toBe('EINVAL')
    })
  })

  describe('while a vaddr is invalid', () => {
    test('no group can come: EBUSY', async () => {
      const { container, moved } = await ready()
      await invalidate(container, { iova: IOVA, size: SIZE })
      const group = await machine.group(other)

      expect(said(await setContainer(kernel, group, container))).toBe('EBUSY')

      await update(container, moved.address)
      expect(await setContainer(kernel, group, container)).toBe(0)
    })

    test('other memory can be mapped', async () => {
      const { container, segment } = await ready()
      await invalidate(container, { flags: ALL })

      const map = { vaddr: segment.address, iova: 0x30_0000n, size: SIZE }
      expect(await mapDma(kernel, container, map)).toBe(0)
    })

    test('the mapping can be unmapped, and then a group can be added', async () => {
      const { container } = await ready()
      await invalidate(container, { iova: IOVA, size: SIZE })

      expect((await unmapDma(kernel, container, { iova: IOVA, size: SIZE })).size).toBe(SIZE)

      expect(await setContainer(kernel, await machine.group(other), container)).toBe(0)
    })
  })
})
