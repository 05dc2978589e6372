/**
 * What tools/testing/selftests/vfio of the kernel checks, in each of its modes; the names in
 * brackets are the cases there. Its drivers are for hardware that nobody here has: edu's DMA stands
 * for theirs.
 */

import { beforeAll, describe, expect, test } from 'vitest'
import {
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1v2_IOMMU,
} from '../../src/abi/container.ts'
import {
  VFIO_DEVICE_FLAGS_RESET,
  VFIO_DEVICE_RESET,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_PCI_BAR0_REGION_INDEX,
  VFIO_PCI_BAR5_REGION_INDEX,
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_PCI_MSI_IRQ_INDEX,
  VFIO_PCI_MSIX_IRQ_INDEX,
  VFIO_REGION_INFO_FLAG_MMAP,
  VFIO_REGION_INFO_FLAG_READ,
  VFIO_REGION_INFO_FLAG_WRITE,
} from '../../src/abi/device.ts'
import { PCI_COMMAND, PCI_COMMAND_MASTER, PCI_DEVICE_ID, PCI_VENDOR_ID } from '../../src/abi/pci.ts'
import { must, type Said, said } from './answers.ts'
import { describeType1 } from './backends.ts'
import {
  getDeviceInfo,
  getInfo,
  getIrqInfo,
  getRegionInfo,
  mapDma,
  s32,
  setContainer,
  setIommu,
  setIrqs,
  unmapDma,
} from './calls.ts'
import { EduDriver, REG, START, THEN_IRQ } from './edu-driver.ts'
import { boundAndAttached, type Iommufd, openIommufd, PAGE, U64_MAX } from './iommufd-calls.ts'

const MODES = [
  'vfio_type1_iommu',
  'vfio_type1v2_iommu',
  'iommufd_compat_type1',
  'iommufd_compat_type1v2',
  'iommufd',
] as const
type Mode = (typeof MODES)[number]

/** A device, and the address space that it is in. */
interface Space {
  readonly device: number
  readonly last: bigint
  map(at: { iova: bigint; vaddr: bigint; size: bigint }): Promise<Said>
  unmap(iova: bigint, size: bigint): Promise<{ readonly answer: Said; readonly size: bigint }>
  unmapAll(): Promise<{ readonly answer: Said; readonly size: bigint }>
}

const BASE = 0x100_0000n
const TWO_PAGES = 2n * PAGE
const region = (index: number): bigint => BigInt(index) << 40n
const config = region(VFIO_PCI_CONFIG_REGION_INDEX)

describeType1('it has all modes by itself')('the selftests of vfio', (machine) => {
  const { kernel } = machine
  let edu0 = ''
  let card = ''

  beforeAll(async () => {
    edu0 = (await machine.edus())[0]
    card = await machine.card()
  })

  /** By the requests of a container, whatever stands behind them. */
  const containerSpace = async (mode: Mode, name: string): Promise<Space> => {
    const isCompat = mode.startsWith('iommufd')
    const fd = isCompat ? (await openIommufd(machine)).fd : await machine.container()
    const group = await machine.group(name)
    must(await setContainer(kernel, group, fd), 'set the container')
    const model = mode.includes('v2') ? VFIO_TYPE1v2_IOMMU : VFIO_TYPE1_IOMMU
    must(await setIommu(kernel, fd, model), 'set the model')
    const device = await machine.deviceOf(group, name)
    const unmap = async (wanted: Parameters<typeof unmapDma>[2]) => {
      const { answer, size } = await unmapDma(kernel, fd, wanted)
      return { answer: said(answer), size }
    }
    return {
      device,
      last: await lastIova(fd),
      map: async (at) => said(await mapDma(kernel, fd, at)),
      unmap: (iova, size) => unmap({ iova, size }),
      unmapAll: () => unmap({ flags: VFIO_DMA_UNMAP_FLAG_ALL }),
    }
  }

  const iommufdSpace = async (name: string): Promise<Space> => {
    const iommufd: Iommufd = await openIommufd(machine)
    const ioas = await iommufd.newIoas()
    const { device } = await boundAndAttached(machine, iommufd, name, ioas)
    const unmap = async (iova: bigint, size: bigint) => {
      const { answer, length } = await iommufd.unmap(ioas, iova, size)
      return { answer, size: length }
    }
    const { ranges } = await iommufd.ranges(ioas)
    return {
      device,
      last: ranges.at(-1)?.last ?? 0n,
      map: ({ iova, vaddr, size }) => iommufd.mapAt(ioas, { iova, vaddr, length: size }),
      unmap,
      unmapAll: () => unmap(0n, U64_MAX),
    }
  }

  const spaceOf = (mode: Mode, name = edu0): Promise<Space> =>
    mode === 'iommufd' ? iommufdSpace(name) : containerSpace(mode, name)

  /** The end of the last range that GET_INFO tells of. */
  const lastIova = async (fd: number): Promise<bigint> => {
    const { bytes, info } = await getInfo(kernel, fd)
    const view = new DataView(bytes.buffer, bytes.byteOffset)
    for (let at = info.cap_offset; at !== 0; at = view.getUint32(at + 4, true)) {
      if (view.getUint16(at, true) !== 1) continue
      const count = view.getUint32(at + 8, true)
      return view.getBigUint64(at + 16 * count + 8, true)
    }
    throw new Error('Cannot find the ranges of the container')
  }

  describe.each(MODES)('%s', (mode) => {
    test('maps, and unmaps as much, and then it is gone (dma_map_unmap)', async () => {
      const space = await spaceOf(mode)
      const { segment } = await machine.memory(4096)
      const edu = await new EduDriver(machine, space.device).enable()
      segment.bytes.fill(0x11)
      expect(await space.map({ iova: BASE, vaddr: segment.address, size: PAGE })).toBe(0)
      await edu.fetch(BASE, 64)

      expect(await space.unmap(BASE, PAGE)).toEqual({ answer: 0, size: PAGE })

      segment.bytes.fill(0x22)
      await edu.store(BASE, 64)
      expect(segment.bytes[0]).toBe(0x22)
    })

    test('maps and unmaps what ends with the last range (unmap_range, dma_map_limit)', async () => {
      const space = await spaceOf(mode)
      const { segment } = await machine.memory(8192)
      const iova = space.last + 1n - TWO_PAGES

      expect(await space.map({ iova, vaddr: segment.address, size: TWO_PAGES })).toBe(0)
      expect(await space.unmap(iova, TWO_PAGES)).toEqual({ answer: 0, size: TWO_PAGES })
    })

    test('unmaps all that ends with the last range (unmap_all)', async () => {
      const space = await spaceOf(mode)
      const { segment } = await machine.memory(8192)
      const iova = space.last + 1n - TWO_PAGES

      expect(await space.map({ iova, vaddr: segment.address, size: TWO_PAGES })).toBe(0)
      expect(await space.unmapAll()).toEqual({ answer: 0, size: TWO_PAGES })
    })

    // type1 says EINVAL until 6.18: test/sim/versions.test.ts.
    const wrong = mode.startsWith('vfio') ? 'EINVAL' : 'EOVERFLOW'
    test(`refuses a range that wraps: ${wrong} (overflow)`, async () => {
      const space = await spaceOf(mode)
      const { segment } = await machine.memory(8192)
      const at = { iova: U64_MAX + 1n - PAGE, vaddr: segment.address, size: TWO_PAGES }

      expect(await space.map(at)).toBe(wrong)
      expect((await space.unmap(at.iova, at.size)).answer).toBe(wrong)
    })

    const isRefused = mode.startsWith('iommufd')
    const ending = isRefused ? 'no memory: EFAULT' : 'mapped as memory is'
    test(`a BAR is ${ending} (map_full_bar, map_partial_bar, map_bar_misaligned)`, async () => {
      const space = await spaceOf(mode)
      const { device } = await machine.opened(card)
      const whole = { offset: region(VFIO_PCI_BAR0_REGION_INDEX), length: 0x2_0000n }
      const bar = await kernel.mmap(device, { ...whole, access: 'read-write' })
      if (typeof bar === 'number') throw new Error(`Cannot map the BAR: ${bar}`)
      const size = BigInt(bar.length)

      const maps = [
        { iova: BASE, vaddr: bar.address, size },
        { iova: 2n * BASE, vaddr: bar.address + PAGE, size: PAGE },
        { iova: 3n * BASE + PAGE, vaddr: bar.address, size: size - PAGE },
      ]
      for (const at of maps) expect(await space.map(at)).toBe(isRefused ? 'EFAULT' : 0)

      await space.unmapAll()
      await kernel.munmap(bar)
    })
  })

  describe('vfio_pci_device_test', () => {
    const read16 = async (device: number, at: number): Promise<number> => {
      const bytes = Buffer.alloc(2)
      must(await kernel.pread(device, bytes, config + BigInt(at)), 'read the config space')
      return bytes.readUInt16LE()
    }

    test('the ids are those of sysfs, and bus mastering is off until set (config_space_read_write)', async () => {
      const { device } = await machine.opened(edu0)
      const id = async (name: string) =>
        Number(await machine.text(`/sys/bus/pci/devices/${edu0}/${name}`))
      expect(await read16(device, PCI_VENDOR_ID)).toBe(await id('vendor'))
      expect(await read16(device, PCI_DEVICE_ID)).toBe(await id('device'))

      const command = await read16(device, PCI_COMMAND)
      expect(command & PCI_COMMAND_MASTER).toBe(0)
      for (const bit of [PCI_COMMAND_MASTER, 0]) {
        const word = Buffer.alloc(2)
        word.writeUInt16LE((command & ~PCI_COMMAND_MASTER) | bit)
        expect(await kernel.pwrite(device, word, config + BigInt(PCI_COMMAND))).toBe(2)
        expect((await read16(device, PCI_COMMAND)) & PCI_COMMAND_MASTER).toBe(bit)
      }
    })

    test('each BAR with a size can be read and written, and mapped from a page on (validate_bars)', async () => {
      const rw = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE
      let mappable = 0
      for (const name of [edu0, card]) {
        const { device } = await machine.opened(name)
        for (let index = VFIO_PCI_BAR0_REGION_INDEX; index <= VFIO_PCI_BAR5_REGION_INDEX; index++) {
          const { answer, flags, size, offset } = await getRegionInfo(kernel, device, index)
          expect([answer, offset]).toEqual([0, region(index)])
          expect(flags & rw).toBe(size === 0n ? 0 : rw)
          const mayMap = (flags & VFIO_REGION_INFO_FLAG_MMAP) !== 0
          if (mayMap) expect(size).toBeGreaterThanOrEqual(PAGE)
          mappable += mayMap ? 1 : 0
        }
      }
      expect(mappable).toBe(4)
    })

    test.each([
      ['MSI', VFIO_PCI_MSI_IRQ_INDEX],
      ['MSI-X', VFIO_PCI_MSIX_IRQ_INDEX],
    ])('each vector of %s signals its eventfd (enable_trigger_disable)', async (_what, index) => {
      const { device } = await machine.opened(card)
      const { count } = await getIrqInfo(kernel, device, index)
      expect(count).toBeGreaterThan(0)
      const eventfds = Array.from({ length: count }, () => machine.eventfd())
      const trigger = VFIO_IRQ_SET_ACTION_TRIGGER
      const enable = { index, flags: VFIO_IRQ_SET_DATA_EVENTFD | trigger, count }
      expect(await setIrqs(kernel, device, { ...enable, data: s32(...eventfds) })).toBe(0)

      const fire = { index, flags: VFIO_IRQ_SET_DATA_NONE | trigger }
      for (const [start, eventfd] of eventfds.entries()) {
        expect(await setIrqs(kernel, device, { ...fire, start, count: 1 })).toBe(0)
        expect(await machine.signals(eventfd)).toBe(1n)
        expect(eventfds.filter((fd) => machine.wasSignalled(fd))).toEqual([])
      }
      expect(await setIrqs(kernel, device, { ...fire, count: 0 })).toBe(0)
      expect(said(await setIrqs(kernel, device, { ...fire, count: 1 }))).toBe('EINVAL')
    })

    test('a device that says it can be reset is (reset)', async () => {
      const { device } = await machine.opened(card)
      expect((await getDeviceInfo(kernel, device)).flags & VFIO_DEVICE_FLAGS_RESET).not.toBe(0)

      expect(await kernel.ioctl(device, VFIO_DEVICE_RESET.number, undefined)).toBe(0)
    })
  })

  describe('vfio_pci_driver_test', () => {
    const PATTERN = 16
    const CHUNK = 1024

    /** Memory that is mapped, in two halves: a source and a destination. */
    const ready = async () => {
      const space = await spaceOf('iommufd')
      const edu = await new EduDriver(machine, space.device).enable()
      await edu.write32(REG.irqAcknowledge, 0xffff_ffff)
      const { segment } = await machine.memory(8192)
      const at = { iova: BASE, vaddr: segment.address, size: TWO_PAGES }
      expect(await space.map(at)).toBe(0)
      for (let byte = 0; byte < 4096; byte++) segment.bytes[byte] = (byte * PATTERN + byte) & 0xff
      return { edu, segment }
    }
    const memcpy = async (edu: EduDriver, from: number, to: number, length: number) => {
      await edu.fetch(BASE + BigInt(from), length)
      await edu.store(BASE + BigInt(to), length)
    }
    const msi = async (edu: EduDriver): Promise<number> => {
      const eventfd = machine.eventfd()
      const flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER
      const set = { index: VFIO_PCI_MSI_IRQ_INDEX, flags, count: 1, data: s32(eventfd) }
      expect(await setIrqs(kernel, edu.device, set)).toBe(0)
      return eventfd
    }

    test('a device is opened and closed again and again (init_remove)', async () => {
      for (let round = 0; round < 10; round++) {
        const { edu } = await ready()
        expect(await edu.read32(REG.id)).toBe(0x0100_00ed)
        await machine.cleanUp()
      }
    })

    test('what it copies arrives (memcpy_success)', async () => {
      const { edu, segment } = await ready()

      // All of its buffer at once is too much for the emulator's device.
      for (const at of [0, 2048]) await memcpy(edu, at, 4096 + at, 2048)

      expect(segment.bytes.slice(4096)).toEqual(segment.bytes.slice(0, 4096))
    })

    test('where nothing is mapped it neither reads nor writes, and it goes on (memcpy_from_unmapped_iova, memcpy_to_unmapped_iova)', async () => {
      const { edu, segment } = await ready()
      const before = segment.bytes.slice()

      await edu.fetch(BASE + TWO_PAGES, 64)
      await edu.store(BASE + TWO_PAGES, 64)
      expect(segment.bytes).toEqual(before)

      await memcpy(edu, 0, 4096, 64)
      expect(segment.bytes.slice(4096, 4160)).toEqual(before.slice(0, 64))
    })

    test('its interrupt fires when it is asked for (send_msi)', async () => {
      const { edu } = await ready()
      const eventfd = await msi(edu)

      await edu.write32(REG.irqRaise, 1)

      expect(await machine.signals(eventfd)).toBe(1n)
    })

    test('copies and interrupts mix (mix_and_match)', async () => {
      const { edu, segment } = await ready()
      const eventfd = await msi(edu)
      for (let round = 0; round < 5; round++) {
        segment.bytes.fill(round + 1, 0, 64)
        await memcpy(edu, 0, 4096, 64)
        expect(segment.bytes.slice(4096, 4160)).toEqual(segment.bytes.slice(0, 64))
        await edu.fetch(BASE + TWO_PAGES, 64)
        const command = START | THEN_IRQ
        await edu.begin({ source: BASE, destination: 0x40000n, length: 64, command })
        await edu.done()
        expect(await machine.signals(eventfd)).toBe(1n)
        await edu.write32(REG.irqAcknowledge, 0xffff_ffff)
      }
    })

    test('many copies, one behind the other, all arrive (memcpy_storm)', async () => {
      const { edu, segment } = await ready()

      for (let round = 0; round < 32; round++) {
        const from = (round * 96) % (4096 - CHUNK)
        const to = 4096 + ((round * 160) % (4096 - CHUNK))
        segment.bytes[from] = round
        await memcpy(edu, from, to, CHUNK)
        expect(segment.bytes.slice(to, to + CHUNK)).toEqual(segment.bytes.slice(from, from + CHUNK))
      }
    })
  })
})
