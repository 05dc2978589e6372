/** vfio.h: /dev/vfio/devices/vfioN, BIND_IOMMUFD, ATTACH_IOMMUFD_PT and DETACH_IOMMUFD_PT. */

import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import {
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
  VFIO_DEVICE_PCI_HOT_RESET,
  VFIO_DEVICE_RESET,
  VFIO_PCI_HOT_RESET_FLAG_DEV_ID,
  VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED,
  vfio_pci_dependent_device,
  vfio_pci_hot_reset,
  vfio_pci_hot_reset_info,
} from '../../src/abi/device.ts'
import { must, said } from './answers.ts'
import { describeType1, unless } from './backends.ts'
import { getDeviceInfo, setContainer } from './calls.ts'
import { EduDriver } from './edu-driver.ts'
import {
  attach,
  bind,
  bound,
  boundAndAttached,
  cdevOf,
  detach,
  type Iommufd,
  openCdev,
  openIommufd,
  PAGE,
} from './iommufd-calls.ts'

const BASE = 0x100_0000n

describeType1('it opens a container only as a wrong file')('a cdev', (machine) => {
  const { kernel } = machine
  let edu = ''
  let other = ''
  let iommufd: Iommufd

  beforeAll(async () => {
    ;[edu, other] = await machine.edus()
  })

  beforeEach(async () => {
    iommufd = await openIommufd(machine)
  })

  /** Two functions of one group, bound to vfio-pci. */
  const sharedGroup = async (): Promise<[string, string]> => {
    const cards = await machine.functions(0x8086, 0x10d3)
    for (const first of cards)
      for (const second of cards)
        if (first < second && (await machine.groupOf(first)) === (await machine.groupOf(second))) {
          await machine.bind(first)
          await machine.bind(second)
          return [first, second]
        }
    throw new Error('Cannot find two cards in one group')
  }

  describe('that is not bound', () => {
    test('can be opened as often as one likes, and blocks no other opener', async () => {
      await openCdev(machine, edu)
      await openCdev(machine, edu)

      expect((await machine.opened(edu)).device).toBeGreaterThanOrEqual(0)
    })

    test('answers nothing but BIND_IOMMUFD: EINVAL (get_info_without_bind)', async () => {
      const device = await openCdev(machine, edu)

      expect(said((await getDeviceInfo(kernel, device)).answer)).toBe('EINVAL')
      expect(said(await kernel.ioctl(device, VFIO_DEVICE_RESET.number, undefined))).toBe('EINVAL')
      expect(said(await kernel.ioctl(device, VFIO_DEVICE_GET_IRQ_INFO.number, undefined))).toBe(
        'EINVAL',
      )
      expect(said(await kernel.ioctl(device, 0x3bff, undefined))).toBe('EINVAL')
      expect((await attach(machine, device, 1)).answer).toBe('EINVAL')
      expect(await detach(machine, device)).toBe('EINVAL')
    })

    test('cannot be read or written: EINVAL', async () => {
      const device = await openCdev(machine, edu)

      expect(said(await kernel.pread(device, new Uint8Array(4), 0n))).toBe('EINVAL')
      expect(said(await kernel.pwrite(device, new Uint8Array(4), 0n))).toBe('EINVAL')
      expect(said(await kernel.read(device, new Uint8Array(4)))).toBe('EINVAL')
      expect(said(await kernel.write(device, new Uint8Array(4)))).toBe('EINVAL')
    })
  })

  describe('VFIO_DEVICE_BIND_IOMMUFD', () => {
    test('opens the device (bind_iommufd)', async () => {
      const { device, id } = await bound(machine, iommufd, edu)

      expect(id).toBe(1)
      expect((await getDeviceInfo(kernel, device)).answer).toBe(0)
    })

    test('refuses a short argsz, flags and a negative fd: EINVAL (bind_bad_iommufd)', async () => {
      const device = await openCdev(machine, edu)

      expect((await bind(machine, device, iommufd.fd, { argsz: 15 })).answer).toBe('EINVAL')
      expect((await bind(machine, device, iommufd.fd, { flags: 1 })).answer).toBe('EINVAL')
      expect((await bind(machine, device, -2)).answer).toBe('EINVAL')
      expect((await bind(machine, device, iommufd.fd, { argsz: 64 })).answer).toBe(0)
    })

    test('refuses an fd that is not open: EBADF, and one of another kind: EBADFD', async () => {
      const device = await openCdev(machine, edu)

      expect((await bind(machine, device, 1_000_000)).answer).toBe('EBADF')
      expect((await bind(machine, device, 0)).answer).toBe('EBADFD')
      expect((await bind(machine, device, await machine.container())).answer).toBe('EBADFD')
    })

    test('refuses no argument: EFAULT', async () => {
      const device = await openCdev(machine, edu)

      expect(said(await kernel.ioctl(device, VFIO_DEVICE_BIND_IOMMUFD.number, undefined))).toBe(
        'EFAULT',
      )
    })

    test('refuses a second time, by this file and by another: EINVAL (repeated_bind)', async () => {
      const { device } = await bound(machine, iommufd, edu)
      const second = await openCdev(machine, edu)

      expect((await bind(machine, device, iommufd.fd)).answer).toBe('EINVAL')
      expect((await bind(machine, second, iommufd.fd)).answer).toBe('EINVAL')
      expect((await bind(machine, device, 1_000_000)).answer).toBe('EINVAL')
    })

    test('refuses a device fd from a group: EINVAL', async () => {
      const { device } = await machine.opened(edu)

      expect((await bind(machine, device, iommufd.fd)).answer).toBe('EINVAL')
      expect((await attach(machine, device, 1)).answer).toBe('ENOTTY')
      expect(await detach(machine, device)).toBe('ENOTTY')
    })

    test('refuses while the group is open, even before its fds are looked at: EBUSY', async () => {
      const device = await openCdev(machine, edu)
      const group = await machine.group(edu)
      expect((await bind(machine, device, iommufd.fd)).answer).toBe('EBUSY')
      expect((await bind(machine, device, 1_000_000)).answer).toBe('EBUSY')
      expect((await bind(machine, device, -1)).answer).toBe('EINVAL')

      await machine.close(group)

      expect((await bind(machine, device, iommufd.fd)).answer).toBe(0)
    })

    test('keeps the group from being opened: EBUSY, until the file is closed', async () => {
      const { device } = await bound(machine, iommufd, edu)
      const path = `/dev/vfio/${await machine.groupOf(edu)}`
      expect(said(await machine.open(path))).toBe('EBUSY')

      await machine.close(device)

      expect(await machine.open(path)).toBeGreaterThanOrEqual(0)
    })

    test('refuses where a kernel driver has a device of the group: EPERM', async () => {
      const { free } = await machine.spoiledGroup()
      await machine.bind(free)
      const device = await openCdev(machine, free)

      expect((await bind(machine, device, iommufd.fd)).answer).toBe('EPERM')

      await machine.close(device)
      await machine.unbind(free)
    })

    test('keeps the iommufd alive when its fd is closed', async () => {
      const ioas = await iommufd.newIoas()
      const { device } = await boundAndAttached(machine, iommufd, edu, ioas)

      await machine.close(iommufd.fd)

      expect(await detach(machine, device)).toBe(0)
      expect((await attach(machine, device, ioas)).answer).toBe(0)
    })

    test('frees the id when the file is closed', async () => {
      const first = await bound(machine, iommufd, edu)
      expect(await iommufd.destroy(first.id)).toBe('EBUSY')
      await machine.close(first.device)

      expect(await iommufd.destroy(first.id)).toBe('ENOENT')
      expect((await bound(machine, iommufd, other)).id).toBe(first.id)
    })

    test('closes the device with the file: it can be bound again', async () => {
      const first = await bound(machine, iommufd, edu)
      await machine.close(first.device)
      const elsewhere = await openIommufd(machine)

      expect((await bound(machine, elsewhere, edu)).id).toBe(1)
    })
  })

  describe('VFIO_DEVICE_ATTACH_IOMMUFD_PT', () => {
    test('makes a hwpt of the ioas, and takes it along when it leaves', async () => {
      const ioas = await iommufd.newIoas()
      const { device, id } = await bound(machine, iommufd, edu)

      const attached = await attach(machine, device, ioas)

      expect(attached).toEqual({ answer: 0, id: id + 1 })
      expect(await iommufd.destroy(attached.id)).toBe('EBUSY')
      expect(await iommufd.destroy(ioas)).toBe('EBUSY')
      expect(await detach(machine, device)).toBe(0)
      expect(await iommufd.destroy(attached.id)).toBe('ENOENT')
      expect(await iommufd.destroy(ioas)).toBe(0)
    })

    test('uses the hwpt that the ioas has for another device', async () => {
      const ioas = await iommufd.newIoas()
      const first = await boundAndAttached(machine, iommufd, edu, ioas)
      const second = await boundAndAttached(machine, iommufd, other, ioas)

      expect(second.hwpt).toBe(first.hwpt)
      await detach(machine, first.device)
      expect(await iommufd.destroy(first.hwpt)).toBe('EBUSY')
      await detach(machine, second.device)
      expect(await iommufd.destroy(first.hwpt)).toBe('ENOENT')
    })

    test('answers the same hwpt when it is attached to it already', async () => {
      const ioas = await iommufd.newIoas()
      const { device, hwpt } = await boundAndAttached(machine, iommufd, edu, ioas)

      expect(await attach(machine, device, ioas)).toEqual({ answer: 0, id: hwpt })
      expect(await attach(machine, device, hwpt)).toEqual({ answer: 0, id: hwpt })
    })

    test('moves an attached device to another ioas (replace)', async () => {
      const [from, to] = [await iommufd.newIoas(), await iommufd.newIoas()]
      const { device, hwpt } = await boundAndAttached(machine, iommufd, edu, from)

      const moved = await attach(machine, device, to)

      expect(moved.answer).toBe(0)
      expect(moved.id).not.toBe(hwpt)
      expect(await iommufd.destroy(hwpt)).toBe('ENOENT')
      expect(await iommufd.destroy(from)).toBe(0)
      expect(await iommufd.destroy(to)).toBe('EBUSY')
    })

    test('leaves the device where it is when it cannot be moved: EADDRINUSE', async () => {
      const [from, to] = [await iommufd.newIoas(), await iommufd.newIoas()]
      const { device, hwpt } = await boundAndAttached(machine, iommufd, edu, from)
      const { segment } = await machine.memory(4096)
      await iommufd.mapAt(to, { iova: 0xfee0_0000n, vaddr: segment.address, length: PAGE })

      expect((await attach(machine, device, to)).answer).toBe('EADDRINUSE')

      expect(await attach(machine, device, from)).toEqual({ answer: 0, id: hwpt })
      expect((await iommufd.ranges(to)).count).toBe(1)
      expect(await iommufd.destroy(to)).toBe(0)
    })

    test('refuses an id that nothing has: ENOENT, or something else: EINVAL (attach_invalid_pt)', async () => {
      const { device, id } = await bound(machine, iommufd, edu)

      expect((await attach(machine, device, 0)).answer).toBe('ENOENT')
      expect((await attach(machine, device, 0xffff_ffff)).answer).toBe('ENOENT')
      expect((await attach(machine, device, id)).answer).toBe('EINVAL')
    })

    test('refuses a short argsz and flags: EINVAL; no argument: EFAULT', async () => {
      const ioas = await iommufd.newIoas()
      const { device } = await bound(machine, iommufd, edu)

      expect((await attach(machine, device, ioas, { argsz: 11 })).answer).toBe('EINVAL')
      expect((await attach(machine, device, ioas, { flags: 1 })).answer).toBe('EINVAL')
      expect(
        said(await kernel.ioctl(device, VFIO_DEVICE_ATTACH_IOMMUFD_PT.number, undefined)),
      ).toBe('EFAULT')
    })

    test('lets the device reach the mapped pages, and no more', async () => {
      const ioas = await iommufd.newIoas()
      const { segment } = await machine.memory(4 * 4096)
      const { device } = await boundAndAttached(machine, iommufd, edu, ioas)
      await iommufd.mapAt(ioas, { iova: BASE, vaddr: segment.address, length: 2n * PAGE })
      const driver = await new EduDriver(machine, device).enable()
      segment.bytes.fill(0x3c, 0, 256)

      await driver.fetch(BASE, 256)
      await driver.store(BASE + PAGE, 256)
      expect(segment.bytes.subarray(4096, 4096 + 256)).toEqual(new Uint8Array(256).fill(0x3c))

      await driver.store(BASE + 2n * PAGE, 256)
      expect(segment.bytes.subarray(2 * 4096).every((byte) => byte === 0)).toBe(true)
    })

    test('moves a device under what it reaches', async () => {
      const [from, to] = [await iommufd.newIoas(), await iommufd.newIoas()]
      const { segment } = await machine.memory(2 * 4096)
      const vaddr = segment.address as bigint
      await iommufd.mapAt(from, { iova: BASE, vaddr, length: PAGE })
      await iommufd.mapAt(to, { iova: BASE, vaddr: vaddr + PAGE, length: PAGE })
      const { device } = await boundAndAttached(machine, iommufd, edu, from)
      const driver = await new EduDriver(machine, device).enable()
      segment.bytes.fill(0x11, 0, 4096)
      await driver.fetch(BASE, 64)

      await attach(machine, device, to)
      await driver.store(BASE, 64)

      expect(segment.bytes.subarray(4096, 4096 + 64)).toEqual(new Uint8Array(64).fill(0x11))
      await detach(machine, device)
      await driver.store(BASE + 128n, 64)
      expect(segment.bytes[4096 + 128]).toBe(0)
    })
  })

  describe('VFIO_DEVICE_DETACH_IOMMUFD_PT', () => {
    test('can be repeated, and needs no attachment (attach_detach_pt)', async () => {
      const { device } = await bound(machine, iommufd, edu)

      expect(await detach(machine, device)).toBe(0)
      await attach(machine, device, await iommufd.newIoas())
      expect(await detach(machine, device)).toBe(0)
      expect(await detach(machine, device)).toBe(0)
    })

    test('refuses a short argsz and flags: EINVAL; no argument: EFAULT', async () => {
      const { device } = await bound(machine, iommufd, edu)

      expect(await detach(machine, device, { argsz: 7 })).toBe('EINVAL')
      expect(await detach(machine, device, { flags: 1 })).toBe('EINVAL')
      expect(
        said(await kernel.ioctl(device, VFIO_DEVICE_DETACH_IOMMUFD_PT.number, undefined)),
      ).toBe('EFAULT')
    })
  })

  describe('of a group with several devices', () => {
    test('must be attached where the others are: EINVAL', async () => {
      const [first, second] = await sharedGroup()
      const [one, two] = [await iommufd.newIoas(), await iommufd.newIoas()]
      const a = await boundAndAttached(machine, iommufd, first, one)
      const b = await bound(machine, iommufd, second)

      expect((await attach(machine, b.device, two)).answer).toBe('EINVAL')
      expect(await attach(machine, b.device, one)).toEqual({ answer: 0, id: a.hwpt })
      expect((await attach(machine, b.device, two)).answer).toBe(0)
      expect(await iommufd.destroy(one)).toBe(0)
    })

    test('belongs to one iommufd: EPERM', async () => {
      const [first, second] = await sharedGroup()
      const { device } = await bound(machine, iommufd, first)
      const elsewhere = await openIommufd(machine)
      const cdev = await openCdev(machine, second)
      expect((await bind(machine, cdev, elsewhere.fd)).answer).toBe('EPERM')

      await machine.close(device)

      expect((await bind(machine, cdev, elsewhere.fd)).answer).toBe(0)
    })
  })

  describe('hot reset', () => {
    const info = async (device: number) => {
      const { size } = vfio_pci_hot_reset_info
      const bytes = vfio_pci_hot_reset_info.encode({ argsz: 64 }, 64 - size)
      const answer = await kernel.ioctl(device, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO.number, bytes)
      const { flags, count } = vfio_pci_hot_reset_info.decode(bytes)
      const ids = Array.from(
        { length: count },
        (_, index) =>
          vfio_pci_dependent_device.decode(bytes, size + index * vfio_pci_dependent_device.size)
            .group_id,
      )
      return { answer: said(answer), flags, ids }
    }
    const reset = async (device: number): Promise<unknown> => {
      const { size: argsz } = vfio_pci_hot_reset
      const bytes = vfio_pci_hot_reset.encode({ argsz })
      return said(await kernel.ioctl(device, VFIO_DEVICE_PCI_HOT_RESET.number, bytes))
    }
    const OWNED = VFIO_PCI_HOT_RESET_FLAG_DEV_ID | VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED

    test('tells the ids of the devices, and that a group is owned as a whole', async () => {
      const [first, second] = await sharedGroup()
      const one = await bound(machine, iommufd, first)
      expect(await info(one.device)).toEqual({ answer: 0, flags: OWNED, ids: [one.id, 0] })

      const two = await bound(machine, iommufd, second)

      expect(await info(two.device)).toEqual({ answer: 0, flags: OWNED, ids: [one.id, two.id] })
    })

    test('needs no groups: EINVAL with them', async () => {
      const [first] = await sharedGroup()
      const { device } = await bound(machine, iommufd, first)
      const { size } = vfio_pci_hot_reset
      const bytes = vfio_pci_hot_reset.encode({ argsz: size + 4, count: 1 }, 4)

      expect(said(await kernel.ioctl(device, VFIO_DEVICE_PCI_HOT_RESET.number, bytes))).toBe(
        'EINVAL',
      )
    })

    unless(
      machine.backend === 'linux',
      'the emulated bridge never reports its link up again, which the kernel answers with ENOTTY',
    )('resets what the iommufd owns', async () => {
      const [first] = await sharedGroup()
      const { device } = await bound(machine, iommufd, first)

      expect(await reset(device)).toBe(0)
    })

    test('is not for functions that another driver has: EINVAL', async () => {
      const [first, second] = await sharedGroup()
      await machine.unbind(second)
      await kernel.writeFile(`/sys/bus/pci/devices/${second}/driver/unbind`, second)
      const { device } = await bound(machine, iommufd, first)

      const told = await info(device)

      expect(told.flags).toBe(VFIO_PCI_HOT_RESET_FLAG_DEV_ID)
      expect(told.ids[1]).toBe(0xffff_ffff)
      expect(await reset(device)).toBe('EINVAL')
      await machine.close(device)
      await kernel.writeFile('/sys/bus/pci/drivers_probe', second)
    })
  })

  test('has its node as long as the device has a vfio driver', async () => {
    const path = await cdevOf(machine, edu)
    expect(await machine.names('/dev/vfio/devices')).toContain(path.split('/').at(-1))

    await machine.unbind(edu)

    expect(said(await machine.open(path))).toBe('ENOENT')
    await machine.bind(edu)
  })

  test('cannot be bound while its group has a container: EBUSY', async () => {
    const group = await machine.group(other)
    must(await setContainer(kernel, group, await machine.container()), 'set the container')
    const cdev = await openCdev(machine, other)

    expect((await bind(machine, cdev, iommufd.fd)).answer).toBe('EBUSY')
  })
})
