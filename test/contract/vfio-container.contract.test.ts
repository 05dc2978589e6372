/**
 * Who stands behind /dev/vfio/vfio: vfio with type1, an iommufd with its container compatibility
 * (CONFIG_IOMMUFD_VFIO_CONTAINER), or neither.
 */

import { afterEach, expect, test } from 'vitest'
import { VFIO_API_VERSION, VFIO_GET_API_VERSION } from '../../src/abi/container.ts'
import { IOMMU_OPTION_RLIMIT_MODE } from '../../src/abi/iommufd.ts'
import { createSim, type Sim } from '../../src/backends/sim/sim.ts'
import { defaultMachine } from '../../src/backends/sim/spec/default-machine.ts'
import type { VfioContainer } from '../../src/backends/sim/spec/machine-spec.ts'
import { said } from './answers.ts'
import { describeModelled } from './backends.ts'
import { mapDma } from './calls.ts'
import { Iommufd } from './iommufd-calls.ts'
import { Machine } from './machine.ts'

const describe = describeModelled('the test machine is a kernel with type1')

const EDU = '0000:00:04.0'
const PAGE = 0x1000n

let machine: Machine | undefined

const simWith = (
  vfioContainer: VfioContainer,
  memlockBytes: bigint | null = null,
): { readonly sim: Sim; readonly machine: Machine } => {
  const sim = createSim({ ...defaultMachine, vfioContainer, memlockBytes }, { time: 'poked' })
  machine = new Machine('sim', sim.kernel, async () => void sim.step())
  return { sim, machine }
}

afterEach(() => machine?.cleanUp())

describe('/dev/vfio/vfio', () => {
  test('of a kernel with neither is not there: ENOENT; groups, cdevs and /dev/iommu are', async () => {
    const { machine } = simWith('none')
    await machine.bind(EDU)

    expect(said(await machine.open('/dev/vfio/vfio'))).toBe('ENOENT')
    expect(await machine.names('/dev/vfio')).toEqual(expect.arrayContaining(['3', 'devices']))
    expect(await machine.open('/dev/iommu')).toBeGreaterThan(0)
  })

  test.each(['iommufd', 'none'] as const)('of %s has no module vfio_iommu_type1', async (kind) => {
    const { machine } = simWith(kind)

    expect(await machine.names('/sys/module')).not.toContain('vfio_iommu_type1')
  })

  test('of iommufd answers as a container, and as an iommufd', async () => {
    const { machine, sim } = simWith('iommufd')
    const fd = await machine.container()

    expect(await sim.kernel.ioctl(fd, VFIO_GET_API_VERSION.number, undefined)).toBe(
      VFIO_API_VERSION,
    )
    expect(await new Iommufd(machine, fd).newIoas()).toBeGreaterThan(0)
  })

  test('of iommufd charges each process, where /dev/iommu charges its user', async () => {
    const { machine } = simWith('iommufd')
    const modeOf = async (path: string) =>
      new Iommufd(machine, await machine.open(path)).option(IOMMU_OPTION_RLIMIT_MODE, 0)

    expect(await modeOf('/dev/vfio/vfio')).toBe(1n)
    expect(await modeOf('/dev/iommu')).toBe(0n)
  })

  test('of iommufd lets each process of a user lock as much as its limit says', async () => {
    const { machine, sim } = simWith('iommufd', 4n * PAGE)
    await machine.bind(EDU)
    // Nothing is pinned before a device is attached, which opening it does.
    const { container } = await machine.opened(EDU)
    const { segment } = await machine.memory(0x4000)
    const pages = { vaddr: segment.address, iova: 0x10_0000n, size: 4n * PAGE }

    expect(said(await mapDma(sim.kernel, container, pages))).toBe(0)
    expect(said(await mapDma(sim.kernel, container, { ...pages, iova: 0n, size: PAGE }))).toBe(
      'ENOMEM',
    )
    const other = sim.spawn({ memlockBytes: 4n * PAGE })
    const theirs = other.receive(sim, container)
    expect(said(await mapDma(other.kernel, theirs, { ...pages, iova: 0n }))).toBe(0)
    expect([sim.lockedPages, other.lockedPages]).toEqual([4n, 4n])
    other.exit()
  })
})
