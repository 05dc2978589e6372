/** Bridges behind bridges, and domains above ffff. */

import { expect, test } from 'vitest'
import { parseMachine } from '../../src/backends/sim/machine-file/machine-file.ts'
import { createSim } from '../../src/backends/sim/sim.ts'
import { getDeviceFd, setContainer, setIommu } from '../contract/calls.ts'
import { Machine } from '../contract/machine.ts'

const BRIDGE =
  'bridge = true\nclass_code = 0x060400\npcie = true\nnative_driver = "pcieport"\nbound_driver = "pcieport"\n'
const fn = (address: string, more = ''): string =>
  `[[functions]]\naddress = "${address}"\ngroup = 15\n${more}\n`
const behind = (parent: string): string => `parent = "${parent}"\n`

const kernelOf = (file: string) => createSim(parseMachine(file, 'm'), { time: 'poked' }).kernel

const refusalOf = (file: string): string => {
  try {
    parseMachine(file, 'machine.toml')
  } catch (error) {
    return (error as Error).message
  }
  return 'accepted'
}

test('a function lies below every bridge that it is behind, in whichever order the file has them', async () => {
  const kernel = kernelOf(
    fn('0000:05:00.0', behind('0000:04:00.0')) +
      fn('0000:04:00.0', behind('0000:03:00.0') + BRIDGE) +
      fn('0000:03:00.0', behind('0000:02:01.0') + BRIDGE) +
      fn('0000:02:01.0', BRIDGE),
  )

  expect(await kernel.readLink('/sys/bus/pci/devices/0000:05:00.0')).toBe(
    '../../../devices/pci0000:02/0000:02:01.0/0000:03:00.0/0000:04:00.0/0000:05:00.0',
  )
  const through = '/sys/devices/pci0000:02/0000:02:01.0/0000:03:00.0/0000:04:00.0/0000:05:00.0'
  expect(Buffer.from((await kernel.readFile(`${through}/vendor`)) as Uint8Array).toString()).toBe(
    '0x1af4\n',
  )
  expect(await kernel.readDir('/sys/kernel/iommu_groups/15/devices')).toHaveLength(4)
})

test.each([
  ['nothing', fn('0000:01:00.0', behind('0000:00:1c.0')), 'there is no function 0000:00:1c.0'],
  [
    'a function that is not a bridge',
    fn('0000:00:1c.0') + fn('0000:01:00.0', behind('0000:00:1c.0')),
    '0000:00:1c.0 is not a bridge',
  ],
  [
    'a bridge behind it',
    fn('0000:00:1c.0', behind('0000:01:00.0') + BRIDGE) +
      fn('0000:01:00.0', behind('0000:00:1c.0') + BRIDGE),
    'is behind itself',
  ],
])('a parent that names %s is an error of the file', (_what, file, message) => {
  expect(refusalOf(`drivers = ["pcieport"]\n${file}`)).toContain(message)
})

test('a function in a domain above ffff is listed, bound and opened', async () => {
  const kernel = kernelOf(
    `drivers = ["pcieport", "vfio-pci"]\n${fn('10000:00:02.0', BRIDGE)}${fn('10000:01:00.0', `${behind('10000:00:02.0')}reset = true\n`)}`,
  )
  const machine = new Machine('sim', kernel, async () => {})
  await machine.bind('10000:01:00.0')

  const group = await machine.group('10000:01:00.0')
  const container = await machine.container()
  expect(await setContainer(kernel, group, container)).toBe(0)
  expect(await setIommu(kernel, container, 3)).toBe(0)
  expect(machine.track(await getDeviceFd(kernel, group, '10000:01:00.0'))).toBeGreaterThan(0)
  expect(await machine.names('/sys/devices/pci10000:00')).toEqual(['10000:00:02.0'])
  await machine.cleanUp()
})

test.each(['0ffff:00:01.0', '00010000:00:01.0', '1:00:01.0', '100000000:00:01.0'])(
  '%s is not how Linux writes an address',
  (address) => {
    expect(refusalOf(fn(address))).toContain('an address such as')
  },
)
