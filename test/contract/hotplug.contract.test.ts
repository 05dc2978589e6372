/** Taking a function from its bus while a process has it open, and finding it again. */

import { beforeEach, describe, expect, test } from 'vitest'
import {
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_PCI_REQ_IRQ_INDEX,
} from '../../src/abi/device.ts'
import { must, type Said, said } from './answers.ts'
import { describeType1 } from './backends.ts'
import { getDeviceFd, s32, setIrqs } from './calls.ts'

const PCI = '/sys/bus/pci'

describeType1('it is the same bus')('hot-plug', (machine) => {
  const { kernel } = machine
  let edu = ''
  let other = ''
  let device = ''

  const write = async (path: string, data: string): Promise<Said> =>
    said(await kernel.writeFile(path, data))
  const isListed = async (address = edu): Promise<boolean> =>
    (await machine.names(`${PCI}/devices`)).includes(address)
  const rescan = () => write(`${PCI}/rescan`, '1')
  const listening = async (fd: number): Promise<number> => {
    const eventfd = machine.eventfd()
    const flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER
    const index = VFIO_PCI_REQ_IRQ_INDEX
    must(await setIrqs(kernel, fd, { flags, index, count: 1, data: s32(eventfd) }), 'arm REQ')
    return eventfd
  }

  /** A write that is still under way, and whether it has been answered. */
  const begun = (path: string, data: string) => {
    const write = { isDone: false, answer: Promise.resolve<Said>(0) }
    write.answer = kernel.writeFile(path, data).then((answer) => {
      write.isDone = true
      return said(answer)
    })
    return write
  }

  beforeEach(async () => {
    ;[edu, other] = await machine.edus()
    device = `${PCI}/devices/${edu}`
  })

  describe('remove', () => {
    test('takes a function that no process has open from the bus, and its group with it', async () => {
      const group = await machine.groupOf(edu)

      expect(await write(`${device}/remove`, '1')).toBe(1)

      expect(await isListed()).toBe(false)
      expect(await machine.names('/sys/kernel/iommu_groups')).not.toContain(`${group}`)
      expect(await machine.names('/dev/vfio')).not.toContain(`${group}`)
      expect(await machine.names(`${PCI}/drivers/vfio-pci`)).not.toContain(edu)
      expect(await write(`${PCI}/drivers_probe`, edu)).toBe('ENODEV')
      await rescan()
    })

    test('does nothing for 0, and refuses anything but a number: EINVAL', async () => {
      expect(await write(`${device}/remove`, '0')).toBe(1)
      expect(await write(`${device}/remove`, 'x')).toBe('EINVAL')

      expect(await isListed()).toBe(true)
    })

    test('asks the user for the device, and waits until it is closed', async () => {
      const { device: open } = await machine.opened(edu)
      const eventfd = await listening(open)

      const removed = begun(`${device}/remove`, '1')
      await machine.signals(eventfd)
      expect([removed.isDone, await isListed()]).toEqual([false, true])

      await machine.close(open)
      expect(await removed.answer).toBe(1)
      expect(await isListed()).toBe(false)
      await rescan()
    })

    test('shows no driver and no cdev from its start, and no process opens the device any more', async () => {
      const { group, device: open } = await machine.opened(edu)
      const eventfd = await listening(open)

      const removed = begun(`${device}/remove`, '1')
      await machine.signals(eventfd)

      expect(await machine.driverOf(edu)).toBeUndefined()
      expect(said((await kernel.readDir(`${device}/vfio-dev`)) as number)).toBe('ENOENT')
      expect(said(await getDeviceFd(kernel, group, edu))).toBe('ENODEV')
      expect(await machine.names('/dev/vfio')).toContain(`${await machine.groupOf(edu)}`)
      expect(await write(`${device}/remove`, '1')).toBe('ENOENT')
      await machine.close(open)
      await removed.answer
      await rescan()
    })

    test('that waits holds up the removal of every other function', async () => {
      const { device: open } = await machine.opened(edu)
      const eventfd = await listening(open)
      const removed = begun(`${device}/remove`, '1')
      await machine.signals(eventfd)

      const second = begun(`${PCI}/devices/${other}/remove`, '1')
      await machine.signals(eventfd)
      expect([second.isDone, await isListed(other)]).toEqual([false, true])

      await machine.close(open)
      expect([await removed.answer, await second.answer]).toEqual([1, 1])
      await rescan()
    })
  })

  describe('rescan', () => {
    test('finds a removed function, without its override and without a driver', async () => {
      await write(`${device}/remove`, '1')

      expect(await rescan()).toBe(1)

      expect(await machine.text(`${device}/vendor`)).toBe('0x1234')
      expect(await machine.text(`${device}/driver_override`)).toBe('(null)')
      expect(await machine.driverOf(edu)).toBeUndefined()
      await machine.bind(edu)
      expect((await machine.opened(edu)).device).toBeGreaterThan(0)
    })

    test('of another function finds a removed function of the same bus', async () => {
      await write(`${device}/remove`, '1')

      expect(await write(`${PCI}/devices/${other}/rescan`, '1')).toBe(1)

      expect(await isListed()).toBe(true)
    })

    test('gives a function to the driver that knows it', async () => {
      const [card = ''] = await machine.functions(0x8086, 0x10d3)
      expect(await machine.driverOf(card)).toBe('e1000e')
      await write(`${PCI}/devices/${card}/remove`, '1')

      await rescan()

      expect(await machine.driverOf(card)).toBe('e1000e')
    })

    test('finds the functions behind a removed bridge', async () => {
      const [bridge = ''] = await machine.functions(0x1b36, 0x000c)
      const cards = await machine.functions(0x8086, 0x10d3)
      await write(`${PCI}/devices/${bridge}/remove`, '1')
      expect(await machine.functions(0x8086, 0x10d3)).not.toEqual(cards)

      await rescan()

      expect(await machine.functions(0x8086, 0x10d3)).toEqual(cards)
      expect(await machine.driverOf(bridge)).toBe('pcieport')
    })
  })

  describe('unbind that waits', () => {
    test('holds up a bind of the function, and no new driver_override', async () => {
      const { device: open } = await machine.opened(edu)
      const eventfd = await listening(open)
      const unbound = begun(`${PCI}/drivers/vfio-pci/unbind`, edu)
      await machine.signals(eventfd)

      const bound = begun(`${PCI}/drivers/vfio-pci/bind`, edu)
      await machine.signals(eventfd)
      expect(await write(`${device}/driver_override`, 'vfio-pci')).toBe(8)
      expect([unbound.isDone, bound.isDone]).toEqual([false, false])

      await machine.close(open)
      expect([await unbound.answer, await bound.answer]).toEqual([edu.length, edu.length])
      expect(await machine.driverOf(edu)).toBe('vfio-pci')
    })
  })
})
