/**
 * Pages that the driver of a mediated device pins in a container: vfio_pin_pages(). No driver that
 * the kernel of the test machine has pins any, so the simulator's device stands for them.
 */

import { afterEach, expect, test } from 'vitest'
import {
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1v2_IOMMU,
} from '../../src/abi/container.ts'
import {
  VFIO_DEVICE_FLAGS_PCI,
  VFIO_DEVICE_FLAGS_RESET,
  VFIO_DEVICE_RESET,
} from '../../src/abi/device.ts'
import { createSim, type Sim } from '../../src/backends/sim/sim.ts'
import { allocPages, type Segment } from '../../src/os/memory.ts'
import { said } from './answers.ts'
import { describeModelled } from './backends.ts'
import {
  dirtyPages,
  getDeviceInfo,
  getDirtyBitmap,
  getRegionInfo,
  mapDma,
  setContainer,
  unmapDma,
} from './calls.ts'
import { Machine } from './machine.ts'
import { PINNER, PinningDriver, pinningMachine } from './pinning-machine.ts'

const describe = describeModelled('its mediated devices pin nothing')

const EDU = '0000:00:04.0'
const PAGE = 0x1000n
const PAGES = 16
const IOVA = 0x10_0000n
const SIZE = BigInt(PAGES) * PAGE
const ALL = VFIO_DMA_UNMAP_FLAG_ALL

const bits = allocPages(4096)
const bitmap = { pgsize: PAGE, size: 8n, data: bits.address }
let machine: Machine | undefined
afterEach(() => machine?.cleanUp())

interface World {
  readonly sim: Sim
  readonly machine: Machine
  readonly container: number
  readonly driver: PinningDriver
  readonly memory: Segment
}

const ready = async ({
  memlockBytes = null,
  model = VFIO_TYPE1v2_IOMMU,
}: {
  readonly memlockBytes?: bigint | null
  readonly model?: number
} = {}): Promise<World> => {
  const sim = createSim({ ...pinningMachine, memlockBytes }, { time: 'poked' })
  machine = new Machine('sim', sim.kernel, async () => void sim.step())
  const { container, group } = await machine.attached([PINNER], model)
  const driver = new PinningDriver(sim.kernel, await machine.deviceOf(group, PINNER))
  const memory = (await machine.memory(Number(SIZE))).segment
  return { sim, machine, container, driver, memory }
}

const map = ({ sim, container, memory }: World, more = {}): Promise<number> =>
  mapDma(sim.kernel, container, { vaddr: memory.address, iova: IOVA, size: SIZE, ...more })

const at = (page: number, pages = 1) => ({ iova: IOVA + BigInt(page) * PAGE, pages })

/** The numbers of the dirty pages since the last time. */
const dirty = async ({ sim, container }: World): Promise<number[]> => {
  bits.bytes.fill(0)
  expect(await getDirtyBitmap(sim.kernel, container, { iova: IOVA, size: SIZE, bitmap })).toBe(0)
  return bitsOf()
}
const bitsOf = (): number[] =>
  Array.from({ length: 64 }, (_, bit) => bit).filter(
    (bit) => ((bits.bytes[bit >> 3] ?? 0) & (1 << (bit & 7))) !== 0,
  )

describe('pinned pages', () => {
  test('are charged page by page, once each', async () => {
    const world = await ready()
    await map(world)
    expect(world.sim.lockedPages).toBe(0n)

    expect(await world.driver.pin(at(1, 3))).toBe(0)
    expect(await world.driver.pin(at(2, 4))).toBe(0)
    expect(world.sim.lockedPages).toBe(5n)

    expect(await world.driver.unpin(at(1, 3))).toBe(0)
    expect(world.sim.lockedPages).toBe(4n)
    expect(await world.driver.unpin(at(2, 4))).toBe(0)
    expect(world.sim.lockedPages).toBe(0n)
  })

  test('are all pinned, or none: EINVAL beyond the mapping, ENOMEM past the limit', async () => {
    const world = await ready({ memlockBytes: 3n * PAGE })
    await map(world)

    expect(await world.driver.pin(at(PAGES - 2, 3))).toBe('EINVAL')
    expect(await world.driver.pin(at(0, 4))).toBe('ENOMEM')
    expect(world.sim.lockedPages).toBe(0n)
    expect(await world.driver.pin(at(0, 3))).toBe(0)
    expect(await world.driver.pin(at(1, 2))).toBe(0)
  })

  test('need memory: EFAULT; the right to write: EPERM; and the second version: EACCES', async () => {
    const world = await ready()
    await map(world, { vaddr: 0x1000n })
    expect(await world.driver.pin(at(0))).toBe('EFAULT')
    expect(await world.driver.read(IOVA, 4)).toBe('EFAULT')
    expect(await world.driver.read(IOVA + SIZE - 2n, 4)).toBe('EFAULT')
    expect(await world.driver.read(IOVA + SIZE, 4)).toBe('EINVAL')
    await unmapDma(world.sim.kernel, world.container, { flags: ALL })
    await map(world, { flags: VFIO_DMA_MAP_FLAG_READ })
    expect(await world.driver.pin(at(0), { isWritten: true })).toBe('EPERM')
    expect(await world.driver.write(IOVA, Uint8Array.of(1))).toBe('EPERM')
    await world.machine.cleanUp()

    const first = await ready({ model: VFIO_TYPE1_IOMMU })
    await map(first)
    expect(await first.driver.pin(at(0))).toBe('EACCES')
  })

  test('need the process whose memory it is: ENODEV, and EPERM to read or write', async () => {
    const world = await ready()
    const child = world.sim.spawn()
    const container = child.receive(world.sim, world.container)
    const request = { vaddr: world.memory.address, iova: IOVA, size: SIZE }
    expect(await mapDma(child.kernel, container, request)).toBe(0)
    expect(await world.driver.pin(at(0))).toBe(0)
    expect(child.lockedPages).toBe(1n)

    child.exit()

    expect(await world.driver.pin(at(0))).toBe(0)
    expect(await world.driver.pin(at(1))).toBe('ENODEV')
    expect(await world.driver.read(IOVA, 4)).toBe('EPERM')
  })

  test('are between 1 and 512 for one request: EINVAL', async () => {
    const world = await ready()

    expect(await world.driver.pin(at(0, 0))).toBe('EINVAL')
    expect(await world.driver.pin(at(0, 513))).toBe('EINVAL')
  })

  test('are let go before they are unmapped, and those beside them are not', async () => {
    const world = await ready()
    await map(world, { size: 8n * PAGE })
    await map(world, { iova: IOVA + 8n * PAGE, size: 8n * PAGE })
    await world.driver.pin(at(3, 2))
    await world.driver.pin(at(9))

    const done = await unmapDma(world.sim.kernel, world.container, { iova: IOVA, size: 8n * PAGE })

    expect(done).toMatchObject({ answer: 0, size: 8n * PAGE })
    expect(await world.driver.get('unmaps')).toBe(1n)
    expect(await world.driver.get('pins')).toBe(1n)
    expect(world.sim.lockedPages).toBe(1n)
    expect(await world.driver.unpin(at(3, 2))).toBe('ENOENT')
  })

  test('that span two mappings go with either of them', async () => {
    for (const unmapped of [0n, 8n]) {
      const world = await ready()
      await map(world, { size: 8n * PAGE })
      await map(world, { iova: IOVA + 8n * PAGE, size: 8n * PAGE })
      expect(await world.driver.pin(at(6, 4))).toBe(0)
      expect(world.sim.lockedPages).toBe(4n)

      const iova = IOVA + unmapped * PAGE
      const done = await unmapDma(world.sim.kernel, world.container, { iova, size: 8n * PAGE })

      expect(done.answer).toBe(0)
      expect(await world.driver.get('pins')).toBe(0n)
      expect(world.sim.lockedPages).toBe(0n)
      await world.machine.cleanUp()
    }
  })

  test('are let go by a reset, and when the device is closed', async () => {
    const world = await ready()
    await map(world)
    await world.driver.pin(at(0, 2))
    expect(await world.sim.kernel.ioctl(world.driver.device, VFIO_DEVICE_RESET.number, 0)).toBe(0)
    expect(world.sim.lockedPages).toBe(0n)

    await world.driver.pin(at(0, 2))
    await world.machine.close(world.driver.device)

    expect(world.sim.lockedPages).toBe(0n)
  })

  test('are not charged again by an IOMMU that comes, and stay charged when it goes', async () => {
    const world = await ready({ memlockBytes: SIZE })
    await map(world)
    await world.driver.pin(at(0, 5))
    expect(world.sim.lockedPages).toBe(5n)

    await world.machine.bind(EDU)
    const group = await world.machine.group(EDU)
    expect(await setContainer(world.sim.kernel, group, world.container)).toBe(0)
    expect(world.sim.lockedPages).toBe(16n)
    expect(await world.driver.pin(at(10))).toBe(0)
    expect(world.sim.lockedPages).toBe(16n)

    await world.machine.close(group)
    expect(world.sim.lockedPages).toBe(6n)
    await unmapDma(world.sim.kernel, world.container, { flags: ALL })
    expect(world.sim.lockedPages).toBe(0n)
  })

  test('are given back with a mapping that an IOMMU has too', async () => {
    const world = await ready()
    await map(world)
    await world.machine.bind(EDU)
    await setContainer(world.sim.kernel, await world.machine.group(EDU), world.container)
    await world.driver.pin(at(0, 5))

    await unmapDma(world.sim.kernel, world.container, { flags: ALL })

    expect(world.sim.lockedPages).toBe(0n)
  })
})

describe('dirty pages of a container without an IOMMU', () => {
  const tracking = async (): Promise<World> => {
    const world = await ready()
    await map(world)
    return world
  }
  const start = ({ sim, container }: World) =>
    dirtyPages(sim.kernel, container, VFIO_IOMMU_DIRTY_PAGES_FLAG_START)

  test('are those that are pinned, at every look, and those that were in between', async () => {
    const world = await tracking()
    await world.driver.pin(at(2, 2))
    await start(world)
    expect(await dirty(world)).toEqual([2, 3])
    expect(await dirty(world)).toEqual([2, 3])

    await world.driver.pin(at(7))
    await world.driver.unpin(at(7))
    await world.driver.unpin(at(2, 2))

    expect(await dirty(world)).toEqual([2, 3, 7])
    expect(await dirty(world)).toEqual([])
  })

  test('are those that the driver wrote, and not those that it read', async () => {
    const world = await tracking()
    await start(world)
    world.memory.bytes.fill(0x5a)

    expect(await world.driver.read(IOVA + PAGE, 3)).toEqual(Uint8Array.of(0x5a, 0x5a, 0x5a))
    expect(await dirty(world)).toEqual([])
    expect(await world.driver.write(IOVA + 5n * PAGE - 1n, Uint8Array.of(1, 2))).toBe(0)

    expect([...world.memory.bytes.subarray(5 * 4096 - 2, 5 * 4096 + 2)]).toEqual([0x5a, 1, 2, 0x5a])
    expect(await dirty(world)).toEqual([4, 5])
  })

  test('are told by the unmap as well', async () => {
    const world = await tracking()
    await start(world)
    await world.driver.pin(at(11, 2))
    bits.bytes.fill(0)

    const flags = VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP
    const unmap = { iova: IOVA, size: SIZE, flags, bitmap }
    expect(await unmapDma(world.sim.kernel, world.container, unmap)).toMatchObject({ answer: 0 })

    expect(bitsOf()).toEqual([11, 12])
    expect(await world.driver.get('pins')).toBe(0n)
  })

  test('are all of them once a group with an IOMMU is there', async () => {
    const world = await tracking()
    await start(world)
    await world.driver.pin(at(1))
    await world.machine.bind(EDU)
    await setContainer(world.sim.kernel, await world.machine.group(EDU), world.container)

    expect(await dirty(world)).toHaveLength(PAGES)
  })
})

describe('the device that pins', () => {
  test('has one BAR, no interrupts, and a reset', async () => {
    const { sim, driver } = await ready()
    const { device } = driver

    expect(await getDeviceInfo(sim.kernel, device)).toMatchObject({
      answer: 0,
      flags: VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET,
      num_regions: 9,
      num_irqs: 0,
    })
    expect((await getRegionInfo(sim.kernel, device, 0)).size).toBe(0x2000n)
    expect((await getRegionInfo(sim.kernel, device, 7)).size).toBe(0n)
    expect(said((await getRegionInfo(sim.kernel, device, 9)).answer)).toBe('EINVAL')
    expect(said((await getDeviceInfo(sim.kernel, device, 15)).answer)).toBe('EINVAL')
    expect(said(await sim.kernel.ioctl(device, 0, undefined))).toBe('ENOTTY')
  })

  test('has registers of eight bytes, and knows five commands: EINVAL', async () => {
    const { sim, driver } = await ready()
    const bytes = Buffer.alloc(8)

    expect(await driver.get('id')).toBe(0x7069_6e73n)
    for (const [length, at] of [
      [4, 0n],
      [8, 4n],
      [8, 0x40n],
    ] as const) {
      const part = bytes.subarray(0, length)
      expect(said(await sim.kernel.pread(driver.device, part, at))).toBe('EINVAL')
      expect(said(await sim.kernel.pwrite(driver.device, part, at))).toBe('EINVAL')
    }
    await driver.set('command', 6n)
    expect(BigInt.asIntN(64, await driver.get('answer'))).toBe(-22n)
    await driver.set('length', 4097n)
    expect(await driver.command('read')).toBe('EINVAL')
  })
})
