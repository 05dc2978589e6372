/**
 * Whose memory is pinned, who is charged, and what limits it: what type1 does for processes that
 * no kernel test here can be, because root has CAP_IPC_LOCK.
 */

import { afterEach, expect, test } from 'vitest'
import {
  VFIO_DMA_MAP_FLAG_VADDR,
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_DMA_UNMAP_FLAG_VADDR,
} from '../../src/abi/container.ts'
import { createSim, type Sim } from '../../src/backends/sim/sim.ts'
import { defaultMachine } from '../../src/backends/sim/spec/default-machine.ts'
import type { Segment } from '../../src/os/memory.ts'
import { said } from './answers.ts'
import { describeModelled } from './backends.ts'
import { mapDma, setContainer, unmapDma } from './calls.ts'
import { Machine } from './machine.ts'

const describe = describeModelled('root has CAP_IPC_LOCK')

const EDU = '0000:00:04.0'
const PAGE = 0x1000n
const SIZE = 4n * PAGE
const IOVA = 0x10_0000n
const ALL = VFIO_DMA_UNMAP_FLAG_ALL

interface World {
  readonly sim: Sim
  readonly machine: Machine
  readonly container: number
  readonly segment: Segment
}

let machine: Machine | undefined

const ready = async (memlockBytes: bigint | null, { isEmulated = false } = {}): Promise<World> => {
  const sim = createSim({ ...defaultMachine, memlockBytes }, { time: 'poked' })
  machine = new Machine('sim', sim.kernel, async () => void sim.step())
  await machine.bind(EDU)
  const name = isEmulated ? await machine.mtty('mtty-1') : EDU
  const { container } = await machine.attached([name])
  const { segment } = await machine.memory(Number(SIZE))
  return { sim, machine, container, segment }
}

afterEach(() => machine?.cleanUp())

const map = ({ sim, container, segment }: World, more = {}): Promise<number> =>
  mapDma(sim.kernel, container, { vaddr: segment.address, iova: IOVA, size: SIZE, ...more })

describe('VFIO_IOMMU_MAP_DMA', () => {
  test('charges each pinned page, and each time it is pinned', async () => {
    const world = await ready(null)

    await map(world)
    expect(world.sim.lockedPages).toBe(4n)
    await map(world, { iova: 2n * IOVA })
    expect(world.sim.lockedPages).toBe(8n)

    await unmapDma(world.sim.kernel, world.container, { iova: IOVA, size: SIZE })
    expect(world.sim.lockedPages).toBe(4n)
  })

  test('refuses to pin more than RLIMIT_MEMLOCK, and pins nothing of it: ENOMEM', async () => {
    const world = await ready(SIZE - 1n)

    expect(said(await map(world))).toBe('ENOMEM')

    expect(world.sim.lockedPages).toBe(0n)
    expect((await unmapDma(world.sim.kernel, world.container, { flags: ALL })).size).toBe(0n)
    expect(await map(world, { size: 3n * PAGE })).toBe(0)
  })

  test('looks at the memory before the limit: EFAULT', async () => {
    const world = await ready(0n)

    expect(said(await map(world, { vaddr: 0x1000n }))).toBe('EFAULT')
  })

  test('with mediated devices alone charges nothing until a group with an IOMMU comes', async () => {
    const world = await ready(SIZE, { isEmulated: true })
    const { sim, container } = world
    expect(await map(world)).toBe(0)
    expect(await map(world, { iova: 2n * IOVA })).toBe(0)
    expect(sim.lockedPages).toBe(0n)
    const group = await world.machine.group(EDU)

    expect(said(await setContainer(sim.kernel, group, container))).toBe('ENOMEM')
    expect(sim.lockedPages).toBe(0n)

    await unmapDma(sim.kernel, container, { iova: IOVA, size: SIZE })
    expect(await setContainer(sim.kernel, group, container)).toBe(0)
    expect(sim.lockedPages).toBe(4n)

    await world.machine.close(group)
    expect(sim.lockedPages).toBe(0n)
  })

  test('gives everything back when the container goes', async () => {
    const world = await ready(null)
    await map(world)

    await world.machine.cleanUp()

    expect(world.sim.lockedPages).toBe(0n)
  })
})

describe('a mapping of another process', () => {
  test('can be unmapped by any process that holds the container', async () => {
    const world = await ready(null)
    await map(world)
    const other = world.sim.spawn()
    const container = other.receive(world.sim, world.container)

    const { answer, size } = await unmapDma(other.kernel, container, { iova: IOVA, size: SIZE })

    expect([answer, size]).toEqual([0, SIZE])
    expect([world.sim.lockedPages, other.lockedPages]).toEqual([0n, 0n])
    other.exit()
  })

  test('changes hands with its vaddr, and so do the pages that are charged', async () => {
    const world = await ready(null)
    await map(world)
    const next = world.sim.spawn()
    const container = next.receive(world.sim, world.container)
    const flags = VFIO_DMA_UNMAP_FLAG_VADDR | ALL
    await unmapDma(world.sim.kernel, world.container, { flags })

    const vaddr = world.segment.address
    const update = { flags: VFIO_DMA_MAP_FLAG_VADDR, vaddr, iova: IOVA, size: SIZE }
    expect(await mapDma(next.kernel, container, update)).toBe(0)

    expect([world.sim.lockedPages, next.lockedPages]).toEqual([0n, 4n])
    next.exit()
  })

  test('stays with its owner where the next one may not lock as much: ENOMEM', async () => {
    const world = await ready(null)
    await map(world)
    const next = world.sim.spawn({ memlockBytes: 2n * PAGE })
    const container = next.receive(world.sim, world.container)
    const flags = VFIO_DMA_UNMAP_FLAG_VADDR | ALL
    await unmapDma(world.sim.kernel, world.container, { flags })

    const vaddr = world.segment.address
    const update = { flags: VFIO_DMA_MAP_FLAG_VADDR, vaddr, iova: IOVA, size: SIZE }
    expect(said(await mapDma(next.kernel, container, update))).toBe('ENOMEM')

    expect([world.sim.lockedPages, next.lockedPages]).toEqual([4n, 0n])
    expect(await mapDma(world.sim.kernel, world.container, update)).toBe(0)
    next.exit()
  })

  test('is pinned within the limit of the process that adds a group with an IOMMU: ENOMEM', async () => {
    const world = await ready(null, { isEmulated: true })
    const { sim } = world
    await map(world)
    const other = sim.spawn({ memlockBytes: 3n * PAGE })
    const container = other.receive(sim, world.container)
    const group = await world.machine.group(EDU)

    const added = await setContainer(other.kernel, other.receive(sim, group), container)

    expect(said(added)).toBe('ENOMEM')
    expect([sim.lockedPages, other.lockedPages]).toEqual([0n, 0n])
    expect(await setContainer(sim.kernel, group, world.container)).toBe(0)
    expect([sim.lockedPages, other.lockedPages]).toEqual([4n, 0n])
    other.exit()
  })

  test('outlives the process that made it, while another holds the files', async () => {
    const world = await ready(null)
    const owner = world.sim.spawn()
    const container = owner.receive(world.sim, world.container)
    const { segment } = world
    const made = { vaddr: segment.address, iova: IOVA, size: SIZE }
    expect(await mapDma(owner.kernel, container, made)).toBe(0)

    owner.exit()

    expect(owner.lockedPages).toBe(4n)
    expect(said(await map(world))).toBe('EEXIST')
    await unmapDma(world.sim.kernel, world.container, { flags: ALL })
    expect(owner.lockedPages).toBe(0n)
  })
})
