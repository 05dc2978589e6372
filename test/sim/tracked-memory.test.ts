/** How much memory a container of the simulator tracks: a report is made in one turn of the event loop. */

import { afterEach, expect, test } from 'vitest'
import {
  VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
} from '../../src/abi/container.ts'
import { createSim } from '../../src/backends/sim/sim.ts'
import { defaultMachine } from '../../src/backends/sim/spec/default-machine.ts'
import { said } from '../contract/answers.ts'
import { dirtyPages, mapDma, unmapDma } from '../contract/calls.ts'
import { Machine } from '../contract/machine.ts'

const PAGE = 0x1000n
const HALF = 1n << 39n
const START = VFIO_IOMMU_DIRTY_PAGES_FLAG_START
const STOP = VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP

let machine: Machine | undefined
afterEach(() => machine?.cleanUp())

/** A container with mappings of 512 GiB each: the vaddr of a mediated device need not be there. */
const containerWith = async (halves: number) => {
  const sim = createSim({ ...defaultMachine, mdevs: [] }, { time: 'poked' })
  machine = new Machine('sim', sim.kernel, async () => void sim.step())
  const { kernel } = machine
  const { container } = await machine.attached([await machine.mtty('mtty-1')])
  const map = (half: number) =>
    mapDma(kernel, container, { vaddr: PAGE, iova: BigInt(half) * HALF, size: HALF })
  for (let half = 0; half < halves; half += 1) expect(await map(half)).toBe(0)
  return { kernel, container, map }
}

test('1 TiB is tracked, and a page more is ENOMEM until something is unmapped', async () => {
  const { kernel, container, map } = await containerWith(2)
  expect(await dirtyPages(kernel, container, START)).toBe(0)

  expect(said(await map(2))).toBe('ENOMEM')

  await unmapDma(kernel, container, { iova: 0n, size: HALF })
  expect(await map(2)).toBe(0)
})

test('tracking of more is ENOMEM, leaves nothing, and does not count once it has stopped', async () => {
  const { kernel, container, map } = await containerWith(3)

  expect(said(await dirtyPages(kernel, container, START))).toBe('ENOMEM')

  await unmapDma(kernel, container, { iova: 0n, size: HALF })
  expect(await dirtyPages(kernel, container, START)).toBe(0)
  expect(await dirtyPages(kernel, container, STOP)).toBe(0)
  expect(await map(0)).toBe(0)
})
