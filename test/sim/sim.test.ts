/** What only the simulator can do: its time, its processes, its faults, and its fds. */

import { afterEach, describe, expect, test } from 'vitest'
import { VFIO_IOMMU_MAP_DMA } from '../../src/abi/container.ts'
import { createSim, type Sim } from '../../src/backends/sim/sim.ts'
import { defaultMachine } from '../../src/backends/sim/spec/default-machine.ts'
import { ERRNO } from '../../src/base/errno.ts'
import { eventfdCreate } from '../../src/os/eventfd.ts'
import { sys } from '../../src/os/libc.ts'
import { said } from '../contract/answers.ts'
import { mapDma, setContainer } from '../contract/calls.ts'
import { EduDriver, REG } from '../contract/edu-driver.ts'
import { Machine } from '../contract/machine.ts'

const EDU = '0000:00:04.0'

const machines: Machine[] = []

const machineOf = (sim: Sim): Machine => {
  const machine = new Machine('sim', sim.kernel, async () => void sim.step())
  machines.push(machine)
  return machine
}

afterEach(async () => {
  for (const machine of machines.splice(0)) await machine.cleanUp()
})

describe('time', () => {
  test('poked: nothing happens until step, and then each thing once', async () => {
    const sim = createSim(defaultMachine, { time: 'poked' })
    const machine = machineOf(sim)
    await machine.bind(EDU)
    const { device } = await machine.opened(EDU)
    const edu = await new EduDriver(machine, device).enable()
    await edu.write32(REG.factorial, 5)

    expect(await edu.read32(REG.status)).toBe(1)
    expect(sim.step()).toBe(true)
    expect([await edu.read32(REG.status), await edu.read32(REG.factorial)]).toEqual([0, 120])
    expect(sim.step()).toBe(false)
  })

  test('auto: it happens by itself', async () => {
    const sim = createSim(defaultMachine, { time: 'auto' })
    const tick = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 1))
    const machine = new Machine('sim', sim.kernel, tick)
    machines.push(machine)
    await machine.bind(EDU)
    const { device } = await machine.opened(EDU)
    const edu = await new EduDriver(machine, device).enable()
    await edu.write32(REG.factorial, 5)

    await machine.until(async () => ((await edu.read32(REG.status)) === 0 ? true : undefined))

    expect(await edu.read32(REG.factorial)).toBe(120)
  })
})

describe('fds', () => {
  test('are numbers that nothing else in this process has', async () => {
    const { kernel } = createSim(defaultMachine, { time: 'poked' })
    const container = await kernel.open('/dev/vfio/vfio', 2)
    const eventfd = eventfdCreate()

    expect(eventfd).not.toBe(container)

    sys.closeSync(eventfd)
    await kernel.close(container)
  })

  test('cannot be exported: EOPNOTSUPP', async () => {
    const { kernel } = createSim(defaultMachine, { time: 'poked' })
    const container = await kernel.open('/dev/vfio/vfio', 2)

    expect(said(await kernel.exportFd(container))).toBe('EOPNOTSUPP')
    await kernel.close(container)
  })

  test('that are not open answer EBADF to everything', async () => {
    const { kernel } = createSim(defaultMachine, { time: 'poked' })
    const bytes = new Uint8Array(8)
    const answers = [
      await kernel.ioctl(1, 0x3b64, undefined),
      await kernel.pread(1, bytes, 0n),
      await kernel.pwrite(1, bytes, 0n),
      await kernel.read(1, bytes),
      await kernel.write(1, bytes),
      await kernel.exportFd(1),
      await kernel.close(1),
    ]

    expect(answers.map(said)).toEqual(Array(7).fill('EBADF'))
  })
})

describe('a fault', () => {
  test('answers a call in the place of the kernel, which does not see it', async () => {
    const sim = createSim(defaultMachine, { time: 'poked' })
    const machine = machineOf(sim)
    await machine.bind(EDU)
    const { container } = await machine.attached([EDU])
    const { segment } = await machine.memory(4096)
    const map = { vaddr: segment.address, iova: 0x1000n, size: 0x1000n }
    sim.fault = ({ name, request }) =>
      name === 'ioctl' && request === VFIO_IOMMU_MAP_DMA.number ? -ERRNO.EINTR : undefined
    expect(said(await mapDma(sim.kernel, container, map))).toBe('EINTR')

    sim.fault = undefined

    expect(await mapDma(sim.kernel, container, map)).toBe(0)
  })
})

describe('processes', () => {
  test('have separate fds, and share the files that they were given', async () => {
    const sim = createSim(defaultMachine, { time: 'poked' })
    const machine = machineOf(sim)
    await machine.bind(EDU)
    const { container, group } = await machine.attached([EDU])
    const other = sim.spawn()
    expect(said(await other.kernel.ioctl(container, 0x3b64, undefined))).toBe('EBADF')

    const received = other.receive(sim, container)
    await machine.close(container)

    expect(await other.kernel.ioctl(received, 0x3b64, undefined)).toBe(0)
    expect(said(await setContainer(other.kernel, group, received))).toBe('EBADF')
    other.exit()
  })

  test('that exit close what they had', async () => {
    const sim = createSim(defaultMachine, { time: 'poked' })
    const machine = machineOf(sim)
    await machine.bind(EDU)
    const other = sim.spawn()
    expect(await other.kernel.open('/dev/vfio/3', 2)).toBeGreaterThanOrEqual(0)
    expect(said(await machine.open('/dev/vfio/3'))).toBe('EBUSY')

    other.exit()

    expect(await machine.open('/dev/vfio/3')).toBeGreaterThanOrEqual(0)
  })
})

describe('a call under way', () => {
  test('keeps its file, whatever is closed meanwhile', async () => {
    const sim = createSim(defaultMachine, { time: 'poked' })
    const machine = machineOf(sim)
    await machine.bind(EDU)
    const { container, group } = await machine.attached([EDU])
    const { segment } = await machine.memory(4096)
    const map = { vaddr: segment.address, iova: 0x1000n, size: 0x1000n }

    const answers = await Promise.all([
      mapDma(sim.kernel, container, map),
      machine.close(container),
      machine.close(group),
    ])

    expect(answers).toEqual([0, 0, 0])
    expect(sim.lockedPages).toBe(0n)
  })
})
