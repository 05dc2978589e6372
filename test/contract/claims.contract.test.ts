/** Groups that the kernel gives to no user: firmware regions, and interrupts that are not isolated. */

import { afterEach, expect, test } from 'vitest'
import { VFIO_TYPE1v2_IOMMU } from '../../src/abi/container.ts'
import { createSim } from '../../src/backends/sim/sim.ts'
import { defaultMachine, MSI_WINDOW } from '../../src/backends/sim/spec/default-machine.ts'
import type { MachineSpec, ReservedRegion } from '../../src/backends/sim/spec/machine-spec.ts'
import { type Said, said } from './answers.ts'
import { describeModelled } from './backends.ts'
import { getDeviceFd, setContainer, setIommu } from './calls.ts'
import { bind, openCdev, openIommufd } from './iommufd-calls.ts'
import { Machine } from './machine.ts'

const describe = describeModelled(
  'no IOMMU of the test machine has such regions or lacks remapping',
)

const EDU = '0000:00:04.0'
const OTHER = '0000:00:05.0'

let machine: Machine | undefined

const world = async (spec: Partial<MachineSpec>) => {
  const sim = createSim({ ...defaultMachine, ...spec }, { time: 'poked' })
  const made = new Machine('sim', sim.kernel, async () => void sim.step())
  machine = made
  await made.bind(EDU)
  await made.bind(OTHER)
  const { kernel } = sim
  const container = await made.container()
  const join = async (name: string): Promise<Said> =>
    said(await setContainer(kernel, await made.group(name), container))
  const iommu = async (): Promise<Said> =>
    said(await setIommu(kernel, container, VFIO_TYPE1v2_IOMMU))
  /** Binds its cdev to an iommufd of its own. */
  const bound = async (name: string): Promise<Said> =>
    (await bind(made, await openCdev(made, name), (await openIommufd(made)).fd)).answer
  return { kernel, machine: made, container, join, iommu, bound }
}

afterEach(() => machine?.cleanUp())

describe('a group with a firmware region', () => {
  const region = (kind: ReservedRegion['kind']): ReservedRegion => ({
    start: 0xbf7e_7000n,
    last: 0xbf7e_ffffn,
    kind,
  })
  const withRegion = (kind: ReservedRegion['kind'], more: Partial<MachineSpec> = {}) =>
    world({
      groups: defaultMachine.groups.map((group) =>
        group.id === 3 ? { id: 3, reserved: [region(kind), MSI_WINDOW] } : group,
      ),
      ...more,
    })

  test('that must stay mapped is not given to a container: EINVAL', async () => {
    const { join } = await withRegion('direct')

    expect(await join(EDU)).toBe('EINVAL')
    expect(await join(OTHER)).toBe(0)
  })

  test('that must stay mapped is not given to an iommufd: EINVAL', async () => {
    const { bound } = await withRegion('direct')

    expect([await bound(EDU), await bound(OTHER)]).toEqual(['EINVAL', 0])
  })

  test('that must stay mapped is refused to an iommufd as a container once a device is opened: EINVAL', async () => {
    const { kernel, machine, container } = await withRegion('direct', {
      vfioContainer: 'iommufd',
    })
    const group = await machine.group(EDU)
    expect(await setContainer(kernel, group, container)).toBe(0)
    await setIommu(kernel, container, VFIO_TYPE1v2_IOMMU)

    expect(said(await getDeviceFd(kernel, group, EDU))).toBe('EINVAL')
  })

  test('that must stay mapped can have a driver of the kernel', async () => {
    const { kernel } = await withRegion('direct')

    expect(await kernel.writeFile('/sys/bus/pci/drivers/vfio-pci/unbind', EDU)).toBe(EDU.length)
  })

  test('that may be mapped over is given away', async () => {
    const { join, iommu } = await withRegion('direct-relaxable')

    expect([await join(EDU), await iommu()]).toEqual([0, 0])
  })

  test('was refused when it was attached, before 6.6: EPERM', async () => {
    const { join, iommu } = await withRegion('direct', { kernelVersion: '6.5' })

    expect([await join(EDU), await iommu()]).toEqual([0, 'EPERM'])
  })
})

describe('a machine without interrupt remapping', () => {
  const { iommu } = defaultMachine
  const unsafe = (more: Partial<MachineSpec> = {}) =>
    world({ iommu: { ...iommu, model: { ...iommu.model, isolatesInterrupts: false } }, ...more })

  test('gives no group to a container: EPERM', async () => {
    const { join, iommu } = await unsafe()

    expect([await join(EDU), await iommu()]).toEqual([0, 'EPERM'])
  })

  test('refuses the second group where it is added: EPERM', async () => {
    const { kernel, join, iommu } = await unsafe({ allowsUnsafeInterrupts: true })
    expect([await join(EDU), await iommu()]).toEqual([0, 0])
    await kernel.writeFile('/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts', 'N')

    expect(await join(OTHER)).toBe('EPERM')
  })

  test('gives a group with mediated devices to a container all the same', async () => {
    const { machine, join, iommu } = await unsafe()
    const uuid = await machine.mtty('mtty-1')

    expect([await join(uuid), await iommu()]).toEqual([0, 0])
  })

  test('gives no device to an iommufd: EPERM, unless its module says so', async () => {
    const { kernel, bound } = await unsafe()
    expect(await bound(EDU)).toBe('EPERM')
    await kernel.writeFile('/sys/module/iommufd/parameters/allow_unsafe_interrupts', 'Y')

    expect(await bound(EDU)).toBe(0)
  })
})
