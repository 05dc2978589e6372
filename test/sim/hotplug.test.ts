/** What happens around the daemon: slots whose hardware comes and goes, and other processes. */

import { afterEach, describe, expect, test } from 'vitest'
import { VFIO_PCI_REQ_IRQ_INDEX } from '../../src/abi/device.ts'
import { parseMachine } from '../../src/backends/sim/machine-file/machine-file.ts'
import { createSim, type Sim } from '../../src/backends/sim/sim.ts'
import type { FaultEffect } from '../../src/backends/sim/spec/fault-spec.ts'
import { holdersOf } from '../../src/kernel/holders.ts'
import { commandOf } from '../../src/kernel/sysfs.ts'
import { said } from '../contract/answers.ts'
import { getDeviceFd, getDeviceInfo, s32, setIrqs } from '../contract/calls.ts'
import { Machine } from '../contract/machine.ts'

const PCI = '/sys/bus/pci'
const EDU = '0000:00:04.0'
const FILE = `
[[functions]]
address = "${EDU}"
kind = "edu"
group = 3
bound_driver = "vfio-pci"

[[functions]]
address = "0000:00:05.0"
kind = "edu"
group = 4
plugged = false
`

const worlds: { readonly sim: Sim; readonly machine: Machine }[] = []

const world = (more = '') => {
  const sim = createSim(parseMachine(more.startsWith('[') ? FILE + more : more + FILE, 'machine'), {
    time: 'poked',
  })
  const machine = new Machine('sim', sim.kernel, async () => void sim.step())
  worlds.push({ sim, machine })
  /** Injects a fault, and makes the call that it strikes. */
  const strike = async (effect: FaultEffect): Promise<void> => {
    sim.faults.inject({ name: effect.kind, nth: 1, times: 1, effect })
    await sim.kernel.readFile('/sys')
    await new Promise(setImmediate)
  }
  const functions = () => machine.names(`${PCI}/devices`)
  const rescan = () => sim.kernel.writeFile(`${PCI}/rescan`, '1')
  return { sim, machine, strike, functions, rescan }
}

afterEach(async () => {
  for (const { sim, machine } of worlds.splice(0)) {
    sim.faults.clear()
    await machine.restore()
  }
})

const pidsOf = async ({ kernel }: Sim, path: string) =>
  (await holdersOf(kernel, [path])).map(({ pid }) => pid)

describe('hardware that is unplugged', () => {
  test('is taken from the bus once its user has closed it, and is not found again', async () => {
    const { sim, machine, strike, functions, rescan } = world()
    const { device } = await machine.opened(EDU)
    const eventfd = machine.eventfd()
    await setIrqs(sim.kernel, device, {
      flags: 0x24,
      index: VFIO_PCI_REQ_IRQ_INDEX,
      count: 1,
      data: s32(eventfd),
    })

    await strike({ kind: 'unplug', device: EDU })
    expect(await machine.signals(eventfd)).toBeGreaterThan(0n)
    expect(await functions()).toEqual([EDU])
    expect(said((await getDeviceInfo(sim.kernel, device)).answer)).toBe(0)
    await machine.close(device)
    await rescan()

    expect(await functions()).toEqual([])
    expect(await machine.names('/sys/kernel/iommu_groups')).toEqual([])
  })

  test('is there again when it is plugged in', async () => {
    const { machine, strike, functions } = world()
    await strike({ kind: 'unplug', device: EDU })
    expect(await functions()).toEqual([])

    await strike({ kind: 'plug', device: EDU })

    expect(await functions()).toEqual([EDU])
    expect(await machine.groupOf(EDU)).toBe(3)
    expect(await machine.driverOf(EDU)).toBeUndefined()
  })

  test('may come for the first time', async () => {
    const { machine, strike, functions, rescan } = world()
    await rescan()
    expect(await functions()).toEqual([EDU])

    await strike({ kind: 'plug', device: '0000:00:05.0' })

    expect(await functions()).toEqual([EDU, '0000:00:05.0'])
    await machine.bind('0000:00:05.0')
    expect((await machine.opened('0000:00:05.0')).device).toBeGreaterThan(0)
  })
})

describe('hardware that is lost by surprise', () => {
  test('stays listed, can be removed, and is not found by a scan', async () => {
    const { sim, strike, functions, rescan } = world()
    await strike({ kind: 'lose', device: EDU })
    expect(await functions()).toEqual([EDU])

    await sim.kernel.writeFile(`${PCI}/devices/${EDU}/remove`, '1')
    await rescan()

    expect(await functions()).toEqual([])
  })

  test('cannot be opened by another driver instance either: ENODEV', async () => {
    const { sim, machine, strike } = world()
    await strike({ kind: 'lose', device: EDU })
    await sim.kernel.writeFile(`${PCI}/drivers/vfio-pci/unbind`, EDU)
    await sim.kernel.writeFile(`${PCI}/drivers_probe`, EDU)
    const { group } = await machine.attached([EDU])

    expect(said(await getDeviceFd(sim.kernel, group, EDU))).toBe('ENODEV')
  })

  test('works again once it is plugged in, when its user has let go', async () => {
    const { sim, machine, strike } = world()
    const { device } = await machine.opened(EDU)
    await strike({ kind: 'lose', device: EDU })
    expect(said((await getDeviceInfo(sim.kernel, device)).answer)).toBe('ENODEV')

    await strike({ kind: 'plug', device: EDU })
    expect(await machine.driverOf(EDU)).toBeUndefined()
    await machine.cleanUp()
    await new Promise(setImmediate)

    await machine.bind(EDU)
    const again = await machine.opened(EDU)
    expect(said((await getDeviceInfo(sim.kernel, again.device)).answer)).toBe(0)
  })
})

describe('a process that holds', () => {
  const held = (path: string): FaultEffect => ({ kind: 'hold', path, pid: 812, command: 'qemu' })

  test('a group: it cannot be opened, and /proc says by whom', async () => {
    const { sim, machine, strike } = world()
    await strike(held('/dev/vfio/3'))

    expect(said(await machine.open('/dev/vfio/3'))).toBe('EBUSY')
    expect(await pidsOf(sim, '/dev/vfio/3')).toEqual([812])
    expect(await commandOf(sim.kernel, 812)).toBe('qemu')
  })

  test.each(['type1', 'iommufd'])(
    'a group of %s: an unbind of its device waits until it lets go',
    async (container) => {
      const { sim, machine, strike } = world(`vfio_container = "${container}"\n`)
      await strike(held('/dev/vfio/3'))
      let isDone = false
      const unbound = sim.kernel.writeFile(`${PCI}/drivers/vfio-pci/unbind`, EDU).then((answer) => {
        isDone = true
        return answer
      })
      sim.step()
      await new Promise(setImmediate)
      expect(isDone).toBe(false)

      sim.faults.clear('hold')

      expect(await unbound).toBe(EDU.length)
      expect(await machine.names('/proc')).not.toContain('812')
    },
  )

  test('a cdev: the group cannot be opened, and the device cannot be bound', async () => {
    const { sim, machine, strike } = world()
    await strike(held('/dev/vfio/devices/vfio0'))

    expect(said(await machine.open('/dev/vfio/3'))).toBe('EBUSY')
    expect(await machine.open('/dev/vfio/devices/vfio0')).toBeGreaterThan(0)
    expect(await pidsOf(sim, '/dev/vfio/devices/vfio0')).toContain(812)
  })

  test('from the start, where the machine file says so', async () => {
    const { machine } = world(
      '[[faults]]\nname = "vm"\neffect = { hold = "/dev/vfio/3", pid = 77 }\n',
    )

    expect(said(await machine.open('/dev/vfio/3'))).toBe('EBUSY')
    expect(await machine.text('/proc/77/comm')).toBe('qemu-system-x86')
  })

  test('takes a file that is not there yet as soon as it is', async () => {
    const { machine } = world(
      '[[faults]]\nname = "vm"\neffect = { hold = "/dev/vfio/4", pid = 77 }\n[[faults]]\nname = "in"\nnth = 3\neffect = { plug = "0000:00:05.0" }\n',
    )
    expect(said(await machine.open('/dev/vfio/4'))).toBe('ENOENT')

    await machine.names('/dev/vfio')
    await machine.names('/dev/vfio')
    await new Promise(setImmediate)
    await machine.bind('0000:00:05.0')

    expect(said(await machine.open('/dev/vfio/4'))).toBe('EBUSY')
  })

  test('of this daemon is shown as well', async () => {
    const { sim, machine } = world()
    await machine.group(EDU)

    expect(await pidsOf(sim, '/dev/vfio/3')).toEqual([process.pid])
  })
})
