/** What the machine file says of drivers: variants of vfio-pci, ids given at run time, platform devices. */

import { afterEach, describe, expect, test } from 'vitest'
import { parseMachine } from '../../src/backends/sim/machine-file/machine-file.ts'
import { createSim } from '../../src/backends/sim/sim.ts'
import { said } from '../contract/answers.ts'
import { setContainer } from '../contract/calls.ts'
import { Machine } from '../contract/machine.ts'

const NIC = '0000:3b:00.0'
const PCI = '/sys/bus/pci'
const nic = (more: string): string => `[[functions]]
address = "${NIC}"
group = 4
vendor = 0x15b3
device = 0x101e
${more}
`

let machine: Machine | undefined

const world = (file: string): Machine => {
  const sim = createSim(parseMachine(file, 'machine'), { time: 'poked' })
  machine = new Machine('sim', sim.kernel, async () => void sim.step())
  return machine
}

afterEach(() => machine?.cleanUp())

describe('a variant of vfio-pci', () => {
  test('has its device in a group with a node, and a kernel driver can take the device back', async () => {
    const on = world(
      `drivers = ["vfio-pci", "mlx5-vfio-pci", "mlx5_core"]\n${nic('native_driver = "mlx5_core"\nbound_driver = "mlx5-vfio-pci"')}`,
    )
    expect(await on.driverOf(NIC)).toBe('mlx5-vfio-pci')
    expect((await on.opened(NIC)).device).toBeGreaterThan(0)
    await on.cleanUp()

    await on.kernel.writeFile(`${PCI}/drivers/mlx5-vfio-pci/unbind`, NIC)
    await on.kernel.writeFile(`${PCI}/devices/${NIC}/driver_override`, '\n')
    await on.kernel.writeFile(`${PCI}/drivers_probe`, NIC)

    expect(await on.driverOf(NIC)).toBe('mlx5_core')
  })
})

describe('dynamic ids', () => {
  const IDS = 'dynamic_ids = [{ driver = "vfio-pci", vendor = 0x15b3, device = 0x101e }]\n'

  test('give a function to the driver at the start, and again after every unbind', async () => {
    const on = world(`drivers = ["vfio-pci"]\n${IDS}${nic('')}`)
    expect(await on.driverOf(NIC)).toBe('vfio-pci')
    expect(await on.text(`${PCI}/devices/${NIC}/driver_override`)).toBe('(null)')

    await on.kernel.writeFile(`${PCI}/drivers/vfio-pci/unbind`, NIC)
    await on.kernel.writeFile(`${PCI}/drivers_probe`, NIC)

    expect(await on.driverOf(NIC)).toBe('vfio-pci')
  })

  test('of a driver that is not loaded are an error', () => {
    expect(() => parseMachine(`drivers = ["e1000e"]\n${IDS}`, 'm')).toThrow(
      '"vfio-pci" is not among the drivers',
    )
  })
})

describe('a platform device', () => {
  const file = (driver: string): string =>
    `platform_devices = [{ name = "MSFT0201:00", group = 4, driver = "${driver}" }]\n${nic('bound_driver = "vfio-pci"')}`

  test('is a member of its group, and its driver keeps the group from a container: EPERM', async () => {
    const on = world(file('pwm-lpss'))
    const joined = async () =>
      said(await setContainer(on.kernel, await on.group(NIC), await on.container()))

    expect(await on.names('/sys/kernel/iommu_groups/4/devices')).toEqual([NIC, 'MSFT0201:00'])
    expect(await on.linked('/sys/bus/platform/devices/MSFT0201:00/driver')).toBe('pwm-lpss')
    expect(await joined()).toBe('EPERM')
    await on.cleanUp()
    await on.kernel.writeFile('/sys/bus/platform/drivers/pwm-lpss/unbind', 'MSFT0201:00')
    expect(await joined()).toBe(0)
  })

  test('with vfio-platform leaves the group to its owner', async () => {
    const on = world(file('vfio-platform'))

    expect((await on.opened(NIC)).device).toBeGreaterThan(0)
  })
})
