/**
 * iommufd.h: IOMMU_IOAS_*. The same rules hold for an ioas that no device is attached to, and with
 * one and two page tables; where they differ, the test says which it is about.
 */

import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import {
  IOMMU_IOAS_ALLOW_IOVAS,
  IOMMU_IOAS_IOVA_RANGES,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  IOMMU_OPTION_HUGE_PAGES,
  iommu_ioas_allow_iovas,
  iommu_ioas_iova_ranges,
} from '../../src/abi/iommufd.ts'
import type { Segment } from '../../src/os/memory.ts'
import { describeType1 } from './backends.ts'
import {
  attach,
  bound,
  boundAndAttached,
  FIXED,
  type Iommufd,
  openIommufd,
  PAGE,
  RW,
  U64_MAX,
} from './iommufd-calls.ts'

const BASE = 0x100_0000n
/** What the IOMMU keeps for interrupts. */
const MSI_FIRST = 0xfee0_0000n
const MSI_LAST = 0xfeef_ffffn
/** So much is left below it when all before it is full, and more does not fit. */
const LARGE = 0x400_0000n
/** Below the lowest address that a process can map (vm.mmap_min_addr), at a multiple of 8 pages. */
const NOWHERE = 8n * PAGE

const VARIANTS = [
  { name: 'without a page table', tables: 0 },
  { name: 'with one page table', tables: 1 },
  { name: 'with two page tables', tables: 2 },
] as const

for (const { name, tables } of VARIANTS) {
  describeType1('it opens no container')(`an ioas ${name}`, (machine) => {
    let edus: readonly string[]
    let iommufd: Iommufd
    let ioas: number
    let memory: Segment

    beforeAll(async () => {
      edus = await machine.edus()
    })

    beforeEach(async () => {
      iommufd = await openIommufd(machine)
      ioas = await iommufd.newIoas()
      if (tables > 0) {
        const { id } = await boundAndAttached(machine, iommufd, edus[0] ?? '', ioas)
        for (let more = 1; more < tables; more++)
          expect((await iommufd.hwpt({ dev_id: id, pt_id: ioas })).answer).toBe(0)
      }
      memory = (await machine.memory(64 * 4096)).segment
    })

    const mapAt = (iova: bigint, length: bigint, vaddr = memory.address as bigint) =>
      iommufd.mapAt(ioas, { iova, vaddr, length })

    describe('IOMMU_DESTROY', () => {
      test('needs it to have no page table: EBUSY (ioas_destroy)', async () => {
        expect(await iommufd.destroy(ioas)).toBe(tables === 0 ? 0 : 'EBUSY')
      })

      test('takes its mappings with it (ioas_area_destroy)', async () => {
        await mapAt(BASE, PAGE)

        expect(await iommufd.destroy(ioas)).toBe(tables === 0 ? 0 : 'EBUSY')
      })

      test('is not needed: closing takes everything (ioas_auto_destroy, ioas_area_auto_destroy)', async () => {
        for (let page = 0n; page < 10n; page++)
          expect(await mapAt(BASE + page * PAGE, PAGE)).toBe(0)

        expect(await machine.close(iommufd.fd)).toBe(0)
      })
    })

    describe('IOMMU_IOAS_MAP', () => {
      const map = async (values: Parameters<Iommufd['map']>[0]) =>
        (
          await iommufd.map({
            ioas_id: ioas,
            user_va: memory.address,
            length: PAGE,
            iova: BASE,
            flags: FIXED,
            ...values,
          })
        ).answer

      test('refuses flags and reserved bits it does not know: EOPNOTSUPP', async () => {
        expect(await map({ flags: 8 | RW })).toBe('EOPNOTSUPP')
        expect(await map({ __reserved: 1 })).toBe('EOPNOTSUPP')
      })

      test('refuses an iova or length of 2^64-1: EOVERFLOW, before all else', async () => {
        expect(await map({ iova: U64_MAX, flags: 0, ioas_id: 0 })).toBe('EOVERFLOW')
        expect(await map({ length: U64_MAX, flags: 0, ioas_id: 0 })).toBe('EOVERFLOW')
      })

      test('refuses neither READABLE nor WRITEABLE: EINVAL, before the id', async () => {
        expect(await map({ flags: IOMMU_IOAS_MAP_FIXED_IOVA, ioas_id: 0 })).toBe('EINVAL')
      })

      test('refuses an id that is not an ioas: ENOENT, before the length', async () => {
        expect(await map({ ioas_id: 0, length: 0n })).toBe('ENOENT')
        expect(await map({ ioas_id: 0xffff, length: 0n })).toBe('ENOENT')
      })

      test('refuses a length of 0: EINVAL', async () => {
        expect(await map({ length: 0n })).toBe('EINVAL')
        expect(await map({ length: 0n, flags: RW })).toBe('EINVAL')
      })

      test('refuses memory that wraps: EOVERFLOW', async () => {
        expect(await map({ user_va: -PAGE, length: 2n * PAGE })).toBe('EOVERFLOW')
        expect(await map({ user_va: -PAGE, length: PAGE })).toBe('EOVERFLOW')
      })

      test('refuses an iova that wraps: EOVERFLOW', async () => {
        expect(await map({ iova: -PAGE, length: 2n * PAGE })).toBe('EOVERFLOW')
      })

      test('takes READABLE alone and WRITEABLE alone', async () => {
        expect(await map({ flags: IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE })).toBe(0)
        expect(
          await map({
            flags: IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_WRITEABLE,
            iova: BASE + PAGE,
          }),
        ).toBe(0)
      })

      test('refuses what overlaps in any way: EEXIST (area)', async () => {
        expect(await mapAt(BASE, 4n * PAGE)).toBe(0)

        expect(await mapAt(BASE, 4n * PAGE)).toBe('EEXIST')
        expect(await mapAt(BASE + PAGE, PAGE)).toBe('EEXIST')
        expect(await mapAt(BASE - PAGE, 2n * PAGE)).toBe('EEXIST')
        expect(await mapAt(BASE + 3n * PAGE, 2n * PAGE)).toBe('EEXIST')
        expect(await mapAt(BASE - PAGE, 6n * PAGE)).toBe('EEXIST')
        expect(await mapAt(BASE - PAGE, PAGE)).toBe(0)
        expect(await mapAt(BASE + 4n * PAGE, PAGE)).toBe(0)
      })

      test('maps the same memory as often as one likes', async () => {
        for (let times = 0n; times < 3n; times++)
          expect(await mapAt(BASE + times * PAGE, PAGE)).toBe(0)
      })

      test('needs multiples of the alignment: EINVAL with a page table, else of nothing', async () => {
        const answer = tables === 0 ? 0 : 'EINVAL'

        expect(await map({ iova: BASE + 1n })).toBe(answer)
        expect(await map({ iova: BASE + 0x10000n, length: 3n })).toBe(answer)
        expect(await map({ iova: BASE + 0x20000n, user_va: (memory.address as bigint) + 3n })).toBe(
          answer,
        )
      })

      test('needs memory that is there: EFAULT with a page table, else it is not looked at', async () => {
        const answer = tables === 0 ? 0 : 'EFAULT'

        expect(await map({ user_va: 0x1000n })).toBe(answer)
        expect((await iommufd.unmapAll(ioas)).length).toBe(tables === 0 ? PAGE : 0n)
      })

      test('needs writable memory for WRITEABLE: EFAULT with a page table', async () => {
        const { fd } = await machine.memory(4096)
        const readOnly = await machine.mapped(fd, 4096, 'read')
        const user_va = readOnly.address

        expect(await map({ user_va })).toBe(tables === 0 ? 0 : 'EFAULT')
        expect(
          await map({
            user_va,
            iova: BASE + PAGE,
            flags: IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE,
          }),
        ).toBe(0)
      })

      test('maps the last page of the address space, where the IOMMU reaches it', async () => {
        expect(await mapAt(-PAGE & U64_MAX, PAGE)).toBe(tables === 0 ? 0 : 'EINVAL')
      })
    })

    describe('IOMMU_IOAS_MAP without FIXED_IOVA', () => {
      const auto = (length: bigint, user_va: bigint = memory.address) =>
        iommufd.map({ ioas_id: ioas, user_va, length, iova: 0x55n })

      test('starts at the second page and goes up (area_auto_iova)', async () => {
        const iovas: bigint[] = []
        for (let times = 0; times < 3; times++) iovas.push((await auto(PAGE)).iova)

        expect(iovas).toEqual([PAGE, 2n * PAGE, 3n * PAGE])
      })

      test('aligns to the length, but no more than the memory is', async () => {
        const found: bigint[] = []
        for (const pages of [1n, 2n, 3n, 4n, 5n, 8n]) {
          const { answer, iova } = await auto(pages * PAGE, NOWHERE)
          found.push(answer === 0 ? iova : -1n)
        }

        // Only a page table finds out that there is nothing.
        expect(found).toEqual(
          tables === 0
            ? [0x1000n, 0x2000n, 0x4000n, 0x8000n, 0x10000n, 0x18000n]
            : [-1n, -1n, -1n, -1n, -1n, -1n],
        )
      })

      test('fills holes from below', async () => {
        for (let page = 1n; page <= 4n; page++) await mapAt(page * PAGE, PAGE)
        await iommufd.unmap(ioas, 2n * PAGE, PAGE)

        expect((await auto(PAGE)).iova).toBe(2n * PAGE)
        expect((await auto(PAGE)).iova).toBe(5n * PAGE)
      })

      test('keeps the offset into the page, where there is no alignment', async () => {
        const { answer, iova } = await auto(3n, (memory.address as bigint) + 3n)

        expect(answer).toBe(tables === 0 ? 0 : 'EINVAL')
        if (tables === 0) expect(iova).toBe(0x1003n)
      })

      test('stays inside what is allowed', async () => {
        const allowed = { start: 0x20_0000n, last: 0x20_3fffn }
        expect(await iommufd.allow(ioas, [allowed])).toBe(0)

        expect((await auto(2n * PAGE)).iova).toBe(0x20_0000n)
        expect((await auto(2n * PAGE)).iova).toBe(0x20_2000n)
        expect((await auto(PAGE)).answer).toBe('ENOSPC')
        expect(await mapAt(BASE, PAGE)).toBe(0)
      })

      test('refuses half the address space: EOVERFLOW', async () => {
        const { answer } = await auto(1n << 63n, 0x1000n)

        expect(answer).toBe('EOVERFLOW')
      })

      test('never touches a reserved range', async () => {
        const allowed = { start: 0xfede_f000n, last: 0xfeff_ffffn }
        const refused = await iommufd.allow(ioas, [allowed])

        // The window of message interrupts, as soon as a device is there.
        expect(refused).toBe(tables === 0 ? 0 : 'EADDRINUSE')
      })
    })

    describe('IOMMU_IOAS_UNMAP', () => {
      test('refuses an id that is not an ioas: ENOENT', async () => {
        expect((await iommufd.unmapAll(0)).answer).toBe('ENOENT')
      })

      test('refuses a length of 0 and what is out of range: EINVAL, EOVERFLOW', async () => {
        expect((await iommufd.unmap(ioas, BASE, 0n)).answer).toBe('EINVAL')
        expect((await iommufd.unmap(ioas, BASE, U64_MAX)).answer).toBe('EOVERFLOW')
        expect((await iommufd.unmap(ioas, U64_MAX, PAGE)).answer).toBe('EOVERFLOW')
        expect((await iommufd.unmap(ioas, -PAGE, 2n * PAGE)).answer).toBe('EOVERFLOW')
      })

      test('refuses a range with nothing in it: ENOENT (area)', async () => {
        expect(await iommufd.unmap(ioas, BASE, PAGE)).toEqual({ answer: 'ENOENT', length: PAGE })
      })

      test('refuses half of an area: ENOENT (area)', async () => {
        await mapAt(BASE, 2n * PAGE)

        expect((await iommufd.unmap(ioas, BASE, PAGE)).answer).toBe('ENOENT')
        expect((await iommufd.unmap(ioas, BASE + PAGE, PAGE)).answer).toBe('ENOENT')
        expect(await iommufd.unmap(ioas, BASE, 2n * PAGE)).toEqual({ answer: 0, length: 2n * PAGE })
      })

      test('has removed what came before the half: ENOENT, and the length stays', async () => {
        await mapAt(BASE, PAGE)
        await mapAt(BASE + PAGE, 2n * PAGE)

        const half = await iommufd.unmap(ioas, BASE, 2n * PAGE)

        expect(half).toEqual({ answer: 'ENOENT', length: 2n * PAGE })
        expect(await mapAt(BASE, PAGE)).toBe(0)
        expect(await mapAt(BASE + PAGE, PAGE)).toBe('EEXIST')
      })

      test('takes whole areas with the holes between (unmap_fully_contained_areas)', async () => {
        for (let area = 0n; area < 4n; area++) await mapAt(BASE + area * 16n * PAGE, 8n * PAGE)
        const inside = await iommufd.unmap(ioas, BASE + 4n * PAGE, 52n * PAGE)

        expect(inside.answer).toBe('ENOENT')
        expect(await iommufd.unmap(ioas, BASE - PAGE, 58n * PAGE)).toEqual({
          answer: 0,
          length: 32n * PAGE,
        })
      })

      test('takes everything, and nothing, from 0 to 2^64-1', async () => {
        for (let area = 0n; area < 10n; area++) await mapAt(BASE + area * PAGE, PAGE)

        expect(await iommufd.unmapAll(ioas)).toEqual({ answer: 0, length: 10n * PAGE })
        expect(await iommufd.unmapAll(ioas)).toEqual({ answer: 0, length: 0n })
      })
    })

    describe('IOMMU_IOAS_COPY', () => {
      const copy = (values: Parameters<Iommufd['copy']>[0]) =>
        iommufd.copy({
          dst_ioas_id: ioas,
          src_ioas_id: ioas,
          flags: FIXED,
          length: PAGE,
          src_iova: BASE,
          dst_iova: BASE + 0x10_0000n,
          ...values,
        })

      test('copies within an ioas and to another one (copy_area)', async () => {
        await mapAt(BASE, PAGE)
        const other = await iommufd.newIoas()

        expect((await copy({})).answer).toBe(0)
        expect(await copy({ dst_ioas_id: other, flags: RW })).toMatchObject({
          answer: 0,
          dst_iova: PAGE,
        })
      })

      test('outlives the original', async () => {
        await mapAt(BASE, PAGE)
        await copy({})

        expect((await iommufd.unmap(ioas, BASE, PAGE)).answer).toBe(0)
        expect((await iommufd.unmap(ioas, BASE + 0x10_0000n, PAGE)).length).toBe(PAGE)
      })

      test('makes an area of each that it spans', async () => {
        for (let page = 0n; page < 3n; page++) await mapAt(BASE + page * 2n * PAGE, 2n * PAGE)
        await copy({ src_iova: BASE + PAGE, length: 4n * PAGE })
        const to = BASE + 0x10_0000n

        expect((await iommufd.unmap(ioas, to, PAGE)).length).toBe(PAGE)
        expect((await iommufd.unmap(ioas, to + PAGE, 2n * PAGE)).length).toBe(2n * PAGE)
        expect((await iommufd.unmap(ioas, to + 3n * PAGE, PAGE)).length).toBe(PAGE)
      })

      test('needs a source without a hole: ENOENT (copy_sweep)', async () => {
        await mapAt(BASE, 2n * PAGE)
        await mapAt(BASE + 3n * PAGE, PAGE)

        for (const [start, pages] of [
          [-1n, 1n],
          [-1n, 2n],
          [1n, 2n],
          [0n, 4n],
          [2n, 1n],
          [3n, 2n],
        ] as const)
          expect((await copy({ src_iova: BASE + start * PAGE, length: pages * PAGE })).answer).toBe(
            'ENOENT',
          )
        expect((await copy({ src_iova: BASE + PAGE })).answer).toBe(0)
      })

      test('refuses a destination that is in use: EEXIST', async () => {
        await mapAt(BASE, PAGE)

        expect((await copy({ dst_iova: BASE })).answer).toBe('EEXIST')
      })

      test('refuses WRITEABLE from what is not: EPERM', async () => {
        const flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE
        await iommufd.map({
          flags,
          ioas_id: ioas,
          iova: BASE,
          user_va: memory.address,
          length: PAGE,
        })

        expect((await copy({})).answer).toBe('EPERM')
        expect((await copy({ flags })).answer).toBe(0)
      })

      test('checks as IOMMU_IOAS_MAP does', async () => {
        expect((await copy({ flags: 8 | RW })).answer).toBe('EOPNOTSUPP')
        expect((await copy({ flags: IOMMU_IOAS_MAP_FIXED_IOVA })).answer).toBe('EINVAL')
        expect((await copy({ src_iova: U64_MAX, flags: 0 })).answer).toBe('EOVERFLOW')
        expect((await copy({ src_ioas_id: 0, length: 0n })).answer).toBe('ENOENT')
        expect((await copy({ length: 0n })).answer).toBe('EINVAL')
        expect((await copy({ dst_ioas_id: 0 })).answer).toBe('ENOENT')
        expect((await copy({ src_iova: -PAGE, length: 2n * PAGE })).answer).toBe('EOVERFLOW')
      })
    })

    describe('IOMMU_IOAS_IOVA_RANGES (iova_ranges)', () => {
      test('is everything at alignment 1, or what aperture and reserved regions leave', async () => {
        const { answer, count, alignment, ranges } = await iommufd.ranges(ioas)

        expect({ answer, count, alignment, ranges }).toEqual(
          tables === 0
            ? { answer: 0, count: 1, alignment: 1n, ranges: [{ start: 0n, last: U64_MAX }] }
            : {
                answer: 0,
                count: 2,
                alignment: PAGE,
                ranges: [
                  { start: 0n, last: 0xfedf_ffffn },
                  { start: 0xfef0_0000n, last: 0x7f_ffff_ffffn },
                ],
              },
        )
      })

      test('says how many there are where there is no room: EMSGSIZE', async () => {
        const { answer, count, ranges } = await iommufd.ranges(ioas, 0)

        expect(answer).toBe('EMSGSIZE')
        expect(count).toBe(tables === 0 ? 1 : 2)
        expect(ranges[0]?.start).toBe(0xa5a5_a5a5_a5a5_a5a5n)
      })

      test('fills what there is room for: EMSGSIZE', async () => {
        const { answer, count, ranges } = await iommufd.ranges(ioas, 1)

        expect(answer).toBe(tables === 0 ? 0 : 'EMSGSIZE')
        expect(ranges[0]?.start).toBe(0n)
        if (count > 1) expect(ranges[1]?.start).toBe(0xa5a5_a5a5_a5a5_a5a5n)
      })

      test('refuses an id that is not an ioas, reserved bits, and memory that is not there', async () => {
        const ask = async (values: object) =>
          (await iommufd.ask(IOMMU_IOAS_IOVA_RANGES, iommu_ioas_iova_ranges, values)).answer

        expect(await ask({ ioas_id: 0 })).toBe('ENOENT')
        expect(await ask({ ioas_id: ioas, __reserved: 1 })).toBe('EOPNOTSUPP')
        expect(await ask({ ioas_id: ioas, num_iovas: 1 })).toBe('EFAULT')
      })
    })

    describe('IOMMU_IOAS_ALLOW_IOVAS', () => {
      test('refuses a range that ends where it starts, or before: EINVAL', async () => {
        expect(await iommufd.allow(ioas, [{ start: PAGE, last: PAGE }])).toBe('EINVAL')
        expect(await iommufd.allow(ioas, [{ start: PAGE, last: 0n }])).toBe('EINVAL')
      })

      test('refuses ranges that overlap: EINVAL', async () => {
        const first = { start: 0n, last: 2n * PAGE }

        expect(await iommufd.allow(ioas, [first, { start: PAGE, last: 3n * PAGE }])).toBe('EINVAL')
      })

      test('replaces the ranges there were, and none clears them (area_allowed)', async () => {
        await iommufd.allow(ioas, [{ start: BASE, last: BASE + PAGE - 1n }])
        await iommufd.allow(ioas, [{ start: 2n * BASE, last: 2n * BASE + PAGE - 1n }])
        const auto = async () =>
          (await iommufd.map({ ioas_id: ioas, user_va: memory.address, length: PAGE })).iova

        expect(await auto()).toBe(2n * BASE)
        expect(await iommufd.allow(ioas, [])).toBe(0)
        expect(await auto()).toBe(PAGE)
      })

      test('refuses an id that is not an ioas, reserved bits, and memory that is not there', async () => {
        const ask = async (values: object) =>
          (await iommufd.ask(IOMMU_IOAS_ALLOW_IOVAS, iommu_ioas_allow_iovas, values)).answer

        expect(await ask({ ioas_id: 0 })).toBe('ENOENT')
        expect(await ask({ ioas_id: ioas, __reserved: 1 })).toBe('EOPNOTSUPP')
        expect(await ask({ ioas_id: ioas, num_iovas: 1 })).toBe('EFAULT')
      })
    })

    describe('HUGE_PAGES (ioas_option_huge_pages)', () => {
      test('is 1, and can be set to 0 and 1 while nothing is mapped', async () => {
        expect(await iommufd.option(IOMMU_OPTION_HUGE_PAGES, ioas)).toBe(1n)
        expect(await iommufd.setHugePages(ioas, 0n)).toBe(0)
        expect(await iommufd.option(IOMMU_OPTION_HUGE_PAGES, ioas)).toBe(0n)
        expect(await iommufd.setHugePages(ioas, 2n)).toBe('EINVAL')
        expect(await iommufd.setHugePages(ioas, 1n)).toBe(0)
      })

      test('cannot be set to 0 once a page table has areas: EINVAL', async () => {
        await mapAt(BASE, PAGE)

        expect(await iommufd.setHugePages(ioas, 0n)).toBe(tables === 0 ? 0 : 'EINVAL')
        expect(await iommufd.setHugePages(ioas, 1n)).toBe(0)
      })

      test('0 makes pages the alignment: EINVAL, EADDRINUSE (ioas_align_change)', async () => {
        expect(await iommufd.setHugePages(ioas, 0n)).toBe(0)
        expect((await iommufd.ranges(ioas)).alignment).toBe(PAGE)
        expect(await mapAt(BASE, PAGE, (memory.address as bigint) + 2048n)).toBe('EINVAL')
        expect(await iommufd.setHugePages(ioas, 1n)).toBe(0)

        const misaligned = await mapAt(BASE, PAGE, (memory.address as bigint) + 2048n)
        expect(misaligned).toBe(tables === 0 ? 0 : 'EINVAL')
        expect(await iommufd.setHugePages(ioas, 0n)).toBe(tables === 0 ? 'EADDRINUSE' : 0)
      })
    })

    if (tables === 0) {
      describe('a device that is attached later', () => {
        const edu = () => bound(machine, iommufd, edus[0] ?? '')

        test('needs areas of whole pages: EADDRINUSE', async () => {
          await mapAt(BASE + 1n, PAGE)
          const { device } = await edu()

          expect((await attach(machine, device, ioas)).answer).toBe('EADDRINUSE')
        })

        test('needs its reserved regions and what it cannot reach to be free: EADDRINUSE', async () => {
          const { device } = await edu()
          await mapAt(0xfee0_0000n, PAGE)
          expect((await attach(machine, device, ioas)).answer).toBe('EADDRINUSE')
          await iommufd.unmapAll(ioas)
          await mapAt(0x80_0000_0000n, PAGE)
          expect((await attach(machine, device, ioas)).answer).toBe('EADDRINUSE')
          await iommufd.unmapAll(ioas)

          expect((await attach(machine, device, ioas)).answer).toBe(0)
        })

        test('needs its reserved regions not to be allowed: EADDRINUSE (area_allowed)', async () => {
          await iommufd.allow(ioas, [{ start: 0xfee0_0000n, last: 0xfee0_ffffn }])
          const { device } = await edu()

          expect((await attach(machine, device, ioas)).answer).toBe('EADDRINUSE')
          await iommufd.allow(ioas, [])
          expect((await attach(machine, device, ioas)).answer).toBe(0)
        })

        test('needs the memory to be there: EFAULT, and nothing is attached', async () => {
          await mapAt(BASE, PAGE, 0x1000n)
          const { device } = await edu()

          expect((await attach(machine, device, ioas)).answer).toBe('EFAULT')
          expect((await iommufd.ranges(ioas)).count).toBe(1)
          expect(await iommufd.destroy(ioas)).toBe(0)
        })
      })
    }

    test.skipIf(tables !== 1)('maps around what a device has reserved', async () => {
      const { segment } = await machine.memory(Number(LARGE))
      const large = { ioas_id: ioas, user_va: segment.address, length: LARGE }
      expect((await iommufd.map({ ...large, flags: FIXED, iova: 0n })).answer).toBe(0)
      const copy = { src_ioas_id: ioas, dst_ioas_id: ioas, src_iova: 0n, length: LARGE }
      for (let iova = LARGE; iova + LARGE <= MSI_FIRST; iova += LARGE)
        expect((await iommufd.copy({ ...copy, flags: FIXED, dst_iova: iova })).answer).toBe(0)

      const after = [await iommufd.map(large), await iommufd.map(large)]

      // Where exactly depends on how the memory is aligned.
      const [first, second] = after.map(({ iova }) => iova) as [bigint, bigint]
      expect(after.map(({ answer }) => answer)).toEqual([0, 0])
      expect(first).toBeGreaterThan(MSI_LAST)
      expect(second).toBeGreaterThanOrEqual(first + LARGE)
    })
  })
}
