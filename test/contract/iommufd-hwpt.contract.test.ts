/** iommufd.h: IOMMU_HWPT_*, IOMMU_GET_HW_INFO, on an IOMMU that neither nests nor tracks writes. */

import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import {
  IOMMU_FAULT_QUEUE_ALLOC,
  IOMMU_GET_HW_INFO,
  IOMMU_HW_INFO_TYPE_INTEL_VTD,
  IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17,
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_DATA_VTD_S1,
  IOMMU_HWPT_FAULT_ID_VALID,
  IOMMU_HWPT_GET_DIRTY_BITMAP,
  IOMMU_HWPT_INVALIDATE,
  IOMMU_HWPT_SET_DIRTY_TRACKING,
  iommu_fault_alloc,
  iommu_hw_info,
  iommu_hw_info_vtd,
  iommu_hwpt_get_dirty_bitmap,
  iommu_hwpt_invalidate,
  iommu_hwpt_set_dirty_tracking,
} from '../../src/abi/iommufd.ts'
import { said } from './answers.ts'
import { describeType1 } from './backends.ts'
import {
  attach,
  bound,
  boundAndAttached,
  detach,
  type Iommufd,
  openIommufd,
  PAGE,
} from './iommufd-calls.ts'

const BASE = 0x100_0000n

describeType1('it opens no container')('a hwpt', (machine) => {
  let edu = ''
  let other = ''
  let iommufd: Iommufd
  let ioas: number

  beforeAll(async () => {
    ;[edu, other] = await machine.edus()
  })

  beforeEach(async () => {
    iommufd = await openIommufd(machine)
    ioas = await iommufd.newIoas()
  })

  describe('IOMMU_HWPT_ALLOC (alloc_hwpt)', () => {
    test('makes page tables of an ioas, and keeps it in use', async () => {
      const { id } = await bound(machine, iommufd, edu)

      const first = await iommufd.hwpt({ dev_id: id, pt_id: ioas })
      const second = await iommufd.hwpt({ dev_id: id, pt_id: ioas })

      expect([first.answer, second.answer]).toEqual([0, 0])
      expect(first.out_hwpt_id).not.toBe(second.out_hwpt_id)
      expect((await iommufd.ranges(ioas)).count).toBe(1)
      expect(await iommufd.destroy(ioas)).toBe('EBUSY')
      expect(await iommufd.destroy(first.out_hwpt_id)).toBe(0)
      expect(await iommufd.destroy(second.out_hwpt_id)).toBe(0)
      expect(await iommufd.destroy(ioas)).toBe(0)
    })

    test('refuses a device that is none: ENOENT, and an id that nothing has: EINVAL', async () => {
      const { id } = await bound(machine, iommufd, edu)

      expect((await iommufd.hwpt({ dev_id: 0, pt_id: ioas })).answer).toBe('ENOENT')
      expect((await iommufd.hwpt({ dev_id: ioas, pt_id: ioas })).answer).toBe('ENOENT')
      expect((await iommufd.hwpt({ dev_id: id, pt_id: 0 })).answer).toBe('EINVAL')
      expect((await iommufd.hwpt({ dev_id: id, pt_id: id })).answer).toBe('EINVAL')
    })

    test('refuses flags and reserved bits it does not know: EOPNOTSUPP', async () => {
      const { id } = await bound(machine, iommufd, edu)
      const ask = async (values: object) =>
        (await iommufd.hwpt({ dev_id: id, pt_id: ioas, ...values })).answer

      expect(await ask({ flags: 0x8000_0000 })).toBe('EOPNOTSUPP')
      expect(await ask({ flags: 8 })).toBe('EOPNOTSUPP')
      expect(await ask({ __reserved: 1 })).toBe('EOPNOTSUPP')
      expect(await ask({ __reserved2: 1 })).toBe(0)
    })

    test('refuses what the IOMMU does not have: EOPNOTSUPP', async () => {
      const { id } = await bound(machine, iommufd, edu)
      const ask = async (flags: number) =>
        (await iommufd.hwpt({ dev_id: id, pt_id: ioas, flags })).answer

      expect(await ask(IOMMU_HWPT_ALLOC_DIRTY_TRACKING)).toBe('EOPNOTSUPP')
      expect(await ask(IOMMU_HWPT_ALLOC_NEST_PARENT)).toBe('EOPNOTSUPP')
      expect(await ask(IOMMU_HWPT_FAULT_ID_VALID)).toBe('EOPNOTSUPP')
    })

    test('refuses data without a type, and a type without data: EINVAL, before the ids', async () => {
      const { id } = await bound(machine, iommufd, edu)

      expect((await iommufd.hwpt({ dev_id: 0, data_len: 8 })).answer).toBe('EINVAL')
      expect((await iommufd.hwpt({ dev_id: 0, data_type: 1 })).answer).toBe('EINVAL')
      const withData = { data_type: IOMMU_HWPT_DATA_VTD_S1, data_len: 24 }
      expect((await iommufd.hwpt({ dev_id: id, pt_id: ioas, ...withData })).answer).toBe(
        'EOPNOTSUPP',
      )
    })

    test('nests only in a parent that was made for it: EINVAL (alloc_hwpt_nested)', async () => {
      const { id } = await bound(machine, iommufd, edu)
      const parent = (await iommufd.hwpt({ dev_id: id, pt_id: ioas })).out_hwpt_id
      const nested = { dev_id: id, pt_id: parent }
      const data = { data_type: IOMMU_HWPT_DATA_VTD_S1, data_len: 24 }

      expect((await iommufd.hwpt({ ...nested, ...data })).answer).toBe('EINVAL')
      expect((await iommufd.hwpt(nested)).answer).toBe('EOPNOTSUPP')
      const flags = IOMMU_HWPT_ALLOC_NEST_PARENT
      expect((await iommufd.hwpt({ ...nested, ...data, flags })).answer).toBe('EOPNOTSUPP')
    })

    test('fills the table at once: EFAULT, and there is none', async () => {
      await iommufd.mapAt(ioas, { iova: BASE, vaddr: 0x1000n, length: PAGE })
      const { id } = await bound(machine, iommufd, edu)

      expect((await iommufd.hwpt({ dev_id: id, pt_id: ioas })).answer).toBe('EFAULT')
      expect((await iommufd.ranges(ioas)).alignment).toBe(1n)
      expect(await iommufd.destroy(ioas)).toBe(0)
    })

    test('keeps devices out that are not in the aperture: EADDRINUSE', async () => {
      await iommufd.mapAt(ioas, { iova: 0x80_0000_0000n, vaddr: 0x1000n, length: PAGE })
      const { id } = await bound(machine, iommufd, edu)

      expect((await iommufd.hwpt({ dev_id: id, pt_id: ioas })).answer).toBe('EADDRINUSE')
    })

    test('checks a fault queue last: ENOENT for none', async () => {
      const { answer, out_fault_id, out_fault_fd } = await iommufd.ask(
        IOMMU_FAULT_QUEUE_ALLOC,
        iommu_fault_alloc,
        {},
      )
      expect(answer).toBe(0)
      machine.track(out_fault_fd)
      const bytes = new Uint8Array(4)
      expect(said(await machine.kernel.pread(out_fault_fd, bytes, 0n))).toBe('ESPIPE')
      expect(said(await machine.kernel.pwrite(out_fault_fd, bytes, 0n))).toBe('ESPIPE')
      const { id } = await bound(machine, iommufd, edu)
      const ask = { dev_id: id, pt_id: ioas, flags: IOMMU_HWPT_FAULT_ID_VALID }

      expect((await iommufd.hwpt({ ...ask, fault_id: out_fault_id })).answer).toBe('EOPNOTSUPP')
    })
  })

  describe('attaching (hwpt_attach, replace)', () => {
    test('uses the hwpt that is named, which stays when the device leaves', async () => {
      const { device, id } = await bound(machine, iommufd, edu)
      const hwpt = (await iommufd.hwpt({ dev_id: id, pt_id: ioas })).out_hwpt_id

      expect(await attach(machine, device, hwpt)).toEqual({ answer: 0, id: hwpt })
      expect(await iommufd.destroy(hwpt)).toBe('EBUSY')
      await detach(machine, device)
      expect(await iommufd.destroy(hwpt)).toBe(0)
    })

    test('never picks a hwpt that was made by hand for an ioas', async () => {
      const { device, id } = await bound(machine, iommufd, edu)
      const hwpt = (await iommufd.hwpt({ dev_id: id, pt_id: ioas })).out_hwpt_id

      const attached = await attach(machine, device, ioas)

      expect(attached.answer).toBe(0)
      expect(attached.id).not.toBe(hwpt)
    })

    test('goes from hwpt to hwpt to ioas, and the automatic one goes', async () => {
      const { device, id, hwpt: auto } = await boundAndAttached(machine, iommufd, edu, ioas)
      const one = (await iommufd.hwpt({ dev_id: id, pt_id: ioas })).out_hwpt_id
      const two = (await iommufd.hwpt({ dev_id: id, pt_id: ioas })).out_hwpt_id

      expect(await attach(machine, device, one)).toEqual({ answer: 0, id: one })
      expect(await iommufd.destroy(auto)).toBe('ENOENT')
      expect(await attach(machine, device, two)).toEqual({ answer: 0, id: two })
      expect(await iommufd.destroy(one)).toBe(0)
      const back = await attach(machine, device, ioas)
      expect(back.answer).toBe(0)
      expect(await iommufd.destroy(two)).toBe(0)
      expect(await iommufd.destroy(back.id)).toBe('EBUSY')
    })

    test('takes a hwpt that was made for another device', async () => {
      const first = await bound(machine, iommufd, edu)
      const second = await bound(machine, iommufd, other)
      const hwpt = (await iommufd.hwpt({ dev_id: first.id, pt_id: ioas })).out_hwpt_id

      expect((await attach(machine, first.device, hwpt)).answer).toBe(0)
      expect((await attach(machine, second.device, hwpt)).answer).toBe(0)
      await detach(machine, first.device)
      expect(await iommufd.destroy(hwpt)).toBe('EBUSY')
    })
  })

  describe('dirty tracking', () => {
    const SET = IOMMU_HWPT_SET_DIRTY_TRACKING
    const GET = IOMMU_HWPT_GET_DIRTY_BITMAP

    test('SET needs a hwpt that was made for it: ENOENT, EOPNOTSUPP', async () => {
      const { id, hwpt } = await boundAndAttached(machine, iommufd, edu, ioas)
      const set = async (hwpt_id: number, flags: number) =>
        (await iommufd.ask(SET, iommu_hwpt_set_dirty_tracking, { hwpt_id, flags })).answer

      expect(await set(0, 2)).toBe('EOPNOTSUPP')
      expect(await set(0, 1)).toBe('ENOENT')
      expect(await set(ioas, 1)).toBe('ENOENT')
      expect(await set(id, 1)).toBe('ENOENT')
      expect(await set(hwpt, 1)).toBe('EOPNOTSUPP')
      expect(await set(hwpt, 0)).toBe('EOPNOTSUPP')
    })

    test('GET checks the range before the hwpt can do it', async () => {
      const { hwpt } = await boundAndAttached(machine, iommufd, edu, ioas)
      const get = async (values: object) =>
        (
          await iommufd.ask(GET, iommu_hwpt_get_dirty_bitmap, {
            hwpt_id: hwpt,
            iova: BASE,
            length: PAGE,
            page_size: PAGE,
            ...values,
          })
        ).answer

      expect(await get({ flags: 2 })).toBe('EOPNOTSUPP')
      expect(await get({ __reserved: 1 })).toBe('EOPNOTSUPP')
      expect(await get({ hwpt_id: ioas })).toBe('ENOENT')
      expect(await get({ length: 0n })).toBe('EINVAL')
      expect(await get({ page_size: 0n })).toBe('EINVAL')
      expect(await get({ iova: BASE + 1n })).toBe('EINVAL')
      expect(await get({ length: PAGE + 1n })).toBe('EINVAL')
      expect(await get({ iova: BASE + PAGE, page_size: 2n * PAGE })).toBe('EINVAL')
      expect(await get({ iova: -PAGE, length: 2n * PAGE })).toBe('EOVERFLOW')
      expect(await get({})).toBe('EOPNOTSUPP')
    })
  })

  describe('IOMMU_HWPT_INVALIDATE', () => {
    const invalidate = async (values: object) => {
      const done = await iommufd.ask(IOMMU_HWPT_INVALIDATE, iommu_hwpt_invalidate, {
        entry_num: 3,
        ...values,
      })
      return { answer: done.answer, entries: done.entry_num }
    }

    test('refuses reserved bits: EOPNOTSUPP, and says that none was done', async () => {
      expect(await invalidate({ __reserved: 1 })).toEqual({ answer: 'EOPNOTSUPP', entries: 0 })
    })

    test('refuses entries that are nowhere, empty, large or too many: EINVAL', async () => {
      const ok = { data_uptr: 4096n, entry_len: 24, entry_num: 1 }
      const bad = { answer: 'EINVAL', entries: 0 }

      expect(await invalidate({ ...ok, data_uptr: 0n })).toEqual(bad)
      expect(await invalidate({ ...ok, entry_len: 0 })).toEqual(bad)
      expect(await invalidate({ ...ok, entry_len: 4097 })).toEqual(bad)
      expect(await invalidate({ ...ok, entry_num: 2 ** 19 + 1 })).toEqual(bad)
    })

    test('is for nested tables: ENOENT', async () => {
      const { hwpt } = await boundAndAttached(machine, iommufd, edu, ioas)
      const none = { answer: 'ENOENT', entries: 0 }

      expect(await invalidate({ hwpt_id: hwpt, entry_num: 0 })).toEqual(none)
      expect(await invalidate({ hwpt_id: ioas, entry_num: 0 })).toEqual(none)
    })
  })

  describe('IOMMU_GET_HW_INFO (get_hw_info)', () => {
    const info = async (dev_id: number, data_len: number, values: object = {}) => {
      const { segment } = await machine.memory(4096)
      segment.bytes.fill(0xa5)
      const got = await iommufd.ask(IOMMU_GET_HW_INFO, iommu_hw_info, {
        dev_id,
        data_len,
        data_uptr: segment.address,
        ...values,
      })
      return { ...got, bytes: segment.bytes }
    }

    test('is what the registers of a VT-d say', async () => {
      const { id } = await bound(machine, iommufd, edu)

      const { answer, data_len, out_data_type, out_capabilities, bytes } = await info(id, 24)

      expect({ answer, data_len, out_data_type, out_capabilities }).toEqual({
        answer: 0,
        data_len: 24,
        out_data_type: IOMMU_HW_INFO_TYPE_INTEL_VTD,
        out_capabilities: 0n,
      })
      expect(iommu_hw_info_vtd.decode(bytes)).toEqual({
        flags: IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17,
        __reserved: 0,
        cap_reg: 0xd2_008c_2226_0286n,
        ecap_reg: 0xf0_0f4an,
      })
      expect(bytes[24]).toBe(0xa5)
    })

    test('clears room that is left, and cuts what has no room', async () => {
      const { id } = await bound(machine, iommufd, edu)
      const long = await info(id, 32)
      const short = await info(id, 8)
      const none = await info(id, 0)

      expect([long.data_len, short.data_len, none.data_len]).toEqual([24, 24, 24])
      expect(long.bytes.subarray(24, 33)).toEqual(Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0xa5))
      expect(short.bytes.subarray(0, 10)).toEqual(Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0, 0xa5, 0xa5))
      expect(none.bytes[0]).toBe(0xa5)
    })

    test('refuses a device that is none: ENOENT, flags: EOPNOTSUPP, no memory: EFAULT', async () => {
      const { id } = await bound(machine, iommufd, edu)

      expect((await info(0, 24)).answer).toBe('ENOENT')
      expect((await info(ioas, 24)).answer).toBe('ENOENT')
      expect((await info(id, 24, { flags: 1 })).answer).toBe('EOPNOTSUPP')
      expect((await info(id, 24, { '__reserved[1]': 1 })).answer).toBe('EOPNOTSUPP')
      expect((await info(id, 24, { data_uptr: 0n })).answer).toBe('EFAULT')
    })
  })
})
