/** vfio.h: VFIO_IOMMU_MAP_DMA. The checks come in this order; the first that fails answers. */

import { beforeAll, describe, expect, test } from 'vitest'
import {
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_VADDR,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_IOMMU_MAP_DMA,
} from '../../src/abi/container.ts'
import { sys } from '../../src/os/libc.ts'
import type { Segment } from '../../src/os/memory.ts'
import { type Said, said } from './answers.ts'
import { describeContract, unless } from './backends.ts'
import { type MapArguments, mapDma, unmapDma } from './calls.ts'

const PAGE = 0x1000n
const IOVA = 0x10_0000n
const SIZE = 0x4000n
const TOP = 1n << 64n
const LIMIT = '/sys/module/vfio_iommu_type1/parameters/dma_entry_limit'

describeContract('VFIO_IOMMU_MAP_DMA', (machine) => {
  const { kernel } = machine
  let edu = ''
  let mtty = ''

  beforeAll(async () => {
    ;[edu] = await machine.edus()
    mtty = await machine.mtty('mtty-1', { forSuite: true })
  })

  const ready = async (name = edu): Promise<{ container: number; segment: Segment }> => {
    const { container } = await machine.mappable([name])
    const { segment } = await machine.memory(Number(SIZE))
    return { container, segment }
  }

  const good = (segment: Segment): MapArguments => ({
    vaddr: segment.address,
    iova: IOVA,
    size: SIZE,
  })

  const mapped = async (container: number): Promise<bigint> =>
    (await unmapDma(kernel, container, { flags: 2 })).size

  describe('refuses', () => {
    const refused: [what: string, wrong: MapArguments, inCompat?: Said][] = [
      ['an argsz below 32', { argsz: 31 }],
      ['a flag that it does not know', { flags: 8 }],
      ['a mapping that the device may neither read nor write', { flags: 0 }],
      ['VADDR together with READ', { flags: VFIO_DMA_MAP_FLAG_VADDR | VFIO_DMA_MAP_FLAG_READ }],
      ['VADDR together with WRITE', { flags: VFIO_DMA_MAP_FLAG_VADDR | VFIO_DMA_MAP_FLAG_WRITE }],
      ['a size of 0', { size: 0n }],
      ['a size that is no multiple of the page', { size: PAGE + 1n }],
      ['an iova that is no multiple of the page', { iova: IOVA + 0x800n }],
      ['an iova in the MSI window', { iova: 0xfee0_0000n }],
      ['an iova range that reaches into the MSI window', { iova: 0xfee0_0000n - PAGE }],
      ['an iova above the aperture', { iova: 0x80_0000_0000n }],
      ['a range that crosses the end of the aperture', { iova: 0x80_0000_0000n - PAGE }],
      ['an iova range that wraps', { iova: TOP - PAGE, size: 2n * PAGE }, 'EOVERFLOW'],
      ['a vaddr range that wraps', { vaddr: TOP - PAGE, size: 2n * PAGE }, 'EOVERFLOW'],
    ]
    test.each(
      refused.map(([what, wrong, inCompat = 'EINVAL']) => ({
        what,
        wrong,
        errno: machine.isCompat ? inCompat : 'EINVAL',
      })),
    )('$what: $errno', async ({ wrong, errno }) => {
      const { container, segment } = await ready()

      expect(said(await mapDma(kernel, container, { ...good(segment), ...wrong }))).toBe(errno)
      expect(await mapped(container)).toBe(0n)
    })

    test('a vaddr that is not a multiple of the page: EINVAL', async () => {
      const { container, segment } = await ready()
      const vaddr = segment.address + 0x10n

      expect(said(await mapDma(kernel, container, { ...good(segment), vaddr, size: PAGE }))).toBe(
        'EINVAL',
      )
    })

    test('a pointer that leads nowhere: EFAULT', async () => {
      const { container } = await ready()

      expect(said(await kernel.ioctl(container, VFIO_IOMMU_MAP_DMA.number, undefined))).toBe(
        'EFAULT',
      )
    })

    test.each<[string, bigint, bigint]>([
      ['the same range', IOVA, SIZE],
      ['one page inside', IOVA + PAGE, PAGE],
      ['a range that ends inside', IOVA - PAGE, 2n * PAGE],
      ['a range that starts inside', IOVA + SIZE - PAGE, 2n * PAGE],
      ['a range around it', IOVA - PAGE, SIZE + 2n * PAGE],
    ])('%s over a mapping: EEXIST', async (_what, iova, size) => {
      const { container, segment } = await ready()
      expect(await mapDma(kernel, container, good(segment))).toBe(0)

      expect(said(await mapDma(kernel, container, { ...good(segment), iova, size }))).toBe('EEXIST')
      expect(await mapped(container)).toBe(SIZE)
    })

    test('memory that is not there: EFAULT, and nothing of it stays mapped', async () => {
      const { container, segment } = await ready()
      const { address } = segment
      machine.free(segment)

      expect(
        said(await mapDma(kernel, container, { vaddr: address, iova: IOVA, size: SIZE })),
      ).toBe('EFAULT')
      expect(said(await mapDma(kernel, container, { vaddr: 0n, iova: IOVA, size: PAGE }))).toBe(
        'EFAULT',
      )
      expect(await mapped(container)).toBe(0n)
    })

    test('memory whose file was cut: EFAULT, but what is left of it can be mapped', async () => {
      const { container } = await ready()
      const { fd, segment } = await machine.memory(Number(SIZE))
      sys.ftruncate(fd, SIZE / 2n)

      expect(said(await mapDma(kernel, container, good(segment)))).toBe('EFAULT')
      expect(await mapDma(kernel, container, { ...good(segment), size: SIZE / 2n })).toBe(0)
      expect(await mapped(container)).toBe(SIZE / 2n)
    })

    test('write access to memory that the process may only read: EFAULT', async () => {
      const { container } = await ready()
      const { fd } = await machine.memory(Number(SIZE))
      const readOnly = await machine.mapped(fd, Number(SIZE), 'read')

      expect(said(await mapDma(kernel, container, { ...good(readOnly), flags: 3 }))).toBe('EFAULT')
      expect(said(await mapDma(kernel, container, { ...good(readOnly), flags: 2 }))).toBe('EFAULT')
      expect(await mapDma(kernel, container, { ...good(readOnly), flags: 1 })).toBe(0)
    })
  })

  describe('order of checks', () => {
    test('flags come before sizes, sizes before the overlap', async () => {
      const { container, segment } = await ready()
      await mapDma(kernel, container, good(segment))

      expect(said(await mapDma(kernel, container, { ...good(segment), size: 0n }))).toBe('EINVAL')
      expect(said(await mapDma(kernel, container, { ...good(segment), flags: 4, size: 0n }))).toBe(
        'EINVAL',
      )
    })

    unless(machine.isCompat, 'the aperture of an ioas comes before')(
      'an overlap comes before the aperture and the memory',
      async () => {
        const { container, segment } = await ready()
        const iova = 0xfee0_0000n - PAGE
        await mapDma(kernel, container, { ...good(segment), iova, size: PAGE })

        const answer = await mapDma(kernel, container, { vaddr: 0n, iova, size: 2n * PAGE })

        expect(said(answer)).toBe('EEXIST')
      },
    )

    test('the aperture comes before the memory', async () => {
      const { container } = await ready()

      const answer = await mapDma(kernel, container, { vaddr: 0n, iova: 0xfee0_0000n, size: PAGE })

      expect(said(answer)).toBe('EINVAL')
    })

    unless(machine.isCompat, 'an ioas has no limit on mappings')(
      'the limit on mappings comes after the overlap and before the aperture',
      async () => {
        const limit = 3n
        const before = await machine.text(LIMIT)
        expect(await kernel.writeFile(LIMIT, `${limit}`)).toBeGreaterThan(0)
        const { container, segment } = await ready(edu)
        await kernel.writeFile(LIMIT, before)
        const page = { vaddr: segment.address, size: PAGE }
        for (let at = 0n; at < limit; at++)
          expect(await mapDma(kernel, container, { ...page, iova: at * PAGE })).toBe(0)

        const outside = 0xfee0_0000n
        expect(said(await mapDma(kernel, container, { ...page, iova: outside }))).toBe('ENOSPC')
        expect(said(await mapDma(kernel, container, { ...page, iova: 0n }))).toBe('EEXIST')

        expect((await unmapDma(kernel, container, { iova: 0n, size: PAGE })).answer).toBe(0)
        expect(said(await mapDma(kernel, container, { ...page, iova: outside }))).toBe('EINVAL')
        expect(await mapDma(kernel, container, { ...page, iova: limit * PAGE })).toBe(0)
      },
    )
  })

  describe('accepts', () => {
    test.each([
      ['read only', VFIO_DMA_MAP_FLAG_READ],
      ['write only', VFIO_DMA_MAP_FLAG_WRITE],
      ['both', VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE],
    ])('%s', async (_what, flags) => {
      const { container, segment } = await ready()

      expect(await mapDma(kernel, container, { ...good(segment), flags })).toBe(0)
    })

    test('an argsz above 32', async () => {
      const { container, segment } = await ready()

      expect(await mapDma(kernel, container, { ...good(segment), argsz: 4096 })).toBe(0)
    })

    test('both ends of each range, and the same memory at many iovas', async () => {
      const { container, segment } = await ready()
      for (const iova of [0n, 0xfee0_0000n - PAGE, 0xfef0_0000n, 0x80_0000_0000n - PAGE])
        expect(await mapDma(kernel, container, { ...good(segment), iova, size: PAGE })).toBe(0)

      expect(await mapped(container)).toBe(4n * PAGE)
    })

    test('a neighbour without joining it: each unmaps alone', async () => {
      const { container, segment } = await ready()
      const half = SIZE / 2n
      await mapDma(kernel, container, { ...good(segment), size: half })
      await mapDma(kernel, container, {
        vaddr: segment.address + half,
        iova: IOVA + half,
        size: half,
      })

      const { answer, size } = await unmapDma(kernel, container, { iova: IOVA, size: half })

      expect({ answer, size }).toEqual({ answer: 0, size: half })
    })
  })

  describe('with mediated devices alone', () => {
    test('looks neither at the memory nor at the range', async () => {
      const { container } = await ready(mtty)
      const map = { vaddr: 0x1000n, size: PAGE }

      expect(await mapDma(kernel, container, { ...map, iova: 0xfee0_0000n })).toBe(0)
      expect(await mapDma(kernel, container, { ...map, iova: 1n << 60n })).toBe(0)
    })

    unless(machine.isCompat, 'an ioas keeps it')(
      'loses the page that ends at 2^64: it can be mapped again and not unmapped',
      async () => {
        const { container } = await ready(mtty)
        const page = { vaddr: 0x1000n, iova: TOP - PAGE, size: PAGE }

        expect(await mapDma(kernel, container, page)).toBe(0)
        expect(await mapDma(kernel, container, page)).toBe(0)

        const { answer, size } = await unmapDma(kernel, container, { iova: page.iova, size: PAGE })
        expect({ answer, size }).toEqual({ answer: 0, size: 0n })
      },
    )
  })

  unless(true, 'it needs a process without CAP_IPC_LOCK; test/sim asks the simulator')(
    'refuses to pin more than RLIMIT_MEMLOCK: ENOMEM',
    async () => {},
  )
})
