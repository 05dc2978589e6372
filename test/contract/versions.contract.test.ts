/** Where kernels differ, the simulated one answers as the version that its machine names. */

import { afterEach, expect, test } from 'vitest'
import { VFIO_TYPE1_NESTING_IOMMU } from '../../src/abi/container.ts'
import { createSim } from '../../src/backends/sim/sim.ts'
import { defaultMachine } from '../../src/backends/sim/spec/default-machine.ts'
import { said } from './answers.ts'
import { describeModelled } from './backends.ts'
import { checkExtension, mapDma, setContainer, unmapDma } from './calls.ts'
import { openIommufd } from './iommufd-calls.ts'
import { Machine } from './machine.ts'

const describe = describeModelled('the test machine is one kernel')

const PAGE = 0x1000n
const TOP = 1n << 64n

let machine: Machine | undefined

const ready = async (kernelVersion: string) => {
  const { kernel } = createSim({ ...defaultMachine, kernelVersion }, { time: 'poked' })
  machine = new Machine('sim', kernel, async () => {})
  const { container } = await machine.attached([await machine.mtty('mtty-1')])
  return { kernel, container }
}

afterEach(() => machine?.cleanUp())

describe('a range that wraps', () => {
  test.each([
    ['6.12', 'EINVAL'],
    ['6.17', 'EINVAL'],
    ['6.18', 'EOVERFLOW'],
    ['7.0', 'EOVERFLOW'],
  ])('on %s: %s', async (version, errno) => {
    const { kernel, container } = await ready(version)
    const range = { iova: TOP - PAGE, size: 2n * PAGE }

    expect(said(await mapDma(kernel, container, { vaddr: PAGE, ...range }))).toBe(errno)
    expect(said((await unmapDma(kernel, container, range)).answer)).toBe(errno)
  })
})

describe('the page that ends at 2^64', () => {
  const range = { iova: TOP - PAGE, size: PAGE }
  const page = { vaddr: PAGE, ...range }

  test('on 6.17 is lost as soon as it is mapped', async () => {
    const { kernel, container } = await ready('6.17')

    expect(await mapDma(kernel, container, page)).toBe(0)
    expect(await mapDma(kernel, container, page)).toBe(0)
    expect((await unmapDma(kernel, container, range)).size).toBe(0n)
  })

  test('on 6.18 is like any other', async () => {
    const { kernel, container } = await ready('6.18')

    expect(await mapDma(kernel, container, page)).toBe(0)
    expect(said(await mapDma(kernel, container, page))).toBe('EEXIST')
    expect((await unmapDma(kernel, container, range)).size).toBe(PAGE)
  })
})

describe('unmapping what another process mapped', () => {
  test.each([
    ['5.19', PAGE, PAGE],
    ['6.0', 3n * PAGE, 0n],
    ['6.12', 3n * PAGE, 0n],
  ])('on %s unmaps %i bytes, and its owner then %i', async (kernelVersion, unmapped, left) => {
    const sim = createSim({ ...defaultMachine, kernelVersion }, { time: 'poked' })
    machine = new Machine('sim', sim.kernel, async () => {})
    const { container } = await machine.attached([await machine.mtty('mtty-1')])
    const other = sim.spawn()
    const received = other.receive(sim, container)
    await mapDma(other.kernel, received, { vaddr: PAGE, iova: 0n, size: PAGE })
    await mapDma(sim.kernel, container, { vaddr: PAGE, iova: PAGE, size: PAGE })
    await mapDma(other.kernel, received, { vaddr: PAGE, iova: 2n * PAGE, size: PAGE })

    const { answer, size } = await unmapDma(other.kernel, received, { iova: 0n, size: 3n * PAGE })

    expect([answer, size]).toEqual([0, unmapped])
    const rest = await unmapDma(sim.kernel, container, { flags: 2 })
    expect(rest.size).toBe(left)
    other.exit()
  })
})

describe('VFIO_TYPE1_NESTING_IOMMU', () => {
  test.each([
    ['6.12', 1],
    ['6.13', 0],
  ])('on %s: %i', async (version, answer) => {
    const { kernel, container } = await ready(version)

    expect(await checkExtension(kernel, container, VFIO_TYPE1_NESTING_IOMMU)).toBe(answer)
  })
})

describe('unmapping nothing through an iommufd that stands in for a container', () => {
  test.each([
    ['6.12.58', 'ENOENT'],
    ['6.12.59', 0],
    ['6.16', 'ENOENT'],
    ['6.17.8', 'ENOENT'],
    ['6.17.9', 0],
    ['6.18', 0],
  ])('on %s: %s', async (kernelVersion, answer) => {
    const { kernel } = createSim({ ...defaultMachine, kernelVersion }, { time: 'poked' })
    machine = new Machine('sim', kernel, async () => {})
    const iommufd = await openIommufd(machine)
    const group = await machine.group(await machine.mtty('mtty-1'))
    expect(await setContainer(kernel, group, iommufd.fd)).toBe(0)

    expect(said((await unmapDma(kernel, iommufd.fd, { iova: 0n, size: PAGE })).answer)).toBe(answer)
  })
})
