/** vfio.h: VFIO_DEVICE_GET_INFO, regions, interrupts and resets of a device with vfio-pci. */

import { beforeAll, describe, expect, test } from 'vitest'
import { capabilities } from '../../src/abi/caps.ts'
import {
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_FLAGS_PCI,
  VFIO_DEVICE_FLAGS_RESET,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
  VFIO_DEVICE_PCI_HOT_RESET,
  VFIO_DEVICE_RESET,
  VFIO_IRQ_SET_ACTION_MASK,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_BOOL,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_PCI_BAR0_REGION_INDEX,
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_PCI_ERR_IRQ_INDEX,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_MSI_IRQ_INDEX,
  VFIO_PCI_MSIX_IRQ_INDEX,
  VFIO_PCI_REQ_IRQ_INDEX,
  VFIO_PCI_ROM_REGION_INDEX,
  VFIO_PCI_VGA_REGION_INDEX,
  VFIO_REGION_INFO_CAP_MSIX_MAPPABLE,
  vfio_device_bind_iommufd,
  vfio_pci_dependent_device,
  vfio_pci_hot_reset,
  vfio_pci_hot_reset_info,
} from '../../src/abi/device.ts'
import { sys } from '../../src/os/libc.ts'
import { said } from './answers.ts'
import { describeContract, unless } from './backends.ts'
import { getDeviceInfo, getIrqInfo, getRegionInfo, type SetIrqs, s32, setIrqs } from './calls.ts'

const NONE = VFIO_IRQ_SET_DATA_NONE
const BOOL = VFIO_IRQ_SET_DATA_BOOL
const EVENTFD = VFIO_IRQ_SET_DATA_EVENTFD
const TRIGGER = VFIO_IRQ_SET_ACTION_TRIGGER
const MASK = VFIO_IRQ_SET_ACTION_MASK
const UNMASK = VFIO_IRQ_SET_ACTION_UNMASK

const INTX = VFIO_PCI_INTX_IRQ_INDEX
const MSI = VFIO_PCI_MSI_IRQ_INDEX
const MSIX = VFIO_PCI_MSIX_IRQ_INDEX
const ERR = VFIO_PCI_ERR_IRQ_INDEX
const REQ = VFIO_PCI_REQ_IRQ_INDEX

describeContract('a PCI device', (machine) => {
  const { kernel } = machine
  let edu = ''
  /** Two functions of a network card behind a bridge of their own. */
  let cards: string[] = []

  beforeAll(async () => {
    ;[edu] = await machine.edus()
    const found = await machine.functions(0x8086, 0x10d3)
    cards = found.filter((address) => !address.startsWith('0000:00'))
    for (const card of cards) await machine.bind(card)
  })

  describe('VFIO_DEVICE_GET_INFO', () => {
    test('has nine regions and five interrupts, and edu no reset', async () => {
      const { device } = await machine.opened(edu)

      expect(await getDeviceInfo(kernel, device)).toEqual({
        answer: 0,
        argsz: 24,
        flags: VFIO_DEVICE_FLAGS_PCI,
        num_regions: 9,
        num_irqs: 5,
        cap_offset: 0,
        pad: 0,
      })
    })

    test('writes no more than argsz allows', async () => {
      const { device } = await machine.opened(edu)

      const info = await getDeviceInfo(kernel, device, 16)

      expect(info).toMatchObject({ answer: 0, num_irqs: 5, cap_offset: 0xdead, pad: 0xbeef })
    })

    test('refuses an argsz below 16: EINVAL', async () => {
      const { device } = await machine.opened(edu)

      expect(said((await getDeviceInfo(kernel, device, 15)).answer)).toBe('EINVAL')
    })

    test('refuses a pointer that leads nowhere: EFAULT', async () => {
      const { device } = await machine.opened(edu)

      expect(said(await kernel.ioctl(device, VFIO_DEVICE_GET_INFO.number, undefined))).toBe(
        'EFAULT',
      )
    })

    test('reports a reset where the function has one', async () => {
      const { device } = await machine.opened(cards[0] as string)

      const { flags } = await getDeviceInfo(kernel, device)

      expect(flags).toBe(VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET)
    })
  })

  describe('VFIO_DEVICE_GET_REGION_INFO', () => {
    test.each([
      ['BAR 0, in memory', VFIO_PCI_BAR0_REGION_INDEX, 0x10_0000n, 7],
      ['a BAR that is not there', 1, 0n, 0],
      ['a ROM that is not there', VFIO_PCI_ROM_REGION_INDEX, 0n, 0],
      ['the configuration space', VFIO_PCI_CONFIG_REGION_INDEX, 256n, 3],
    ])('reports %s', async (_what, index, size, flags) => {
      const { device } = await machine.opened(edu)

      const info = await getRegionInfo(kernel, device, index)

      expect(info).toMatchObject({ answer: 0, size, flags, offset: BigInt(index) << 40n })
    })

    test.each([
      ['VGA, without a display', VFIO_PCI_VGA_REGION_INDEX, 32],
      ['an index that is not there', 9, 32],
      ['an argsz below 32', 0, 31],
    ])('refuses %s: EINVAL', async (_what, index, argsz) => {
      const { device } = await machine.opened(edu)

      expect(said((await getRegionInfo(kernel, device, index, argsz)).answer)).toBe('EINVAL')
    })

    test('tells that the BAR with the MSI-X table may be mapped', async () => {
      const { device } = await machine.opened(cards[0] as string)

      const small = await getRegionInfo(kernel, device, 3)
      expect(small).toMatchObject({ answer: 0, argsz: 40, flags: 15, cap_offset: 0, size: 0x4000n })

      const { bytes, cap_offset } = await getRegionInfo(kernel, device, 3, 40)
      expect([...capabilities(bytes, cap_offset)]).toEqual([
        { id: VFIO_REGION_INFO_CAP_MSIX_MAPPABLE, version: 1, offset: 32 },
      ])
    })

    test('tells that a BAR of ports cannot be mapped', async () => {
      const { device } = await machine.opened(cards[0] as string)

      expect(await getRegionInfo(kernel, device, 2)).toMatchObject({ size: 0x20n, flags: 3 })
    })

    test('gives an express device 4096 bytes of configuration', async () => {
      const { device } = await machine.opened(cards[0] as string)

      const info = await getRegionInfo(kernel, device, VFIO_PCI_CONFIG_REGION_INDEX)

      expect(info.size).toBe(4096n)
    })
  })

  describe('VFIO_DEVICE_GET_IRQ_INFO', () => {
    test.each([
      ['INTx', INTX, 7, 1],
      ['MSI', MSI, 9, 1],
      ['MSI-X, which edu lacks', MSIX, 9, 0],
      ['the request line', REQ, 9, 1],
    ])('reports %s', async (_what, index, flags, count) => {
      const { device } = await machine.opened(edu)

      expect(await getIrqInfo(kernel, device, index)).toMatchObject({ answer: 0, flags, count })
    })

    test.each([
      ['errors, which only express devices report', ERR, 16],
      ['an index that is not there', 5, 16],
      ['an argsz below 16', INTX, 15],
    ])('refuses %s: EINVAL', async (_what, index, argsz) => {
      const { device } = await machine.opened(edu)

      expect(said((await getIrqInfo(kernel, device, index, argsz)).answer)).toBe('EINVAL')
    })

    test('reports the vectors of an express device', async () => {
      const { device } = await machine.opened(cards[0] as string)

      expect((await getIrqInfo(kernel, device, MSIX)).count).toBe(5)
      expect(await getIrqInfo(kernel, device, ERR)).toMatchObject({ answer: 0, flags: 9, count: 1 })
    })
  })

  describe('VFIO_DEVICE_SET_IRQS', () => {
    const one = new Uint8Array([1])

    test.each<[string, SetIrqs]>([
      ['an argsz below 20', { argsz: 19, flags: NONE | TRIGGER, index: MSI, count: 0 }],
      ['an index that is not there', { flags: NONE | TRIGGER, index: 5, count: 0 }],
      ['a flag that it does not know', { flags: NONE | TRIGGER | 0x40, index: MSI, count: 0 }],
      ['no kind of data', { flags: TRIGGER, index: MSI, count: 0 }],
      ['two kinds of data', { flags: NONE | BOOL | TRIGGER, index: MSI, count: 0 }],
      ['data that argsz has no room for', { flags: BOOL | TRIGGER, index: MSI, count: 1 }],
      ['a start past the last vector', { flags: NONE | TRIGGER, index: MSI, start: 1, count: 0 }],
      ['more vectors than there are', { flags: NONE | TRIGGER, index: MSI, count: 2 }],
      ['a count that wraps', { flags: NONE | TRIGGER, index: MSI, start: 1, count: 0xffff_ffff }],
      ['an index without vectors', { flags: NONE | TRIGGER, index: MSIX, count: 0 }],
      ['to trigger INTx before it is set up', { flags: NONE | TRIGGER, index: INTX, count: 1 }],
      ['to trigger MSI before it is set up', { flags: NONE | TRIGGER, index: MSI, count: 1 }],
      ['to turn off INTx before it is set up', { flags: NONE | TRIGGER, index: INTX, count: 0 }],
      ['to mask INTx before it is set up', { flags: NONE | MASK, index: INTX, count: 1 }],
      ['to unmask INTx before it is set up', { flags: NONE | UNMASK, index: INTX, count: 1 }],
      [
        'to ask for the device with nobody listening',
        { flags: NONE | TRIGGER, index: REQ, count: 1 },
      ],
    ])('refuses %s: EINVAL', async (_what, set) => {
      const { device } = await machine.opened(edu)

      expect(said(await setIrqs(kernel, device, set))).toBe('EINVAL')
    })

    test.each<[string, SetIrqs]>([
      ['no action', { flags: NONE, index: INTX, count: 1 }],
      ['two actions', { flags: NONE | MASK | TRIGGER, index: INTX, count: 1 }],
      ['masking MSI', { flags: NONE | MASK, index: MSI, count: 1 }],
      ['unmasking MSI', { flags: NONE | UNMASK, index: MSI, count: 1 }],
      ['masking the request line', { flags: NONE | MASK, index: REQ, count: 1 }],
    ])('does not know %s: ENOTTY', async (_what, set) => {
      const { device } = await machine.opened(edu)

      expect(said(await setIrqs(kernel, device, set))).toBe('ENOTTY')
    })

    test.each([
      ['INTx', INTX],
      ['MSI', MSI],
      ['the request line', REQ],
    ])('signals the eventfd of %s when it is triggered by hand', async (_what, index) => {
      const { device } = await machine.opened(edu)
      const eventfd = machine.eventfd()
      const data = s32(eventfd)
      expect(
        await setIrqs(kernel, device, { flags: EVENTFD | TRIGGER, index, count: 1, data }),
      ).toBe(0)

      expect(await setIrqs(kernel, device, { flags: NONE | TRIGGER, index, count: 1 })).toBe(0)
      expect(await machine.signals(eventfd)).toBe(1n)

      expect(
        await setIrqs(kernel, device, { flags: BOOL | TRIGGER, index, count: 1, data: one }),
      ).toBe(0)
      expect(await machine.signals(eventfd)).toBe(1n)
    })

    test('does not signal for a false', async () => {
      const { device } = await machine.opened(edu)
      const eventfd = machine.eventfd()
      const data = s32(eventfd)
      await setIrqs(kernel, device, { flags: EVENTFD | TRIGGER, index: MSI, count: 1, data })

      const zero = new Uint8Array([0])
      await setIrqs(kernel, device, { flags: BOOL | TRIGGER, index: MSI, count: 1, data: zero })

      expect(machine.wasSignalled(eventfd)).toBe(false)
    })

    test.each([
      ['that is not open: EBADF', () => 100_000, 'EBADF'],
      ['that is no eventfd: EINVAL', () => 'memory' as const, 'EINVAL'],
    ])('refuses an fd %s', async (_what, make, errno) => {
      const { device } = await machine.opened(edu)
      const made = make()
      const fd = made === 'memory' ? (await machine.memory(4096)).fd : made
      const set = { flags: EVENTFD | TRIGGER, count: 1, data: s32(fd) }

      for (const index of [INTX, MSI, REQ])
        expect(said(await setIrqs(kernel, device, { ...set, index }))).toBe(errno)
    })

    test('allows one of INTx and MSI at a time: EINVAL', async () => {
      const { device } = await machine.opened(edu)
      const set = { flags: EVENTFD | TRIGGER, count: 1, data: s32(machine.eventfd()) }
      expect(await setIrqs(kernel, device, { ...set, index: INTX })).toBe(0)

      expect(said(await setIrqs(kernel, device, { ...set, index: MSI }))).toBe('EINVAL')

      await setIrqs(kernel, device, { flags: NONE | TRIGGER, index: INTX, count: 0 })
      expect(await setIrqs(kernel, device, { ...set, index: MSI })).toBe(0)
      expect(said(await setIrqs(kernel, device, { ...set, index: INTX }))).toBe('EINVAL')
    })

    test('keeps the eventfd when the client closes its fd', async () => {
      const { device } = await machine.opened(edu)
      const kept = machine.eventfd()
      const closed = sys.dup(kept)
      const data = s32(closed)
      await setIrqs(kernel, device, { flags: EVENTFD | TRIGGER, index: REQ, count: 1, data })
      sys.closeSync(closed)

      expect(await setIrqs(kernel, device, { flags: NONE | TRIGGER, index: REQ, count: 1 })).toBe(0)
      expect(await machine.signals(kept)).toBe(1n)
    })

    test('lets go of the eventfd for an fd of -1', async () => {
      const { device } = await machine.opened(edu)
      const set = { flags: EVENTFD | TRIGGER, index: REQ, count: 1 }
      await setIrqs(kernel, device, { ...set, data: s32(machine.eventfd()) })

      expect(await setIrqs(kernel, device, { ...set, data: s32(-1) })).toBe(0)

      const refused = await setIrqs(kernel, device, { flags: NONE | TRIGGER, index: REQ, count: 1 })
      expect(said(refused)).toBe('EINVAL')
    })

    test('forgets everything when the device is closed', async () => {
      const { group, device } = await machine.opened(edu)
      const set = { flags: EVENTFD | TRIGGER, count: 1, data: s32(machine.eventfd()) }
      await setIrqs(kernel, device, { ...set, index: INTX })
      await machine.close(device)

      const again = await machine.deviceOf(group, edu)

      expect(await setIrqs(kernel, again, { ...set, index: MSI })).toBe(0)
    })
  })

  describe('VFIO_DEVICE_RESET', () => {
    test('refuses a function that has none: EINVAL', async () => {
      const { device } = await machine.opened(edu)

      expect(said(await kernel.ioctl(device, VFIO_DEVICE_RESET.number, undefined))).toBe('EINVAL')
    })

    test('resets a function that has one', async () => {
      const { device } = await machine.opened(cards[0] as string)

      expect(await kernel.ioctl(device, VFIO_DEVICE_RESET.number, undefined)).toBe(0)
    })
  })

  describe('VFIO_DEVICE_GET_PCI_HOT_RESET_INFO', () => {
    const hotResetInfo = async (device: number, argsz: number) => {
      const bytes = vfio_pci_hot_reset_info.encode({ argsz }, 64)
      const request = VFIO_DEVICE_GET_PCI_HOT_RESET_INFO.number
      const answer = await kernel.ioctl(device, request, bytes)
      const { count } = vfio_pci_hot_reset_info.decode(bytes)
      const { size } = vfio_pci_hot_reset_info
      const devices = [0, 1].map((index) =>
        vfio_pci_dependent_device.decode(bytes, size + index * vfio_pci_dependent_device.size),
      )
      return { answer: said(answer), count, devices }
    }

    test('refuses a function on the root bus, which nothing can reset: ENODEV', async () => {
      const { device } = await machine.opened(edu)

      expect((await hotResetInfo(device, 64)).answer).toBe('ENODEV')
    })

    test('refuses an argsz below 12: EINVAL', async () => {
      const { device } = await machine.opened(cards[0] as string)

      expect((await hotResetInfo(device, 11)).answer).toBe('EINVAL')
    })

    test('says how many functions there are where argsz has no room: ENOSPC', async () => {
      const { device } = await machine.opened(cards[0] as string)

      expect(await hotResetInfo(device, 12)).toMatchObject({ answer: 'ENOSPC', count: 2 })
    })

    test('names every function below the bridge, with its group', async () => {
      const { device } = await machine.opened(cards[0] as string)
      const group_id = await machine.groupOf(cards[0] as string)

      const { answer, count, devices } = await hotResetInfo(device, 28)

      expect([answer, count]).toEqual([0, 2])
      expect(devices.sort((a, b) => a.devfn - b.devfn)).toEqual([
        { group_id, segment: 0, bus: 1, devfn: 0 },
        { group_id, segment: 0, bus: 1, devfn: 1 },
      ])
    })
  })

  describe('VFIO_DEVICE_PCI_HOT_RESET', () => {
    const hotReset = (device: number, fds: readonly number[], more = {}): Promise<number> => {
      const bytes = vfio_pci_hot_reset.encode(
        { argsz: 12 + 4 * fds.length, count: fds.length, ...more },
        4 * fds.length,
      )
      bytes.set(s32(...fds), vfio_pci_hot_reset.size)
      return kernel.ioctl(device, VFIO_DEVICE_PCI_HOT_RESET.number, bytes)
    }

    test('refuses a function on the root bus: ENODEV', async () => {
      const { group, device } = await machine.opened(edu)

      expect(said(await hotReset(device, [group]))).toBe('ENODEV')
    })

    unless(
      machine.backend === 'linux',
      'the emulated bridge never reports its link up again, which the kernel answers with ENOTTY',
    )('resets with the fd of every group below the bridge', async () => {
      const { group, device } = await machine.opened(cards[0] as string)

      expect(await hotReset(device, [group])).toBe(0)
    })

    test.each<[string, string, (own: number, container: number) => readonly number[], object]>([
      ['flags', 'EINVAL', (own) => [own], { flags: 1 }],
      ['no group at all', 'EINVAL', () => [], {}],
      ['more groups than functions', 'EINVAL', (own) => [own, own, own], {}],
      ['an fd that is not open', 'EBADF', () => [100_000], {}],
      ['a file that is no group', 'EINVAL', (_own, container) => [container], {}],
    ])('refuses %s: %s', async (_what, errno, fds, more) => {
      const { group, container, device } = await machine.opened(cards[0] as string)

      expect(said(await hotReset(device, fds(group, container), more))).toBe(errno)
    })

    test('refuses the fd of another group alone: EINVAL', async () => {
      const { device } = await machine.opened(cards[0] as string)
      const stranger = await machine.group(edu)

      expect(said(await hotReset(device, [stranger]))).toBe('EINVAL')
    })
  })

  describe('other requests', () => {
    test('are not known: ENOTTY', async () => {
      const { device } = await machine.opened(edu)

      expect(said(await kernel.ioctl(device, 0x3bff, undefined))).toBe('ENOTTY')
      expect(said(await kernel.ioctl(device, 0x3b64, undefined))).toBe('ENOTTY')
    })

    test('VFIO_DEVICE_BIND_IOMMUFD is for cdevs only: EINVAL', async () => {
      const { device } = await machine.opened(edu)
      const bind = vfio_device_bind_iommufd.encode({ argsz: 16, iommufd: 0 })

      expect(said(await kernel.ioctl(device, VFIO_DEVICE_BIND_IOMMUFD.number, bind))).toBe('EINVAL')
    })
  })
})
