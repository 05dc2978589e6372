/** The mtty sample device: what it is, its serial ports and its interrupts. */

import { describe, expect, test } from 'vitest'
import {
  VFIO_DEVICE_FLAGS_PCI,
  VFIO_DEVICE_RESET,
  VFIO_IRQ_SET_ACTION_MASK,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_BOOL,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_MSI_IRQ_INDEX,
} from '../../src/abi/device.ts'
import { said } from './answers.ts'
import { describeContract } from './backends.ts'
import { getDeviceInfo, getIrqInfo, getRegionInfo, type SetIrqs, s32, setIrqs } from './calls.ts'
import { MttyDriver, UART } from './mtty-driver.ts'

const NONE = VFIO_IRQ_SET_DATA_NONE
const BOOL = VFIO_IRQ_SET_DATA_BOOL
const EVENTFD = VFIO_IRQ_SET_DATA_EVENTFD
const TRIGGER = VFIO_IRQ_SET_ACTION_TRIGGER
const MASK = VFIO_IRQ_SET_ACTION_MASK
const UNMASK = VFIO_IRQ_SET_ACTION_UNMASK
const INTX = VFIO_PCI_INTX_IRQ_INDEX
const MSI = VFIO_PCI_MSI_IRQ_INDEX
const CONFIG = 7n << 40n

describeContract('mtty', (machine) => {
  const { kernel } = machine

  describe('information', () => {
    test('is that of a PCI device without a reset, in 16 bytes', async () => {
      const { device } = await MttyDriver.make(machine, 'mtty-2')

      expect(await getDeviceInfo(kernel, device)).toEqual({
        answer: 0,
        argsz: 24,
        flags: VFIO_DEVICE_FLAGS_PCI,
        num_regions: 9,
        num_irqs: 5,
        cap_offset: 0xdead,
        pad: 0xbeef,
      })
    })

    test('refuses an argsz below 16: EINVAL', async () => {
      const { device } = await MttyDriver.make(machine, 'mtty-1')

      expect(said((await getDeviceInfo(kernel, device, 15)).answer)).toBe('EINVAL')
    })

    test.each([
      ['mtty-1', [8n, 0n, 0n, 0n, 0n, 0n, 0n, 255n, 0n]],
      ['mtty-2', [8n, 8n, 0n, 0n, 0n, 0n, 0n, 255n, 0n]],
    ] as const)('of %s has these regions', async (type, sizes) => {
      const { device } = await MttyDriver.make(machine, type)
      const infos = []
      for (const index of sizes.keys()) infos.push(await getRegionInfo(kernel, device, index))

      expect(infos.map(({ answer, size }) => [answer, size])).toEqual(
        sizes.map((size) => [0, size]),
      )
      expect(infos.every(({ flags }) => flags === 3)).toBe(true)
      expect(infos.map(({ offset }) => offset)).toEqual(sizes.map((_, at) => BigInt(at) << 40n))
    })

    test('refuses a region that is not there: EINVAL', async () => {
      const { device } = await MttyDriver.make(machine, 'mtty-1')

      expect(said((await getRegionInfo(kernel, device, 9)).answer)).toBe('EINVAL')
      expect(said((await getRegionInfo(kernel, device, 0, 31)).answer)).toBe('EINVAL')
    })

    test('has interrupts only after DEVICE_GET_INFO: EINVAL before', async () => {
      const { device } = await MttyDriver.make(machine, 'mtty-1')
      const set = { flags: NONE | TRIGGER, index: MSI, count: 0 }
      expect(said((await getIrqInfo(kernel, device, INTX)).answer)).toBe('EINVAL')
      expect(said(await setIrqs(kernel, device, set))).toBe('EINVAL')

      await getDeviceInfo(kernel, device)

      expect(await getIrqInfo(kernel, device, INTX)).toMatchObject({ flags: 7, count: 1 })
      expect(await getIrqInfo(kernel, device, MSI)).toMatchObject({ flags: 9, count: 1 })
      for (const index of [2, 3, 4, 5])
        expect(said((await getIrqInfo(kernel, device, index)).answer)).toBe('EINVAL')
    })

    test('resets although it says that it cannot: 0', async () => {
      const { device } = await MttyDriver.make(machine, 'mtty-1')

      expect(await kernel.ioctl(device, VFIO_DEVICE_RESET.number, undefined)).toBe(0)
    })

    test('does not know other requests: ENOTTY', async () => {
      const { device } = await MttyDriver.make(machine, 'mtty-1')

      expect(said(await kernel.ioctl(device, 0x3bff, undefined))).toBe('ENOTTY')
      expect(said(await kernel.ioctl(device, 0x3b70, new Uint8Array(64)))).toBe('ENOTTY')
    })
  })

  describe('the configuration space', () => {
    test.each([
      ['mtty-1', 1],
      ['mtty-2', 2],
    ] as const)('of %s is this', async (type, ports) => {
      const { device } = await MttyDriver.make(machine, type)
      const bytes = Buffer.alloc(0x80)

      expect(await kernel.pread(device, bytes, CONFIG)).toBe(0x80)

      const expected = Buffer.alloc(0x80)
      expected.writeUInt32LE(0x3253_4348, 0)
      expected.writeUInt32LE(0x0200_0001, 4)
      expected.writeUInt32LE(0x0700_0210, 8)
      for (let port = 0; port < ports; port++) expected.writeUInt32LE(1, 0x10 + 4 * port)
      expected.writeUInt32LE(0x3253_4348, 0x2c)
      expected[0x3d] = 1
      expected.set([0x23, 0, 0, 0x80, 0x23, 0, 0, 0, 0x23, 0, 0, 0, 0x23], 0x40)
      expected.write('PCI Serial/UART', 0x60)
      expect(bytes.toString('hex')).toBe(expected.toString('hex'))
    })

    test('tells the size of a port, and keeps the interrupt line', async () => {
      const { device } = await MttyDriver.make(machine, 'mtty-1')
      const bars = Buffer.alloc(8)
      await kernel.pwrite(device, Buffer.from('ffffffff', 'hex'), CONFIG + 0x10n)
      await kernel.pwrite(device, Buffer.from('ffffffff', 'hex'), CONFIG + 0x14n)
      await kernel.pread(device, bars, CONFIG + 0x10n)
      expect(bars.toString('hex')).toBe('f9ffffff00000000')

      const line = Buffer.alloc(1)
      await kernel.pwrite(device, Buffer.from([0x0b]), CONFIG + 0x3cn)
      await kernel.pread(device, line, CONFIG + 0x3cn)
      expect(line[0]).toBe(0x0b)
    })

    test('does not let a client change what it is', async () => {
      const { device } = await MttyDriver.make(machine, 'mtty-1')
      const ids = Buffer.alloc(4)

      expect(await kernel.pwrite(device, Buffer.from('ffffffff', 'hex'), CONFIG)).toBe(4)

      await kernel.pread(device, ids, CONFIG)
      expect(ids.readUInt32LE()).toBe(0x3253_4348)
    })

    test('refuses a region that is not there: EFAULT', async () => {
      const { device } = await MttyDriver.make(machine, 'mtty-1')

      expect(said(await kernel.pread(device, Buffer.alloc(1), 8n << 40n))).toBe('EFAULT')
      expect(said(await kernel.pwrite(device, Buffer.alloc(1), 9n << 40n))).toBe('EFAULT')
    })
  })

  describe('a port', () => {
    test('keeps a scratch byte, each port its own', async () => {
      const mtty = await MttyDriver.make(machine, 'mtty-2')

      await mtty.write(UART.scr, 0x5a, 0)
      await mtty.write(UART.scr, 0xa5, 1)

      expect([await mtty.read(UART.scr, 0), await mtty.read(UART.scr, 1)]).toEqual([0x5a, 0xa5])
    })

    test('starts with nothing received, and everything sent', async () => {
      const mtty = await MttyDriver.make(machine, 'mtty-1')
      const registers: number[] = []
      for (let at = 1; at < 8; at++) registers.push(await mtty.read(at))

      expect(registers).toEqual([0, 0xc1, 0, 0, 0x60, 0xb3, 0])
    })

    test('receives what it sends, in order', async () => {
      const mtty = await MttyDriver.make(machine, 'mtty-1')

      for (const byte of [1, 2, 3]) await mtty.write(UART.data, byte)

      expect(await mtty.read(UART.lsr)).toBe(0x01)
      const received = [await mtty.read(0), await mtty.read(0), await mtty.read(0)]
      expect(received).toEqual([1, 2, 3])
      expect(await mtty.read(UART.lsr)).toBe(0x60)
    })

    test('looks empty when its 16 bytes are full, and overruns with the next', async () => {
      const mtty = await MttyDriver.make(machine, 'mtty-1')
      for (let byte = 0; byte < 16; byte++) await mtty.write(UART.data, byte)
      expect(await mtty.read(UART.lsr)).toBe(0x60)

      await mtty.write(UART.data, 16)

      expect(await mtty.read(UART.lsr)).toBe(0x62)
    })

    test('without FIFOs holds one byte', async () => {
      const mtty = await MttyDriver.make(machine, 'mtty-1')
      await mtty.write(UART.iirFcr, 0x06)

      await mtty.write(UART.data, 7)
      await mtty.write(UART.data, 8)

      expect(await mtty.read(UART.lsr)).toBe(0x03)
      expect(await mtty.read(UART.data)).toBe(7)
    })

    test('shows the divisor in place of two registers while DLAB is set', async () => {
      const mtty = await MttyDriver.make(machine, 'mtty-1')
      await mtty.write(UART.ier, 0x0f)
      await mtty.write(UART.lcr, 0x83)
      await mtty.write(UART.data, 0x34)
      await mtty.write(UART.ier, 0x12)

      expect([await mtty.read(UART.data), await mtty.read(UART.ier)]).toEqual([0x34, 0x12])

      await mtty.write(UART.lcr, 0x03)
      expect([await mtty.read(UART.ier), await mtty.read(UART.lcr)]).toEqual([0x0f, 0x03])
    })

    test('says why it interrupts', async () => {
      const mtty = await MttyDriver.make(machine, 'mtty-1')
      await mtty.write(UART.iirFcr, 0x01)
      const causes: number[] = []
      for (const ier of [0, 1, 2, 3]) {
        await mtty.write(UART.ier, ier)
        causes.push(await mtty.read(UART.iirFcr))
      }
      expect(causes).toEqual([0xc1, 0xc1, 0xc2, 0xc2])

      await mtty.write(UART.data, 0x41)
      expect(await mtty.read(UART.iirFcr)).toBe(0xc4)
    })

    test('reports modem signals as no cause at all', async () => {
      const mtty = await MttyDriver.make(machine, 'mtty-1')
      await mtty.write(UART.iirFcr, 0x01)
      await mtty.write(UART.mcr, 0x03)
      await mtty.write(UART.ier, 0x08)

      expect(await mtty.read(UART.iirFcr)).toBe(0xc1)
    })

    test('clears to send, unless flow control holds it', async () => {
      const mtty = await MttyDriver.make(machine, 'mtty-1')
      await mtty.write(UART.iirFcr, 0x00)
      await mtty.write(UART.mcr, 0x20)
      expect(await mtty.read(UART.msr)).toBe(0xb3)

      await mtty.write(UART.data, 1)

      expect(await mtty.read(UART.msr)).toBe(0xa2)
    })
  })

  describe('VFIO_DEVICE_SET_IRQS', () => {
    const ready = async (): Promise<MttyDriver> => {
      const mtty = await MttyDriver.make(machine, 'mtty-1')
      await getDeviceInfo(kernel, mtty.device)
      return mtty
    }

    const trigger = async (mtty: MttyDriver, index: number): Promise<number> => {
      const eventfd = machine.eventfd()
      const set = { flags: EVENTFD | TRIGGER, index, count: 1, data: s32(eventfd) }
      expect(await setIrqs(kernel, mtty.device, set)).toBe(0)
      return eventfd
    }

    test.each<[string, SetIrqs]>([
      ['to trigger MSI before it is set up', { flags: NONE | TRIGGER, index: MSI, count: 1 }],
      ['to turn off MSI before it is set up', { flags: NONE | TRIGGER, index: MSI, count: 0 }],
      ['to mask INTx before it is set up', { flags: NONE | MASK, index: INTX, count: 1 }],
      ['a second vector', { flags: NONE | TRIGGER, index: MSI, start: 1, count: 1 }],
      ['two vectors', { flags: NONE | TRIGGER, index: MSI, count: 2 }],
      ['an index that is not there', { flags: NONE | TRIGGER, index: 5, count: 1 }],
    ])('refuses %s: EINVAL', async (_what, set) => {
      const { device } = await ready()

      expect(said(await setIrqs(kernel, device, set))).toBe('EINVAL')
    })

    test.each<[string, SetIrqs]>([
      ['masking MSI', { flags: NONE | MASK, index: MSI, count: 1 }],
      ['unmasking MSI', { flags: NONE | UNMASK, index: MSI, count: 1 }],
      ['MSI-X', { flags: NONE | TRIGGER, index: 2, count: 1 }],
      ['errors', { flags: NONE | TRIGGER, index: 3, count: 1 }],
      ['the request line', { flags: NONE | TRIGGER, index: 4, count: 1 }],
    ])('does not know %s: ENOTTY', async (_what, set) => {
      const { device } = await ready()

      expect(said(await setIrqs(kernel, device, set))).toBe('ENOTTY')
    })

    test('does not know an eventfd that masks INTx: ENOTTY', async () => {
      const mtty = await ready()
      await trigger(mtty, INTX)
      const data = s32(machine.eventfd())

      for (const action of [MASK, UNMASK]) {
        const set = { flags: EVENTFD | action, index: INTX, count: 1, data }
        expect(said(await setIrqs(kernel, mtty.device, set))).toBe('ENOTTY')
      }
    })

    test('signals MSI for what is received', async () => {
      const mtty = await ready()
      const eventfd = await trigger(mtty, MSI)
      await mtty.write(UART.iirFcr, 0x01)
      await mtty.write(UART.ier, 0x01)

      await mtty.write(UART.data, 0x41)
      expect(await machine.signals(eventfd)).toBe(1n)
    })

    test('signals MSI by hand, and stops when it is turned off', async () => {
      const mtty = await ready()
      const eventfd = await trigger(mtty, MSI)
      const { device } = mtty
      expect(await setIrqs(kernel, device, { flags: NONE | TRIGGER, index: MSI, count: 1 })).toBe(0)
      expect(await machine.signals(eventfd)).toBe(1n)
      const data = new Uint8Array([1])
      expect(
        await setIrqs(kernel, device, { flags: BOOL | TRIGGER, index: MSI, count: 1, data }),
      ).toBe(0)
      expect(await machine.signals(eventfd)).toBe(1n)

      expect(await setIrqs(kernel, device, { flags: NONE | TRIGGER, index: MSI, count: 0 })).toBe(0)

      const refused = await setIrqs(kernel, device, { flags: NONE | TRIGGER, index: MSI, count: 1 })
      expect(said(refused)).toBe('EINVAL')
    })

    test('masks INTx with the signal, until it is unmasked', async () => {
      const mtty = await ready()
      const eventfd = await trigger(mtty, INTX)
      const fire = { flags: NONE | TRIGGER, index: INTX, count: 1 }
      await setIrqs(kernel, mtty.device, fire)
      await setIrqs(kernel, mtty.device, fire)
      expect(await machine.signals(eventfd)).toBe(1n)

      await setIrqs(kernel, mtty.device, { flags: NONE | UNMASK, index: INTX, count: 1 })
      expect(machine.wasSignalled(eventfd)).toBe(false)
      await setIrqs(kernel, mtty.device, fire)
      expect(await machine.signals(eventfd)).toBe(1n)
    })

    test('refuses INTx while MSI is set up: EINVAL', async () => {
      const mtty = await ready()
      await trigger(mtty, MSI)
      const set = { flags: EVENTFD | TRIGGER, index: INTX, count: 1, data: s32(machine.eventfd()) }

      expect(said(await setIrqs(kernel, mtty.device, set))).toBe('EINVAL')
    })
  })
})
