/** The configuration space and the BARs of a device with vfio-pci, by pread and pwrite. */

import { beforeAll, describe, expect, test } from 'vitest'
import {
  PCI_BASE_ADDRESS_0,
  PCI_CAP_ID_MSI,
  PCI_CAPABILITY_LIST,
  PCI_CLASS_REVISION,
  PCI_COMMAND,
  PCI_COMMAND_IO,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_MEMORY,
  PCI_DEVICE_ID,
  PCI_INTERRUPT_LINE,
  PCI_INTERRUPT_PIN,
  PCI_STATUS,
  PCI_STATUS_CAP_LIST,
  PCI_SUBSYSTEM_VENDOR_ID,
  PCI_VENDOR_ID,
} from '../../src/abi/pci.ts'
import { said } from './answers.ts'
import { describeContract } from './backends.ts'

const CONFIG = 7n << 40n
const BAR1 = 1n << 40n
const ROM = 6n << 40n
const PCI_CACHE_LINE_SIZE = 0x0c
const EDU_ID = 0x010000ed

describeContract('the regions of a PCI device', (machine) => {
  const { kernel } = machine
  let edu = ''

  beforeAll(async () => {
    ;[edu] = await machine.edus()
  })

  const read = async (device: number, offset: bigint, width = 4): Promise<number> => {
    const bytes = Buffer.alloc(width)
    expect(await kernel.pread(device, bytes, offset)).toBe(width)
    return bytes.readUIntLE(0, width)
  }

  const write = async (
    device: number,
    offset: bigint,
    value: number,
    width = 4,
  ): Promise<number> => {
    const bytes = Buffer.alloc(width)
    bytes.writeUIntLE(value, 0, width)
    return kernel.pwrite(device, bytes, offset)
  }

  const config = (at: number): bigint => CONFIG + BigInt(at)

  describe('the configuration space', () => {
    test('says what the device is', async () => {
      const { device } = await machine.opened(edu)

      expect(await read(device, config(PCI_VENDOR_ID), 2)).toBe(0x1234)
      expect(await read(device, config(PCI_DEVICE_ID), 2)).toBe(0x11e8)
      expect(await read(device, config(PCI_CLASS_REVISION))).toBe(0x00ff_0010)
      expect(await read(device, config(PCI_SUBSYSTEM_VENDOR_ID))).toBe(0x1100_1af4)
      expect(await read(device, config(PCI_INTERRUPT_PIN), 1)).toBe(1)
      expect((await read(device, config(PCI_STATUS), 2)) & PCI_STATUS_CAP_LIST).not.toBe(0)
    })

    test('lists MSI among the capabilities, not enabled', async () => {
      const { device } = await machine.opened(edu)
      const at = await read(device, config(PCI_CAPABILITY_LIST), 1)

      expect(await read(device, config(at), 1)).toBe(PCI_CAP_ID_MSI)
      expect(await read(device, config(at + 2), 2)).toBe(0x80)
    })

    test('comes with memory decoding and without bus mastering', async () => {
      const { device } = await machine.opened(edu)

      const command = await read(device, config(PCI_COMMAND), 2)

      expect(command & PCI_COMMAND_MEMORY).not.toBe(0)
      expect(command & PCI_COMMAND_MASTER).toBe(0)
    })

    test('loses bus mastering when the device is closed and opened again', async () => {
      const { group, device } = await machine.opened(edu)
      await write(device, config(PCI_COMMAND), PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2)
      await machine.close(device)

      const again = await machine.deviceOf(group, edu)

      expect((await read(again, config(PCI_COMMAND), 2)) & PCI_COMMAND_MASTER).toBe(0)
    })

    test('keeps what a client writes to the command register', async () => {
      const { device } = await machine.opened(edu)

      await write(device, config(PCI_COMMAND), 0, 2)
      expect(await read(device, config(PCI_COMMAND), 2)).toBe(0)

      await write(device, config(PCI_COMMAND), 0xffff, 2)
      expect(await read(device, config(PCI_COMMAND), 2)).toBe(
        PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | 0x100 | 0x400,
      )
      await write(device, config(PCI_COMMAND), PCI_COMMAND_MEMORY, 2)
    })

    test.each([
      ['the ids', PCI_VENDOR_ID],
      ['the class', PCI_CLASS_REVISION],
      ['the subsystem', PCI_SUBSYSTEM_VENDOR_ID],
      ['the list of capabilities', PCI_CAPABILITY_LIST],
    ])('does not let a client change %s', async (_what, at) => {
      const { device } = await machine.opened(edu)
      const before = await read(device, config(at))

      expect(await write(device, config(at), ~before >>> 0)).toBe(4)

      expect(await read(device, config(at))).toBe(before)
    })

    test('keeps the interrupt line and the cache line size', async () => {
      const { device } = await machine.opened(edu)

      await write(device, config(PCI_INTERRUPT_LINE), 0x5a, 1)
      await write(device, config(PCI_CACHE_LINE_SIZE), 0x10, 1)

      expect(await read(device, config(PCI_INTERRUPT_LINE), 1)).toBe(0x5a)
      expect(await read(device, config(PCI_CACHE_LINE_SIZE), 1)).toBe(0x10)
      await write(device, config(PCI_CACHE_LINE_SIZE), 0, 1)
    })

    test('tells the size of a BAR to who writes all ones', async () => {
      const { device } = await machine.opened(edu)
      const before = await read(device, config(PCI_BASE_ADDRESS_0))

      await write(device, config(PCI_BASE_ADDRESS_0), 0xffff_ffff)
      expect(await read(device, config(PCI_BASE_ADDRESS_0))).toBe(0xfff0_0000)

      await write(device, config(PCI_BASE_ADDRESS_0), before)
      expect(await read(device, config(PCI_BASE_ADDRESS_0))).toBe(before)
    })

    test('shows a BAR that is not there as 0, whatever is written', async () => {
      const { device } = await machine.opened(edu)

      await write(device, config(PCI_BASE_ADDRESS_0 + 4), 0xffff_ffff)

      expect(await read(device, config(PCI_BASE_ADDRESS_0 + 4))).toBe(0)
    })

    test('can be read in one piece', async () => {
      const { device } = await machine.opened(edu)
      const all = Buffer.alloc(256)

      expect(await kernel.pread(device, all, CONFIG)).toBe(256)

      expect(all.readUInt32LE(0)).toBe(0x11e8_1234)
    })

    test('refuses what reaches over its end: EFAULT', async () => {
      const { device } = await machine.opened(edu)

      expect(said(await kernel.pread(device, Buffer.alloc(4), config(256)))).toBe('EFAULT')
      expect(said(await kernel.pread(device, Buffer.alloc(4), config(254)))).toBe('EFAULT')
      expect(said(await kernel.pwrite(device, Buffer.alloc(4), config(254)))).toBe('EFAULT')
    })
  })

  describe('a BAR', () => {
    test('answers with the registers of the device', async () => {
      const { device } = await machine.opened(edu)

      expect(await read(device, 0n)).toBe(EDU_ID)
    })

    test('refuses a BAR that is not there, or no region at all: EINVAL', async () => {
      const { device } = await machine.opened(edu)

      for (const offset of [BAR1, ROM, 8n << 40n, 9n << 40n])
        expect(said(await kernel.pread(device, Buffer.alloc(4), offset))).toBe('EINVAL')
    })

    test('refuses an offset at its end, and is short across it', async () => {
      const { device } = await machine.opened(edu)

      expect(said(await kernel.pread(device, Buffer.alloc(4), 0x10_0000n))).toBe('EINVAL')
      expect(await kernel.pread(device, Buffer.alloc(8), 0xf_fffcn)).toBe(4)
    })

    test('refuses while memory decoding is off: EIO', async () => {
      const { device } = await machine.opened(edu)
      await write(device, config(PCI_COMMAND), 0, 2)

      expect(said(await kernel.pread(device, Buffer.alloc(4), 0n))).toBe('EIO')
      expect(said(await kernel.pwrite(device, Buffer.alloc(4), 4n))).toBe('EIO')

      await write(device, config(PCI_COMMAND), PCI_COMMAND_MEMORY, 2)
      expect(await read(device, 0n)).toBe(EDU_ID)
    })

    test('reads nothing into nothing: 0', async () => {
      const { device } = await machine.opened(edu)

      expect(await kernel.pread(device, Buffer.alloc(0), 0n)).toBe(0)
    })

    test('is what read(2) begins with, and goes on from', async () => {
      const { device } = await machine.opened(edu)
      const [first, second] = [Buffer.alloc(4), Buffer.alloc(4)]
      await write(device, 4n, 0x1234_5678)

      expect(await kernel.read(device, first)).toBe(4)
      expect(await kernel.read(device, second)).toBe(4)

      expect(first.readUInt32LE()).toBe(EDU_ID)
      expect(second.readUInt32LE()).toBe(~0x1234_5678 >>> 0)
    })
  })
})
