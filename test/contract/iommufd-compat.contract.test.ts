/** vfio.h on an iommufd: the requests of a container, which act on an ioas. */

import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import {
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_GET_API_VERSION,
  VFIO_IOMMU_DIRTY_PAGES,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  vfio_iommu_type1_info_cap_iova_range,
  vfio_iommu_type1_info_dma_avail,
  vfio_iova_range,
} from '../../src/abi/container.ts'
import { VFIO_GROUP_UNSET_CONTAINER } from '../../src/abi/group.ts'
import {
  IOMMU_OPTION_HUGE_PAGES,
  IOMMU_VFIO_IOAS_CLEAR,
  IOMMU_VFIO_IOAS_GET,
  IOMMU_VFIO_IOAS_SET,
} from '../../src/abi/iommufd.ts'
import type { Segment } from '../../src/os/memory.ts'
import { must, said } from './answers.ts'
import { describeType1 } from './backends.ts'
import {
  checkExtension,
  dirtyPages,
  getDeviceFd,
  getDeviceInfo,
  getInfo,
  getStatus,
  mapDma,
  setContainer,
  setIommu,
  unmapDma,
} from './calls.ts'
import { EduDriver } from './edu-driver.ts'
import { type Iommufd, openIommufd, PAGE, U64_MAX } from './iommufd-calls.ts'

const BASE = 0x100_0000n

describeType1('it opens /dev/iommu in every mode')('an iommufd as a container', (machine) => {
  const { kernel } = machine
  let edu = ''
  let other = ''
  let iommufd: Iommufd
  let fd: number
  let memory: Segment

  beforeAll(async () => {
    ;[edu, other] = await machine.edus()
  })

  beforeEach(async () => {
    iommufd = await openIommufd(machine)
    fd = iommufd.fd
    memory = (await machine.memory(16 * 4096)).segment
  })

  const map = async (iova: bigint, size: bigint, more: object = {}) =>
    said(await mapDma(kernel, fd, { vaddr: memory.address, iova, size, ...more }))
  const unmap = async (iova: bigint, size: bigint, more: object = {}) => {
    const done = await unmapDma(kernel, fd, { iova, size, ...more })
    return { answer: said(done.answer), size: done.size }
  }
  /** A compat ioas without a device. */
  const setIoas = async (): Promise<number> => {
    const ioas = await iommufd.newIoas()
    await iommufd.vfioIoas(IOMMU_VFIO_IOAS_SET, ioas)
    return ioas
  }
  const setGroup = async (name: string): Promise<number> => {
    const group = await machine.group(name)
    must(await setContainer(kernel, group, fd), 'set the iommufd')
    return group
  }

  test('has the API version 0 (simple_ioctls)', async () => {
    expect(await kernel.ioctl(fd, VFIO_GET_API_VERSION.number, undefined)).toBe(0)
  })

  describe('VFIO_CHECK_EXTENSION', () => {
    test('knows both models and UNMAP_ALL, and no vaddr and no nesting', async () => {
      const answers: number[] = []
      for (const extension of [1, 2, 3, 5, 6, 7, 9, 10, 11])
        answers.push(await checkExtension(kernel, fd, extension))

      expect(answers).toEqual([1, 0, 1, 0, 0, 0, 1, 0, 0])
    })

    test('knows of noiommu where the kernel does', async () => {
      expect(await checkExtension(kernel, fd, 8)).toBe(1)
    })

    test('needs an ioas to report coherency: ENODEV', async () => {
      expect(said(await checkExtension(kernel, fd, 4))).toBe('ENODEV')
      await setIoas()
      expect(await checkExtension(kernel, fd, 4)).toBe(1)
    })

    test('is coherent until a page table is not', async () => {
      await machine.deviceOf(await setGroup(edu), edu)

      expect(await checkExtension(kernel, fd, 4)).toBe(0)
    })
  })

  describe('without an ioas', () => {
    test('VFIO_SET_IOMMU finds no device: ENODEV (set_iommu_cmd)', async () => {
      expect(said(await setIommu(kernel, fd, VFIO_TYPE1_IOMMU))).toBe('ENODEV')
      expect(said(await setIommu(kernel, fd, VFIO_TYPE1v2_IOMMU))).toBe('ENODEV')
      expect(said(await setIommu(kernel, fd, 6))).toBe('EINVAL')
    })

    test('maps check their arguments before: EINVAL, ENODEV (map_cmd, unmap_cmd, info_cmd)', async () => {
      expect(await map(BASE, PAGE, { argsz: 1 })).toBe('EINVAL')
      expect(await map(BASE, PAGE, { flags: 0x8000_0000 })).toBe('EINVAL')
      expect(await map(BASE, PAGE, { flags: 4 })).toBe('EINVAL')
      expect(await map(BASE, PAGE)).toBe('ENODEV')
      expect((await unmap(BASE, PAGE, { argsz: 1 })).answer).toBe('EINVAL')
      expect((await unmap(BASE, PAGE, { flags: 0x8000_0000 })).answer).toBe('EINVAL')
      expect((await unmap(BASE, PAGE, { flags: 1 })).answer).toBe('EINVAL')
      expect((await unmap(BASE, PAGE, { flags: 4 })).answer).toBe('EINVAL')
      expect((await unmap(BASE, PAGE)).answer).toBe('ENODEV')
      expect(said((await getInfo(kernel, fd, 1)).answer)).toBe('EINVAL')
      expect(said((await getInfo(kernel, fd)).answer)).toBe('ENODEV')
    })

    test('refuses no argument: EFAULT; DIRTY_PAGES: ENOTTY', async () => {
      for (const { number } of [VFIO_IOMMU_GET_INFO, VFIO_IOMMU_MAP_DMA, VFIO_IOMMU_UNMAP_DMA])
        expect(said(await kernel.ioctl(fd, number, undefined))).toBe('EFAULT')
      expect(said(await dirtyPages(kernel, fd, 1))).toBe('ENOTTY')
      expect(said(await kernel.ioctl(fd, VFIO_IOMMU_DIRTY_PAGES.number, undefined))).toBe('ENOTTY')
    })
  })

  describe('VFIO_SET_IOMMU', () => {
    test('may be repeated, and takes the two models only: EINVAL', async () => {
      await setIoas()

      expect(await setIommu(kernel, fd, VFIO_TYPE1v2_IOMMU)).toBe(0)
      expect(await setIommu(kernel, fd, VFIO_TYPE1v2_IOMMU)).toBe(0)
      for (const model of [0, 2, 4, 8, 9, 99])
        expect(said(await setIommu(kernel, fd, model))).toBe('EINVAL')
    })

    test('of v1 switches huge pages off (vfio_ioas_option)', async () => {
      const ioas = await setIoas()
      await setIommu(kernel, fd, VFIO_TYPE1v2_IOMMU)
      expect(await iommufd.option(IOMMU_OPTION_HUGE_PAGES, ioas)).toBe(1n)

      await setIommu(kernel, fd, VFIO_TYPE1_IOMMU)

      expect(await iommufd.option(IOMMU_OPTION_HUGE_PAGES, ioas)).toBe(0n)
    })
  })

  describe('VFIO_IOMMU_GET_INFO (get_info)', () => {
    test('has every capability that there is room for, whatever the room', async () => {
      await setIoas()
      const full = (await getInfo(kernel, fd, 72)).bytes

      for (let argsz = 16; argsz <= 80; argsz++) {
        const { answer, bytes, info } = await getInfo(kernel, fd, argsz)

        expect(answer).toBe(0)
        expect(info.argsz).toBe(72)
        expect(info.flags).toBe(3)
        expect(info.cap_offset).toBe(argsz >= 72 ? 24 : 0)
        expect(bytes.subarray(argsz).every((byte) => byte === 0)).toBe(true)
        if (argsz >= 72) expect(bytes).toEqual(full)
      }
    })

    test('has all page sizes, no limit and everything to map, without a device', async () => {
      await setIoas()
      const { bytes, info } = await getInfo(kernel, fd)

      expect(info.iova_pgsizes).toBe(0xffff_ffff_ffff_f000n)
      expect(vfio_iommu_type1_info_dma_avail.decode(bytes, 24)).toEqual({
        'header.id': 3,
        'header.version': 1,
        'header.next': 40,
        avail: 0xffff_ffff,
      })
      expect(vfio_iommu_type1_info_cap_iova_range.decode(bytes, 40)).toMatchObject({
        'header.id': 1,
        'header.next': 0,
        nr_iovas: 1,
      })
      expect(vfio_iova_range.decode(bytes, 56)).toEqual({ start: 0n, end: U64_MAX })
    })

    test('is cut as the room is', async () => {
      await setIoas()
      const sizes: number[] = []
      for (const argsz of [24, 35, 36, 39, 40, 55, 56, 71]) {
        const { bytes } = await getInfo(kernel, fd, argsz)
        sizes.push(bytes.subarray(24).findLastIndex((byte) => byte !== 0) + 1)
      }

      expect(sizes).toEqual([0, 0, 12, 12, 12, 12, 12, 12])
    })

    test('reports the ranges of a device', async () => {
      await machine.deviceOf(await setGroup(edu), edu)
      const { bytes, info } = await getInfo(kernel, fd)

      expect(info.argsz).toBe(88)
      expect(info.iova_pgsizes).toBe(0x4020_1000n)
      expect(vfio_iova_range.decode(bytes, 56)).toEqual({ start: 0n, end: 0xfedf_ffffn })
      expect(vfio_iova_range.decode(bytes, 72)).toEqual({
        start: 0xfef0_0000n,
        end: 0x7f_ffff_ffffn,
      })
      const part = (await getInfo(kernel, fd, 73)).bytes
      expect(vfio_iova_range.decode(part, 56).end).toBe(0xfedf_ffffn)
      expect(part.subarray(40, 56).every((byte) => byte === 0)).toBe(true)
    })
  })

  describe('VFIO_IOMMU_MAP_DMA and VFIO_IOMMU_UNMAP_DMA (map)', () => {
    test('map and unmap, and unmap nothing: 0 of 0', async () => {
      await setIoas()
      expect(await map(BASE, 4n * PAGE)).toBe(0)
      expect(await map(BASE, PAGE)).toBe('EEXIST')

      expect(await unmap(BASE, 4n * PAGE)).toEqual({ answer: 0, size: 4n * PAGE })
      expect(await unmap(BASE, 4n * PAGE)).toEqual({ answer: 0, size: 0n })
    })

    test('UNMAP_ALL takes everything, and no range with it: EINVAL', async () => {
      await setIoas()
      for (let page = 0n; page < 4n; page++) await map(BASE + page * PAGE, PAGE)
      const flags = VFIO_DMA_UNMAP_FLAG_ALL

      expect((await unmap(BASE, 0n, { flags })).answer).toBe('EINVAL')
      expect((await unmap(0n, PAGE, { flags })).answer).toBe('EINVAL')
      expect(await unmap(0n, 0n, { flags })).toEqual({ answer: 0, size: 4n * PAGE })
      expect(await unmap(0n, 0n, { flags })).toEqual({ answer: 0, size: 0n })
    })

    test('refuse what wraps: EOVERFLOW', async () => {
      await setIoas()

      expect(await map(-PAGE, 2n * PAGE)).toBe('EOVERFLOW')
      expect((await unmap(-PAGE, 2n * PAGE)).answer).toBe('EOVERFLOW')
      expect(await map(BASE, 0n)).toBe('EINVAL')
      expect((await unmap(BASE, 0n)).answer).toBe('EINVAL')
    })

    test('v2 refuses half of a mapping: ENOENT, and says what it removed before (huge_map)', async () => {
      await setIoas()
      await setIommu(kernel, fd, VFIO_TYPE1v2_IOMMU)
      await map(BASE, PAGE)
      await map(BASE + PAGE, 2n * PAGE)

      expect(await unmap(BASE, 2n * PAGE)).toEqual({ answer: 'ENOENT', size: PAGE })
      expect(await unmap(BASE + PAGE, 2n * PAGE)).toEqual({ answer: 0, size: 2n * PAGE })
    })

    test('v1 cuts mappings, each piece in any order (huge_map)', async () => {
      await setIoas()
      await setIommu(kernel, fd, VFIO_TYPE1_IOMMU)
      await map(BASE, 16n * PAGE)

      for (const page of [7n, 0n, 15n, 3n, 4n, 8n])
        expect(await unmap(BASE + page * PAGE, PAGE)).toEqual({ answer: 0, size: PAGE })
      expect(await unmap(BASE, 16n * PAGE)).toEqual({ answer: 0, size: 10n * PAGE })
    })

    test('v1 cuts at pages only: EINVAL', async () => {
      await setIoas()
      await setIommu(kernel, fd, VFIO_TYPE1_IOMMU)
      await map(BASE, 2n * PAGE)

      expect((await unmap(BASE, PAGE - 1n)).answer).toBe('EINVAL')
      expect(await unmap(BASE, 2n * PAGE)).toEqual({ answer: 0, size: 2n * PAGE })
    })

    test('v1 cuts what a device reaches', async () => {
      const group = await setGroup(edu)
      await setIommu(kernel, fd, VFIO_TYPE1_IOMMU)
      const device = await machine.deviceOf(group, edu)
      await map(BASE, 4n * PAGE)
      expect(await unmap(BASE + PAGE, PAGE)).toEqual({ answer: 0, size: PAGE })
      const driver = await new EduDriver(machine, device).enable()
      memory.bytes.fill(0x42, 0, 64)

      await driver.fetch(BASE, 64)
      await driver.store(BASE + PAGE, 64)
      await driver.store(BASE + 2n * PAGE, 64)

      expect(memory.bytes[4096]).toBe(0)
      expect(memory.bytes[2 * 4096]).toBe(0x42)
    })

    test('needs neither read nor write until a page table must have it: EINVAL', async () => {
      await setIoas()
      expect(await map(BASE, PAGE, { flags: 0 })).toBe(0)
      const group = await machine.group(edu)
      must(await setContainer(kernel, group, fd), 'set the iommufd')

      expect(said(await getDeviceFd(kernel, group, edu))).toBe('EINVAL')
      await unmap(BASE, PAGE)
      await machine.deviceOf(group, edu)
      expect(await map(BASE, PAGE, { flags: 0 })).toBe('EINVAL')
      expect(await map(BASE, PAGE, { flags: VFIO_DMA_MAP_FLAG_READ })).toBe(0)
    })
  })

  describe('VFIO_GROUP_SET_CONTAINER', () => {
    test('makes an ioas for the group, unless there is one', async () => {
      await setGroup(edu)
      const made = await iommufd.compatIoas()
      expect(made).toBe(1)

      await setGroup(other)

      expect(await iommufd.compatIoas()).toBe(made)
      expect(await iommufd.newIoas()).toBe(2)
    })

    test('refuses a second time: EINVAL', async () => {
      const group = await setGroup(edu)

      expect(said(await setContainer(kernel, group, fd))).toBe('EINVAL')
      expect(said(await setContainer(kernel, group, await machine.container()))).toBe('EINVAL')
    })

    test('is seen in the status, and undone', async () => {
      const group = await setGroup(edu)
      expect((await getStatus(kernel, group)).flags).toBe(3)

      expect(await kernel.ioctl(group, VFIO_GROUP_UNSET_CONTAINER.number, undefined)).toBe(0)

      expect((await getStatus(kernel, group)).flags).toBe(1)
      expect(said(await kernel.ioctl(group, VFIO_GROUP_UNSET_CONTAINER.number, undefined))).toBe(
        'EINVAL',
      )
    })

    test('is undone even while a device is open, which keeps the iommufd', async () => {
      const group = await setGroup(edu)
      const device = await machine.deviceOf(group, edu)

      expect(await kernel.ioctl(group, VFIO_GROUP_UNSET_CONTAINER.number, undefined)).toBe(0)

      expect((await getDeviceInfo(kernel, device)).answer).toBe(0)
      expect(said(await getDeviceFd(kernel, group, edu))).toBe('EINVAL')
      expect(await iommufd.destroy(await iommufd.compatIoas())).toBe('EBUSY')
      await machine.close(device)
      expect(await iommufd.destroy(await iommufd.compatIoas())).toBe(0)
    })
  })

  describe('VFIO_GROUP_GET_DEVICE_FD', () => {
    test('needs no VFIO_SET_IOMMU, and attaches to the ioas', async () => {
      const group = await setGroup(edu)
      const device = await machine.deviceOf(group, edu)
      await map(BASE, PAGE)
      const driver = await new EduDriver(machine, device).enable()
      memory.bytes.fill(0x17, 0, 64)

      await driver.fetch(BASE, 64)
      await driver.store(BASE + 64n, 64)

      expect(memory.bytes.subarray(64, 128)).toEqual(new Uint8Array(64).fill(0x17))
    })

    test('opens the same device as often as one likes', async () => {
      const group = await setGroup(edu)
      const first = await machine.deviceOf(group, edu)
      const second = await machine.deviceOf(group, edu)
      await machine.close(first)

      expect((await getDeviceInfo(kernel, second)).answer).toBe(0)
    })

    test('needs an ioas: ENODEV', async () => {
      const group = await setGroup(edu)
      await iommufd.vfioIoas(IOMMU_VFIO_IOAS_CLEAR)

      expect(said(await getDeviceFd(kernel, group, edu))).toBe('ENODEV')
      expect((await iommufd.vfioIoas(IOMMU_VFIO_IOAS_GET)).answer).toBe('ENODEV')
    })

    test('refuses where a kernel driver has a device of the group: EPERM', async () => {
      const { free } = await machine.spoiledGroup()
      await machine.bind(free)
      const group = await setGroup(free)

      expect(said(await getDeviceFd(kernel, group, free))).toBe('EPERM')

      await machine.close(group)
      await machine.unbind(free)
    })

    test('needs the memory to be there: EFAULT', async () => {
      const group = await setGroup(edu)
      await map(BASE, PAGE, { vaddr: 0x1000n })

      expect(said(await getDeviceFd(kernel, group, edu))).toBe('EFAULT')
      await unmap(BASE, PAGE)
      expect(await machine.deviceOf(group, edu)).toBeGreaterThanOrEqual(0)
    })
  })
})
