/** mmap(2) of a device's regions, and device memory as what another device reaches: peer to peer. */

import { beforeAll, describe, expect, test } from 'vitest'
import { VFIO_REGION_INFO_FLAG_MMAP } from '../../src/abi/device.ts'
import { PCI_COMMAND, PCI_COMMAND_MEMORY } from '../../src/abi/pci.ts'
import type { MapRequest } from '../../src/kernel/port.ts'
import type { Segment } from '../../src/os/memory.ts'
import { said } from './answers.ts'
import { describeContract, unless } from './backends.ts'
import { getRegionInfo, mapDma, unmapDma } from './calls.ts'
import { boundAndAttached, openCdev, openIommufd } from './iommufd-calls.ts'

const PAGE = 4096n
const CONFIG = 7n << 40n
const IOVA = 0x100_0000n
/** Receive Address Low of the card's first BAR: 32 bits that keep what is written. */
const RAL = 0x5400n
/** The BARs of the card: one of them is ports. */
const MEMORY_BAR = 0
const PORT_BAR = 2
const ROM = 6
const NO_REGION = 9

describeContract('mmap of a device', (machine) => {
  const { kernel } = machine
  let card = ''

  beforeAll(async () => {
    card = await machine.card()
  })

  const regionAt = (index: number, at = 0n): bigint => (BigInt(index) << 40n) + at

  /** Lets the device decode its memory, or not. */
  const setMemory = async (device: number, isEnabled: boolean): Promise<void> => {
    const command = Buffer.alloc(2)
    await kernel.pread(device, command, CONFIG + BigInt(PCI_COMMAND))
    const others = command.readUInt16LE() & ~PCI_COMMAND_MEMORY
    command.writeUInt16LE(others | (isEnabled ? PCI_COMMAND_MEMORY : 0))
    expect(await kernel.pwrite(device, command, CONFIG + BigInt(PCI_COMMAND))).toBe(2)
  }

  const opened = async () => {
    const made = await machine.opened(card)
    await setMemory(made.device, true)
    return made
  }

  const map = (fd: number, request: Partial<MapRequest> = {}): Promise<Segment | number> =>
    machine.mmap(fd, { offset: 0n, length: PAGE, access: 'read-write', ...request })

  const mapped = async (fd: number, request: Partial<MapRequest> = {}): Promise<Segment> => {
    const segment = await map(fd, request)
    if (typeof segment === 'number') throw new Error(`Cannot map the BAR: ${said(segment)}`)
    return segment
  }

  const refusal = async (fd: number, request: Partial<MapRequest> = {}) => {
    const segment = await map(fd, request)
    return typeof segment === 'number' ? said(segment) : 'mapped'
  }

  test('shows the registers that pread and pwrite reach', async () => {
    const { device } = await opened()
    const value = Buffer.alloc(4)
    value.writeUInt32LE(0x1234_5678)
    const { bytes } = await mapped(device, { offset: RAL & ~(PAGE - 1n) })
    const registers = new Uint32Array(bytes.buffer, bytes.byteOffset + Number(RAL % PAGE), 1)

    expect(await kernel.pwrite(device, value, regionAt(MEMORY_BAR, RAL))).toBe(4)
    expect(registers[0]).toBe(0x1234_5678)
    registers[0] = 0x9abc_def0
    expect(await kernel.pread(device, value, regionAt(MEMORY_BAR, RAL))).toBe(4)
    expect(value.readUInt32LE()).toBe(0x9abc_def0)
  })

  test('maps all of a region that says so, and no page more: EINVAL', async () => {
    const { device } = await opened()
    const { size, flags } = await getRegionInfo(kernel, device, MEMORY_BAR)

    expect(flags & VFIO_REGION_INFO_FLAG_MMAP).toBe(VFIO_REGION_INFO_FLAG_MMAP)
    expect((await mapped(device, { length: size })).length).toBe(Number(size))
    expect(await refusal(device, { length: size + PAGE })).toBe('EINVAL')
    expect(await refusal(device, { offset: size })).toBe('EINVAL')
  })

  test('refuses ports, the ROM, the configuration space and an offset outside every region: EINVAL', async () => {
    const { device } = await opened()
    const said = []
    for (const index of [PORT_BAR, ROM, 7, NO_REGION])
      said.push(await refusal(device, { offset: regionAt(index) }))

    expect(said).toEqual(['EINVAL', 'EINVAL', 'EINVAL', 'EINVAL'])
  })

  test('refuses nothing, and part of a page: EINVAL', async () => {
    const { device } = await opened()

    expect(await refusal(device, { length: 0n })).toBe('EINVAL')
    expect(await refusal(device, { offset: 512n })).toBe('EINVAL')
  })

  test('is for devices: ENODEV of a container, a group and an iommufd, EBADF of no file', async () => {
    const { container, group } = await opened()
    const { fd } = await openIommufd(machine)

    expect([await refusal(container), await refusal(group), await refusal(fd)]).toEqual([
      'ENODEV',
      'ENODEV',
      'ENODEV',
    ])
    expect(await refusal(9999)).toBe('EBADF')
  })

  test('refuses a driver without mappable regions, and a cdev that is not bound: EINVAL', async () => {
    const { device } = await machine.opened(await machine.mtty('mtty-1'))

    expect(await refusal(device)).toBe('EINVAL')
    expect(await refusal(await openCdev(machine, card))).toBe('EINVAL')
  })

  test('maps a region through a bound cdev', async () => {
    const iommufd = await openIommufd(machine)
    const { device } = await boundAndAttached(machine, iommufd, card, await iommufd.newIoas())

    expect((await mapped(device)).length).toBe(4096)
  })

  unless(machine.isCompat, 'it keeps the iommufd, and the group can be opened')(
    'keeps everything in use until it is unmapped: group open is EBUSY',
    async () => {
      const { device, group, container } = await opened()
      const { segment: memory } = await machine.memory(4096)
      const before = machine.lockedPages()
      const wanted = { vaddr: memory.address, iova: IOVA, size: PAGE }
      expect(await mapDma(kernel, container, wanted)).toBe(0)
      const registers = await mapped(device)
      const path = `/dev/vfio/${await machine.groupOf(card)}`

      for (const fd of [device, group, container]) await machine.close(fd)
      expect(said(await machine.open(path))).toBe('EBUSY')
      expect(machine.lockedPages() - before).toBe(1n)

      expect(await machine.munmap(registers)).toBe(0)
      expect(await machine.open(path)).toBeGreaterThanOrEqual(0)
      expect(machine.lockedPages()).toBe(before)
    },
  )

  describe('of a peer', () => {
    const inType1 = unless(machine.isCompat, 'an iommufd maps no BARs: the last test')

    inType1('is mapped by a container, and locks no memory', async () => {
      const { container, device } = await opened()
      const registers = await mapped(device, { length: 2n * PAGE })
      const before = machine.lockedPages()
      const wanted = { vaddr: registers.address, iova: IOVA, size: 2n * PAGE }

      expect(await mapDma(kernel, container, wanted)).toBe(0)
      expect(machine.lockedPages()).toBe(before)
      expect(await unmapDma(kernel, container, { iova: IOVA, size: 2n * PAGE })).toMatchObject({
        answer: 0,
        size: 2n * PAGE,
      })
    })

    inType1('is not mapped for writing where this process may only read: EFAULT', async () => {
      const { container, device } = await opened()
      const registers = await mapped(device, { access: 'read' })
      const wanted = { vaddr: registers.address, iova: IOVA, size: PAGE }

      expect(said(await mapDma(kernel, container, wanted))).toBe('EFAULT')
      expect(await mapDma(kernel, container, { ...wanted, flags: 1 })).toBe(0)
    })

    inType1('is not mapped while the device decodes no memory: EFAULT', async () => {
      const { container, device } = await opened()
      const registers = await mapped(device)
      const wanted = { vaddr: registers.address, iova: IOVA, size: PAGE }
      await setMemory(device, false)

      expect(said(await mapDma(kernel, container, wanted))).toBe('EFAULT')

      await setMemory(device, true)
      expect(await mapDma(kernel, container, wanted)).toBe(0)
    })

    test('is not mapped by an iommufd: EFAULT (map_full_bar, map_partial_bar)', async () => {
      const iommufd = await openIommufd(machine)
      const ioas = await iommufd.newIoas()
      const { device } = await boundAndAttached(machine, iommufd, card, ioas)
      await setMemory(device, true)
      const registers = await mapped(device, { length: 2n * PAGE })

      for (const length of [PAGE, 2n * PAGE]) {
        const at = { iova: IOVA, vaddr: registers.address, length }
        expect(await iommufd.mapAt(ioas, at)).toBe('EFAULT')
      }
    })
  })
})
