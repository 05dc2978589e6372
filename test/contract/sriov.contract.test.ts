/** SR-IOV in sysfs: virtual functions come and go with the driver of their physical function. */

import { afterEach, expect, test } from 'vitest'
import { createSim } from '../../src/backends/sim/sim.ts'
import { defaultMachine, PLAIN_FUNCTION } from '../../src/backends/sim/spec/default-machine.ts'
import type { FunctionSpec, SriovSpec } from '../../src/backends/sim/spec/machine-spec.ts'
import { type Said, said } from './answers.ts'
import { describeModelled } from './backends.ts'
import { Machine } from './machine.ts'

const describe = describeModelled('the test machine has no SR-IOV device')

const PCI = '/sys/bus/pci'
const PF = '0000:06:1f.7'
const AT = `${PCI}/devices/${PF}`
/** The device after 1f.7 is on the next bus. */
const VFS = ['0000:07:00.1', '0000:07:00.3', '0000:07:00.5'] as const

const SRIOV: SriovSpec = {
  totalVfs: 3,
  numVfs: 0,
  offset: 2,
  stride: 2,
  firstGroup: 31,
  vf: { ...PLAIN_FUNCTION, device: 0x1520, isPcie: true, hasReset: true },
}

const physical = (sriov: Partial<SriovSpec> = {}): FunctionSpec => ({
  ...PLAIN_FUNCTION,
  address: PF,
  group: 30,
  vendor: 0x8086,
  device: 0x1521,
  nativeDriver: 'igb',
  boundDriver: 'igb',
  sriov: { ...SRIOV, ...sriov },
})

let machine: Machine | undefined

const world = (sriov: Partial<SriovSpec> = {}) => {
  const functions = [physical(sriov)]
  const groups = [30, 31, 32, 33].map((id) => ({ id, reserved: [] }))
  const drivers = ['vfio-pci', 'igb']
  const spec = { ...defaultMachine, drivers, functions, groups, mdevs: [] }
  const sim = createSim(spec, { time: 'poked' })
  const made = new Machine('sim', sim.kernel, async () => void sim.step())
  machine = made
  const write = async (path: string, data: string): Promise<Said> =>
    said(await sim.kernel.writeFile(path, data))
  const numVfs = (data: string) => write(`${AT}/sriov_numvfs`, data)
  const functionsOf = () => made.names(`${PCI}/devices`)
  /** A write that waits until `release`, which it then answers. */
  const waiting = async (path: string, data: string, release: () => Promise<unknown>) => {
    let isDone = false
    const answer = write(path, data).finally(() => {
      isDone = true
    })
    sim.step()
    await new Promise(setImmediate)
    const before = isDone
    await release()
    return [before, await answer]
  }
  return { sim, machine: made, write, numVfs, functionsOf, waiting }
}

afterEach(() => machine?.cleanUp())

describe('sriov_numvfs', () => {
  test('makes virtual functions, each with its ids, its group and its links', async () => {
    const { machine, numVfs, functionsOf } = world()
    expect(await machine.text(`${AT}/sriov_totalvfs`)).toBe('3')

    expect(await numVfs('2')).toBe(1)

    expect(await functionsOf()).toEqual([PF, VFS[0], VFS[1]])
    expect(await machine.text(`${AT}/sriov_numvfs`)).toBe('2')
    expect(await machine.linked(`${AT}/virtfn1`)).toBe(VFS[1])
    expect(await machine.linked(`${PCI}/devices/${VFS[1]}/physfn`)).toBe(PF)
    expect(await machine.groupOf(VFS[1])).toBe(32)
    expect(await machine.text(`${PCI}/devices/${VFS[1]}/vendor`)).toBe('0x8086')
    expect(await machine.text(`${PCI}/devices/${VFS[1]}/device`)).toBe('0x1520')
  })

  test('takes no other number while there are some: EBUSY; 0 takes them away', async () => {
    const { machine, numVfs, functionsOf } = world()
    await numVfs('2')

    expect([await numVfs('2'), await numVfs('3')]).toEqual([1, 'EBUSY'])
    expect(await numVfs('0')).toBe(1)

    expect(await functionsOf()).toEqual([PF])
    expect(await machine.names('/sys/kernel/iommu_groups')).toEqual(['30'])
    expect(await machine.linked(`${AT}/virtfn0`)).toBeUndefined()
    expect(await numVfs('3')).toBe(1)
  })

  test('refuses more than there can be: ERANGE, and anything but a number: EINVAL', async () => {
    const { numVfs } = world()

    expect([await numVfs('4'), await numVfs('65536'), await numVfs('x')]).toEqual([
      'ERANGE',
      'EINVAL',
      'EINVAL',
    ])
  })

  test('needs a driver that can make them: ENOENT without one, and with vfio-pci', async () => {
    const { machine, write, numVfs } = world()
    await write(`${PCI}/drivers/igb/unbind`, PF)
    expect(await numVfs('1')).toBe('ENOENT')
    await machine.bind(PF)

    expect(await numVfs('1')).toBe('ENOENT')
  })

  test('waits until no process has one open', async () => {
    const { machine, numVfs, functionsOf, waiting } = world()
    await numVfs('2')
    await machine.bind(VFS[0])
    const { device } = await machine.opened(VFS[0])

    const answers = await waiting(`${AT}/sriov_numvfs`, '0', () => machine.close(device))

    expect(answers).toEqual([false, 1])
    expect(await functionsOf()).toEqual([PF])
  })
})

describe('the driver of a physical function', () => {
  test('takes its virtual functions away before it leaves, and waits for their users', async () => {
    const { machine, numVfs, functionsOf, waiting } = world()
    await numVfs('3')
    await machine.bind(VFS[2])
    const { device } = await machine.opened(VFS[2])

    const answers = await waiting(`${PCI}/drivers/igb/unbind`, PF, async () => {
      expect(await machine.driverOf(PF)).toBeUndefined()
      await machine.close(device)
    })

    expect(answers).toEqual([false, PF.length])
    expect(await functionsOf()).toEqual([PF])
  })

  test('takes them away when the function is removed from its bus', async () => {
    const { write, numVfs, functionsOf } = world()
    await numVfs('3')

    expect(await write(`${AT}/remove`, '1')).toBe(1)

    expect(await functionsOf()).toEqual([])
    await write(`${PCI}/rescan`, '1')
    expect(await functionsOf()).toEqual([PF])
  })

  test('makes as many at the start as the machine says, with their drivers', async () => {
    const { machine, functionsOf } = world({
      numVfs: 1,
      vf: { ...SRIOV.vf, boundDriver: 'vfio-pci' },
    })

    expect(await functionsOf()).toEqual([PF, VFS[0]])
    expect(await machine.driverOf(VFS[0])).toBe('vfio-pci')
    expect((await machine.opened(VFS[0])).device).toBeGreaterThan(0)
  })
})
