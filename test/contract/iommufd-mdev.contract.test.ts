/** A mediated device in an iommufd: no IOMMU stands behind it, so there is no hwpt either. */

import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { IOMMU_GET_HW_INFO, iommu_hw_info } from '../../src/abi/iommufd.ts'
import { describeType1 } from './backends.ts'
import { getDeviceInfo } from './calls.ts'
import {
  attach,
  bound,
  boundAndAttached,
  detach,
  type Iommufd,
  openIommufd,
  PAGE,
  U64_MAX,
} from './iommufd-calls.ts'

const BASE = 0x100_0000n

describeType1('it opens no container')('a mediated device', (machine) => {
  let mtty = ''
  let iommufd: Iommufd
  let ioas: number

  beforeAll(async () => {
    mtty = await machine.mtty('mtty-2', { forSuite: true })
  })

  beforeEach(async () => {
    iommufd = await openIommufd(machine)
    ioas = await iommufd.newIoas()
  })

  test('is bound and answers', async () => {
    const { device, id } = await bound(machine, iommufd, mtty)

    expect(id).toBe(2)
    expect((await getDeviceInfo(machine.kernel, device)).answer).toBe(0)
    expect(await iommufd.destroy(id)).toBe('EBUSY')
    await machine.close(device)
    expect(await iommufd.destroy(id)).toBe('ENOENT')
  })

  describe('VFIO_DEVICE_ATTACH_IOMMUFD_PT', () => {
    test('answers the ioas itself, and keeps it in use', async () => {
      const { device } = await bound(machine, iommufd, mtty)

      expect(await attach(machine, device, ioas)).toEqual({ answer: 0, id: ioas })
      expect(await attach(machine, device, ioas)).toEqual({ answer: 0, id: ioas })
      expect(await iommufd.destroy(ioas)).toBe('EBUSY')
      expect(await detach(machine, device)).toBe(0)
      expect(await detach(machine, device)).toBe(0)
      expect(await iommufd.destroy(ioas)).toBe(0)
    })

    test('makes pages the alignment, and reserves nothing', async () => {
      const { device } = await boundAndAttached(machine, iommufd, mtty, ioas)

      expect(await iommufd.ranges(ioas)).toEqual({
        answer: 0,
        count: 1,
        alignment: PAGE,
        ranges: [{ start: 0n, last: U64_MAX }],
      })
      await detach(machine, device)
      expect((await iommufd.ranges(ioas)).alignment).toBe(1n)
    })

    test('needs areas of whole pages: EADDRINUSE', async () => {
      await iommufd.mapAt(ioas, { iova: BASE + 1n, vaddr: 0x1000n, length: PAGE })
      const { device } = await bound(machine, iommufd, mtty)

      expect((await attach(machine, device, ioas)).answer).toBe('EADDRINUSE')
    })

    test('moves from ioas to ioas', async () => {
      const to = await iommufd.newIoas()
      const { device } = await boundAndAttached(machine, iommufd, mtty, ioas)

      expect(await attach(machine, device, to)).toEqual({ answer: 0, id: to })
      expect(await iommufd.destroy(ioas)).toBe(0)
      expect(await iommufd.destroy(to)).toBe('EBUSY')
    })

    test('refuses an id that is not an ioas: ENOENT', async () => {
      const { device, id } = await bound(machine, iommufd, mtty)

      expect((await attach(machine, device, 0)).answer).toBe('ENOENT')
      expect((await attach(machine, device, id)).answer).toBe('ENOENT')
    })
  })

  test('maps without looking at the memory: nothing is pinned', async () => {
    await boundAndAttached(machine, iommufd, mtty, ioas)
    const at = { iova: BASE, vaddr: 0x1000n, length: PAGE }

    expect(await iommufd.mapAt(ioas, at)).toBe(0)
    expect(await iommufd.mapAt(ioas, { ...at, iova: BASE + PAGE + 1n })).toBe('EINVAL')
    expect(await iommufd.unmapAll(ioas)).toEqual({ answer: 0, length: PAGE })
  })

  test('has no hwpt and no IOMMU to report: ENOENT', async () => {
    const { id } = await bound(machine, iommufd, mtty)

    expect((await iommufd.hwpt({ dev_id: id, pt_id: ioas })).answer).toBe('ENOENT')
    expect((await iommufd.ask(IOMMU_GET_HW_INFO, iommu_hw_info, { dev_id: id })).answer).toBe(
      'ENOENT',
    )
  })
})
