/** vfio.h: /dev/vfio/vfio, VFIO_CHECK_EXTENSION, VFIO_SET_IOMMU, VFIO_IOMMU_GET_INFO. */

import { beforeAll, describe, expect, test } from 'vitest'
import { capabilities } from '../../src/abi/caps.ts'
import {
  VFIO_DMA_CC_IOMMU,
  VFIO_EEH,
  VFIO_GET_API_VERSION,
  VFIO_IOMMU_DIRTY_PAGES,
  VFIO_IOMMU_ENABLE,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_INFO_CAPS,
  VFIO_IOMMU_INFO_PGSIZES,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
  VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION,
  VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_NOIOMMU_IOMMU,
  VFIO_SPAPR_TCE_IOMMU,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1_NESTING_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  VFIO_UNMAP_ALL,
  VFIO_UPDATE_VADDR,
  vfio_iommu_type1_info_cap_iova_range,
  vfio_iommu_type1_info_cap_migration,
  vfio_iommu_type1_info_dma_avail,
  vfio_iova_range,
} from '../../src/abi/container.ts'
import { VFIO_GROUP_UNSET_CONTAINER } from '../../src/abi/group.ts'
import { said } from './answers.ts'
import { describeType1 } from './backends.ts'
import { checkExtension, getInfo, mapDma, setContainer, setIommu, unmapDma } from './calls.ts'

const PAGE = 0x1000n
const VTD_RANGES = [
  [0n, 0xfedf_ffffn],
  [0xfef0_0000n, 0x7f_ffff_ffffn],
]

describeType1(
  'these are the rules of type1; iommufd-compat.contract.test.ts has those of an iommufd',
)('a container', (machine) => {
  const { kernel } = machine
  let edu = ''
  let other = ''
  let mtty = ''

  beforeAll(async () => {
    ;[edu, other] = await machine.edus()
    mtty = await machine.mtty('mtty-1', { forSuite: true })
  })

  const extensions = async (container: number, ids: readonly number[]): Promise<number[]> => {
    const answers: number[] = []
    for (const id of ids) answers.push(await checkExtension(kernel, container, id))
    return answers
  }

  describe('that is empty', () => {
    test('answers the API version', async () => {
      const container = await machine.container()

      expect(await kernel.ioctl(container, VFIO_GET_API_VERSION.number, undefined)).toBe(0)
    })

    test('refuses every other request, known or not: EINVAL', async () => {
      const container = await machine.container()
      const requests = [
        VFIO_IOMMU_GET_INFO.number,
        VFIO_IOMMU_MAP_DMA.number,
        VFIO_IOMMU_UNMAP_DMA.number,
        VFIO_IOMMU_DIRTY_PAGES.number,
        0x3bff,
      ]

      for (const request of requests)
        expect(said(await kernel.ioctl(container, request, new Uint8Array(64)))).toBe('EINVAL')
    })

    test('cannot be read: EINVAL', async () => {
      const container = await machine.container()
      const bytes = new Uint8Array(8)

      expect(said(await kernel.read(container, bytes))).toBe('EINVAL')
      expect(said(await kernel.pread(container, bytes, 0n))).toBe('EINVAL')
      expect(said(await kernel.pwrite(container, bytes, 0n))).toBe('EINVAL')
    })
  })

  describe('VFIO_CHECK_EXTENSION', () => {
    const known = [VFIO_TYPE1_IOMMU, VFIO_TYPE1v2_IOMMU, VFIO_TYPE1_NESTING_IOMMU, VFIO_UNMAP_ALL]

    test('knows type1 in its versions, and UNMAP_ALL, before any group', async () => {
      expect(await extensions(await machine.container(), known)).toEqual([1, 1, 1, 1])
    })

    test('has neither UPDATE_VADDR nor DMA_CC before SET_IOMMU', async () => {
      const ids = [VFIO_UPDATE_VADDR, VFIO_DMA_CC_IOMMU]

      expect(await extensions(await machine.container(), ids)).toEqual([0, 0])
    })

    test('has none that no backend knows', async () => {
      const ids = [0, VFIO_SPAPR_TCE_IOMMU, VFIO_EEH, VFIO_NOIOMMU_IOMMU, 11, 99]
      const { container } = await machine.attached([edu])

      expect(await extensions(container, ids)).toEqual([0, 0, 0, 0, 0, 0])
    })

    test('has UPDATE_VADDR with a group behind an IOMMU', async () => {
      const { container } = await machine.attached([edu])

      expect(await extensions(container, [VFIO_UPDATE_VADDR])).toEqual([1])
    })

    test('has no UPDATE_VADDR as soon as a mediated device is in the container', async () => {
      const { container } = await machine.attached([edu, mtty])

      expect(await extensions(container, [VFIO_UPDATE_VADDR])).toEqual([0])
    })

    test('DMA_CC holds for no IOMMU at all', async () => {
      const { container } = await machine.attached([mtty])

      expect(await extensions(container, [VFIO_DMA_CC_IOMMU])).toEqual([1])
    })
  })

  describe('VFIO_SET_IOMMU', () => {
    test('refuses a container without groups: EINVAL', async () => {
      const container = await machine.container()

      expect(said(await setIommu(kernel, container, VFIO_TYPE1v2_IOMMU))).toBe('EINVAL')
    })

    test.each([
      ['a backend that this kernel lacks', VFIO_SPAPR_TCE_IOMMU, 'ENODEV'],
      ['no-IOMMU for a group with one', VFIO_NOIOMMU_IOMMU, 'ENODEV'],
      ['an extension that needs a backend', VFIO_UPDATE_VADDR, 'ENODEV'],
      ['an extension that is no backend', VFIO_UNMAP_ALL, 'EINVAL'],
      ['a number that nobody knows', 99, 'ENODEV'],
    ])('refuses %s (%i): %s', async (_what, id, errno) => {
      const container = await machine.container()
      await setContainer(kernel, await machine.group(edu), container)

      expect(said(await setIommu(kernel, container, id))).toBe(errno)
    })

    test('gives a container its backend only when all of its groups take it', async () => {
      const container = await machine.container()
      for (const name of [mtty, edu])
        expect(await setContainer(kernel, await machine.group(name), container)).toBe(0)

      expect(said(await setIommu(kernel, container, VFIO_TYPE1_NESTING_IOMMU))).toBe('EINVAL')
      expect(await setIommu(kernel, container, VFIO_TYPE1v2_IOMMU)).toBe(0)
    })

    test('refuses a second time: EINVAL', async () => {
      const { container } = await machine.attached([edu])

      expect(said(await setIommu(kernel, container, VFIO_TYPE1v2_IOMMU))).toBe('EINVAL')
    })

    test('makes unknown requests unknown: ENOTTY', async () => {
      const { container } = await machine.attached([edu])

      expect(said(await kernel.ioctl(container, 0x3bff, undefined))).toBe('ENOTTY')
      expect(said(await kernel.ioctl(container, VFIO_IOMMU_ENABLE.number, undefined))).toBe(
        'ENOTTY',
      )
    })
  })

  describe('VFIO_IOMMU_GET_INFO', () => {
    const chain = async (container: number) => {
      const { bytes, info } = await getInfo(kernel, container)
      return { bytes, info, caps: [...capabilities(bytes, info.cap_offset)] }
    }

    const ranges = async (container: number): Promise<bigint[][] | undefined> => {
      const { bytes, caps } = await chain(container)
      const cap = caps.find(({ id }) => id === VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE)
      if (!cap) return undefined
      const { size } = vfio_iommu_type1_info_cap_iova_range
      const { nr_iovas } = vfio_iommu_type1_info_cap_iova_range.decode(bytes, cap.offset)
      return Array.from({ length: nr_iovas }, (_, index) => {
        const at = cap.offset + size + index * vfio_iova_range.size
        const { start, end } = vfio_iova_range.decode(bytes, at)
        return [start, end]
      })
    }

    test('tells page sizes and ranges of VT-d with 39 bits', async () => {
      const { container } = await machine.attached([edu])
      const { bytes, info, caps } = await chain(container)

      expect(info.flags).toBe(VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS)
      expect(info.iova_pgsizes).toBe(0x4020_1000n)
      expect(info.cap_offset).toBe(24)
      expect(caps).toEqual([
        { id: VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION, version: 1, offset: 24 },
        { id: VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, version: 1, offset: 56 },
        { id: VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, version: 1, offset: 72 },
      ])
      expect(vfio_iommu_type1_info_cap_migration.decode(bytes, 24)).toMatchObject({
        flags: 0,
        pgsize_bitmap: PAGE,
        max_dirty_bitmap_size: 0x1000_0000n,
      })
      expect(await ranges(container)).toEqual(VTD_RANGES)
    })

    test('says how much room the capabilities need, and leaves them out: 0', async () => {
      const { container } = await machine.attached([edu])

      const { answer, bytes, info } = await getInfo(kernel, container, 119, 120)

      expect(answer).toBe(0)
      expect(info).toMatchObject({ argsz: 120, cap_offset: 0, flags: 3 })
      expect(bytes.subarray(24).every((byte) => byte === 0)).toBe(true)
    })

    test('writes no more than a short argsz allows', async () => {
      const { container } = await machine.attached([edu])

      const { answer, info } = await getInfo(kernel, container, 16, 24)

      expect(answer).toBe(0)
      expect(info).toEqual({
        argsz: 120,
        flags: 3,
        iova_pgsizes: 0x4020_1000n,
        cap_offset: 0,
        pad: 0,
      })
    })

    test('refuses an argsz below 16: EINVAL', async () => {
      const { container } = await machine.attached([edu])

      expect(said((await getInfo(kernel, container, 15)).answer)).toBe('EINVAL')
    })

    test('counts the mappings that are left', async () => {
      const { container } = await machine.attached([edu])
      const { segment } = await machine.memory(0x1000)
      const avail = async (): Promise<number> =>
        vfio_iommu_type1_info_dma_avail.decode((await chain(container)).bytes, 56).avail
      const before = await avail()

      await mapDma(kernel, container, { vaddr: segment.address, iova: PAGE, size: PAGE })
      expect(await avail()).toBe(before - 1)

      await unmapDma(kernel, container, { iova: PAGE, size: PAGE })
      expect(await avail()).toBe(before)
    })

    test('reports every page size and no range for mediated devices alone', async () => {
      const { container } = await machine.attached([mtty])

      expect((await getInfo(kernel, container)).info.iova_pgsizes).toBe(0xffff_ffff_ffff_f000n)
      expect(await ranges(container)).toBeUndefined()
      expect((await chain(container)).caps.map(({ id }) => id)).toEqual([
        VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION,
        VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
      ])
    })

    test('narrows when a group with an IOMMU comes, and widens when it leaves', async () => {
      const { container } = await machine.attached([mtty])
      const group = await machine.group(edu)
      await setContainer(kernel, group, container)
      expect(await ranges(container)).toEqual(VTD_RANGES)

      await machine.close(group)

      expect(await ranges(container)).toEqual([[0n, 0xffff_ffff_ffff_ffffn]])
      expect((await getInfo(kernel, container)).info.iova_pgsizes).toBe(0xffff_ffff_ffff_f000n)
    })

    test('is the same for two groups behind one IOMMU', async () => {
      const { container } = await machine.attached([edu, other])

      expect(await ranges(container)).toEqual(VTD_RANGES)
    })
  })

  describe('attaching a group to a container with mappings', () => {
    test('refuses a mapping in its reserved region: EINVAL, and nothing changes', async () => {
      const { container } = await machine.attached([mtty])
      const { segment } = await machine.memory(0x1000)
      const map = { vaddr: segment.address, iova: 0xfee0_0000n, size: PAGE }
      expect(await mapDma(kernel, container, map)).toBe(0)

      const group = await machine.group(edu)
      expect(said(await setContainer(kernel, group, container))).toBe('EINVAL')

      expect(await ranges0(container)).toBe(true)
      await unmapDma(kernel, container, { iova: map.iova, size: PAGE })
      expect(await setContainer(kernel, group, container)).toBe(0)
    })

    test('refuses memory that is not there: EFAULT', async () => {
      const { container } = await machine.attached([mtty])
      expect(await mapDma(kernel, container, { vaddr: 0x1000n, iova: 0n, size: PAGE })).toBe(0)

      expect(said(await setContainer(kernel, await machine.group(edu), container))).toBe('EFAULT')
    })

    test('refuses a mapping above what its IOMMU reaches: EFAULT', async () => {
      const { container } = await machine.attached([mtty])
      const { segment } = await machine.memory(0x1000)
      await mapDma(kernel, container, { vaddr: segment.address, iova: 1n << 60n, size: PAGE })

      expect(said(await setContainer(kernel, await machine.group(edu), container))).toBe('EFAULT')
    })

    // Its ranges reach to 2^64 then, and before 6.18 a search that far finds nothing.
    test('refuses it no sooner after a group with an IOMMU left: EFAULT', async () => {
      const { container } = await machine.attached([mtty])
      const { segment } = await machine.memory(0x1000)
      const group = await machine.group(edu)
      await setContainer(kernel, group, container)
      await kernel.ioctl(group, VFIO_GROUP_UNSET_CONTAINER.number, undefined)
      await mapDma(kernel, container, { vaddr: segment.address, iova: 1n << 60n, size: PAGE })

      expect(said(await setContainer(kernel, group, container))).toBe('EFAULT')
    })

    const ranges0 = async (container: number): Promise<boolean> =>
      (await getInfo(kernel, container)).info.iova_pgsizes === 0xffff_ffff_ffff_f000n
  })
})
