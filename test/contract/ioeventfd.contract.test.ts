/** VFIO_DEVICE_IOEVENTFD: writes to a BAR that the kernel makes when an eventfd is signalled. */

import { beforeAll, describe, expect, test } from 'vitest'
import {
  VFIO_DEVICE_IOEVENTFD,
  VFIO_DEVICE_IOEVENTFD_8,
  VFIO_DEVICE_IOEVENTFD_16,
  VFIO_DEVICE_IOEVENTFD_32,
  VFIO_DEVICE_IOEVENTFD_64,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_PCI_BAR1_REGION_INDEX,
  VFIO_PCI_BAR3_REGION_INDEX,
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_NUM_REGIONS,
  VFIO_PCI_ROM_REGION_INDEX,
  vfio_device_ioeventfd,
} from '../../src/abi/device.ts'
import { PCI_COMMAND } from '../../src/abi/pci.ts'
import { eventfdRead, eventfdSignal } from '../../src/os/eventfd.ts'
import { said } from './answers.ts'
import { describeContract } from './backends.ts'
import { s32, setIrqs } from './calls.ts'
import { EduDriver, REG } from './edu-driver.ts'

const MIN = vfio_device_ioeventfd.offsets.reserved
const MAX = 1000
const region = (index: number, at = 0n): bigint => (BigInt(index) << 40n) + at

interface Ioeventfd {
  readonly offset?: bigint
  readonly data?: bigint
  readonly width?: number
  readonly fd: number
  readonly argsz?: number
  readonly reserved?: number
}

describeContract('VFIO_DEVICE_IOEVENTFD', (machine) => {
  const { kernel } = machine
  let edu0 = ''
  let card = ''

  beforeAll(async () => {
    edu0 = (await machine.edus())[0]
    card = await machine.card()
  })

  const ready = async (): Promise<EduDriver> => {
    const { device } = await machine.opened(edu0)
    const edu = await new EduDriver(machine, device).enable()
    await edu.write32(REG.irqAcknowledge, 0xffff_ffff)
    await edu.write32(REG.liveness, 0)
    return edu
  }

  const set = (device: number, { width, ...fields }: Ioeventfd): Promise<number> =>
    kernel.ioctl(
      device,
      VFIO_DEVICE_IOEVENTFD.number,
      vfio_device_ioeventfd.encode({
        argsz: vfio_device_ioeventfd.size,
        flags: width ?? VFIO_DEVICE_IOEVENTFD_32,
        offset: REG.liveness,
        data: 0x1234n,
        ...fields,
      }),
    )

  /** What the register that inverts says once it was written. */
  const inverted = (edu: EduDriver, wanted: bigint): Promise<true> =>
    machine.until(async () =>
      BigInt(await edu.read32(REG.liveness)) === (~wanted & 0xffff_ffffn) ? true : undefined,
    )

  describe('a signal', () => {
    test('writes the data, each time, and takes the count', async () => {
      const edu = await ready()
      const fd = machine.eventfd()
      expect(await set(edu.device, { fd, data: 0x0102_0304n })).toBe(0)

      eventfdSignal(fd)
      await inverted(edu, 0x0102_0304n)
      expect(machine.wasSignalled(fd)).toBe(false)

      await edu.write32(REG.liveness, 0)
      eventfdSignal(fd)
      await inverted(edu, 0x0102_0304n)
    })

    test('writes eight bytes', async () => {
      const edu = await ready()
      const fd = machine.eventfd()
      const data = 0x1122_3344_5566_7788n
      const width = VFIO_DEVICE_IOEVENTFD_64
      expect(await set(edu.device, { fd, offset: REG.dmaSource, data, width })).toBe(0)

      eventfdSignal(fd)

      await machine.until(async () =>
        (await edu.read64(REG.dmaSource)) === data ? true : undefined,
      )
    })

    test('writes no more of the data than the width', async () => {
      const edu = await ready()
      const fd = machine.eventfd()
      const data = 0xffff_ffff_0000_0007n
      expect(await set(edu.device, { fd, data })).toBe(0)

      eventfdSignal(fd)

      await inverted(edu, 7n)
    })

    test('makes all the writes that wait for it, the newest first', async () => {
      const edu = await ready()
      const fd = machine.eventfd()
      expect(await set(edu.device, { fd, data: 1n })).toBe(0)
      expect(await set(edu.device, { fd, data: 2n })).toBe(0)
      expect(await set(edu.device, { fd, offset: REG.dmaSource, data: 3n })).toBe(0)

      eventfdSignal(fd)

      await inverted(edu, 1n)
      expect(await edu.read64(REG.dmaSource)).toBe(3n)
    })

    test('that was there before counts, and is left', async () => {
      const edu = await ready()
      const fd = machine.eventfd()
      eventfdSignal(fd)

      expect(await set(edu.device, { fd, data: 5n })).toBe(0)

      await inverted(edu, 5n)
      expect(eventfdRead(fd)).toBe(1n)
    })

    test('writes nothing while the device does not decode memory', async () => {
      const edu = await ready()
      const fd = machine.eventfd()
      expect(await set(edu.device, { fd, data: 9n })).toBe(0)
      const command = region(VFIO_PCI_CONFIG_REGION_INDEX, BigInt(PCI_COMMAND))
      await kernel.pwrite(edu.device, Buffer.alloc(2), command)

      eventfdSignal(fd)
      await machine.until(() => (machine.wasSignalled(fd) ? undefined : true))
      await edu.enable()

      expect(await edu.read32(REG.liveness)).toBe(0xffff_ffff)
    })

    test('writes nothing once it is removed, or the device closed', async () => {
      const edu = await ready()
      const [removed, closed] = [machine.eventfd(), machine.eventfd()]
      expect(await set(edu.device, { fd: removed, data: 1n })).toBe(0)
      expect(await set(edu.device, { fd: closed, data: 2n })).toBe(0)
      expect(await set(edu.device, { fd: -1, data: 1n })).toBe(0)

      eventfdSignal(removed)
      expect(await machine.signals(removed)).toBe(1n)
      await machine.close(edu.device)
      eventfdSignal(closed)

      expect(await machine.signals(closed)).toBe(1n)
    })
  })

  describe('an entry', () => {
    test('is there once, whatever the eventfd: EEXIST', async () => {
      const { device } = await machine.opened(edu0)
      expect(await set(device, { fd: machine.eventfd() })).toBe(0)

      expect(said(await set(device, { fd: machine.eventfd() }))).toBe('EEXIST')
      expect(said(await set(device, { fd: 0x7fff_ffff }))).toBe('EEXIST')
    })

    test.each([
      ['data', { data: 0x1_0000_1234n }],
      ['width', { width: VFIO_DEVICE_IOEVENTFD_16 }],
      ['place', { offset: 0x8n }],
    ])('is another one with another %s', async (_what, other) => {
      const { device } = await machine.opened(edu0)
      const fd = machine.eventfd()
      expect(await set(device, { fd })).toBe(0)

      expect(said(await set(device, { fd: -1, ...other }))).toBe('ENODEV')
      expect(await set(device, { fd, ...other })).toBe(0)
    })

    test('is removed by fd -1, once', async () => {
      const { device } = await machine.opened(edu0)
      expect(said(await set(device, { fd: -1 }))).toBe('ENODEV')
      expect(await set(device, { fd: machine.eventfd() })).toBe(0)

      expect(await set(device, { fd: -1 })).toBe(0)
      expect(said(await set(device, { fd: -1 }))).toBe('ENODEV')
    })

    test('is one of 1000: ENOSPC', async () => {
      const { device } = await machine.opened(edu0)
      const fd = machine.eventfd()
      for (let data = 0n; data < BigInt(MAX); data++)
        expect(await set(device, { fd, data })).toBe(0)

      expect(said(await set(device, { fd, data: BigInt(MAX) }))).toBe('ENOSPC')
      expect(said(await set(device, { fd, data: 1n }))).toBe('EEXIST')
      expect(await set(device, { fd: -1, data: 1n })).toBe(0)
      expect(await set(device, { fd, data: BigInt(MAX) })).toBe(0)
    })

    test('needs no alignment', async () => {
      const { device } = await machine.opened(edu0)
      const fd = machine.eventfd()

      expect(await set(device, { fd, offset: 0x21n })).toBe(0)
      expect(await set(device, { fd, offset: 0x23n, width: VFIO_DEVICE_IOEVENTFD_64 })).toBe(0)
    })

    test('ends with the BAR at the latest', async () => {
      const { device } = await machine.opened(edu0)
      const fd = machine.eventfd()
      const [width, last] = [VFIO_DEVICE_IOEVENTFD_16, 0xf_fffen]

      expect(await set(device, { fd, offset: last, width })).toBe(0)
      expect(said(await set(device, { fd, offset: last + 1n, width }))).toBe('EINVAL')
      expect(await set(device, { fd, offset: last + 1n, width: VFIO_DEVICE_IOEVENTFD_8 })).toBe(0)
    })

    test('is not in the table of MSI-X, and may lie behind it', async () => {
      const { device } = await machine.opened(card)
      const fd = machine.eventfd()
      const table = region(VFIO_PCI_BAR3_REGION_INDEX)

      expect(said(await set(device, { fd, offset: table }))).toBe('EINVAL')
      expect(said(await set(device, { fd, offset: table + 0x4cn }))).toBe('EINVAL')
      expect(said(await set(device, { fd, offset: table + 0x4en }))).toBe('EINVAL')
      expect(await set(device, { fd, offset: table + 0x50n })).toBe(0)
    })

    test('may be in an I/O BAR', async () => {
      const { device } = await machine.opened(card)

      expect(await set(device, { fd: machine.eventfd(), offset: region(2, 0x1cn) })).toBe(0)
    })
  })

  describe('is refused with EINVAL', () => {
    test.each<[string, Partial<Ioeventfd>]>([
      ['an argsz below 28', { argsz: MIN - 1 }],
      ['no width', { width: 0 }],
      ['two widths', { width: VFIO_DEVICE_IOEVENTFD_8 | VFIO_DEVICE_IOEVENTFD_64 }],
      ['an unknown flag', { width: VFIO_DEVICE_IOEVENTFD_32 | 0x10 }],
      ['an fd below -1', { fd: -2 }],
      ['a BAR that is not there', { offset: region(VFIO_PCI_BAR1_REGION_INDEX) }],
      ['the ROM', { offset: region(VFIO_PCI_ROM_REGION_INDEX) }],
      ['the configuration space', { offset: region(VFIO_PCI_CONFIG_REGION_INDEX) }],
      ['a region of the driver', { offset: region(VFIO_PCI_NUM_REGIONS) }],
      ['a place behind the BAR', { offset: 0x10_0000n }],
    ])('for %s', async (_what, wrong) => {
      const { device } = await machine.opened(edu0)

      expect(said(await set(device, { fd: machine.eventfd(), ...wrong }))).toBe('EINVAL')
    })

    test('for an fd of another kind', async () => {
      const { device } = await machine.opened(edu0)
      const { fd } = await machine.memory(4096)

      expect(said(await set(device, { fd }))).toBe('EINVAL')
    })
  })

  test('takes 28 bytes, and does not look at those behind', async () => {
    const { device } = await machine.opened(edu0)
    const fd = machine.eventfd()

    expect(await set(device, { fd, argsz: MIN })).toBe(0)
    expect(await set(device, { fd, data: 2n, argsz: 4096, reserved: 0xffff_ffff })).toBe(0)
  })

  test('refuses an fd that is not open: EBADF, and a pointer that leads nowhere: EFAULT', async () => {
    const { device } = await machine.opened(edu0)

    expect(said(await set(device, { fd: 0x7fff_ffff }))).toBe('EBADF')
    expect(said(await kernel.ioctl(device, VFIO_DEVICE_IOEVENTFD.number, undefined))).toBe('EFAULT')
  })

  test('is unknown to mtty: ENOTTY', async () => {
    const { device } = await machine.opened(await machine.mtty('mtty-2'))

    expect(said(await set(device, { fd: machine.eventfd() }))).toBe('ENOTTY')
  })

  test('shares an eventfd with the unmasking of INTx, which takes what was there as well', async () => {
    const edu = await ready()
    const [trigger, unmask] = [machine.eventfd(), machine.eventfd()]
    const action = (flags: number, fd: number): Promise<number> =>
      setIrqs(kernel, edu.device, {
        index: VFIO_PCI_INTX_IRQ_INDEX,
        flags: VFIO_IRQ_SET_DATA_EVENTFD | flags,
        count: 1,
        data: s32(fd),
      })
    expect(await action(VFIO_IRQ_SET_ACTION_TRIGGER, trigger)).toBe(0)
    await edu.write32(REG.irqRaise, 1)
    expect(await machine.signals(trigger)).toBe(1n)
    expect(await set(edu.device, { fd: unmask, data: 6n })).toBe(0)
    eventfdSignal(unmask)
    await inverted(edu, 6n)

    expect(await action(VFIO_IRQ_SET_ACTION_UNMASK, unmask)).toBe(0)
    expect(said(await action(VFIO_IRQ_SET_ACTION_UNMASK, unmask))).toBe('EBUSY')
    eventfdSignal(unmask)

    expect(await machine.signals(trigger)).toBe(1n)
    await edu.write32(REG.irqAcknowledge, 0xffff_ffff)
  })
})
