/** Faults by name: what each effect does to calls, at which of them, and until when. */

import { afterEach, describe, expect, test } from 'vitest'
import {
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_PCI_ERR_IRQ_INDEX,
} from '../../src/abi/device.ts'
import { ENGINE } from '../../src/backends/sim/devices/profiles/engine.ts'
import type { FaultEffect, FaultSpec } from '../../src/backends/sim/spec/fault-spec.ts'
import { said } from '../contract/answers.ts'
import { getDeviceInfo, mapDma, s32, setIrqs } from '../contract/calls.ts'
import {
  mapped,
  type VendorDriver,
  type VendorWorld,
  vendorWorld,
} from '../contract/vendor-machine.ts'

const worlds: VendorWorld[] = []

const world = async () => {
  const made = await vendorWorld([['mlx5-like'], ['pds-like']])
  worlds.push(made)
  const [first, second] = made.drivers as [VendorDriver, VendorDriver]
  const { sim } = made
  const inject = (effect: FaultEffect, more: Partial<FaultSpec> = {}): void =>
    sim.faults.inject({ name: 'x', nth: 1, times: 1, effect, ...more })
  const info = async (driver = first) =>
    said((await getDeviceInfo(sim.kernel, driver.device)).answer)
  return { ...made, first, second, inject, info, name: made.addresses[0] ?? '' }
}

afterEach(async () => {
  for (const { machine, sim } of worlds.splice(0)) {
    sim.faults.clear()
    await machine.cleanUp()
  }
})

describe('a fault that answers an errno', () => {
  test('strikes from the n-th call that matches, so many times, and counts', async () => {
    const { sim, inject, info } = await world()
    inject({ kind: 'errno', errno: 'EIO' }, { request: 'VFIO_DEVICE_GET_INFO', nth: 2, times: 2 })

    expect([await info(), await info(), await info(), await info()]).toEqual([0, 'EIO', 'EIO', 0])
    expect(sim.faults.list()).toMatchObject([{ seen: 4, struck: 2 }])
  })

  test('strikes for good where it is told no number, until it is cleared', async () => {
    const { sim, inject, info } = await world()
    inject({ kind: 'errno', errno: 'ENOMEM' }, { call: 'ioctl', times: 0 })
    expect([await info(), await info()]).toEqual(['ENOMEM', 'ENOMEM'])

    expect([sim.faults.clear('y'), sim.faults.clear('x')]).toEqual([false, true])

    expect(await info()).toBe(0)
  })

  test('is about one device, or one path, if it says so', async () => {
    const { sim, name, inject, info, second } = await world()
    inject({ kind: 'errno', errno: 'EIO' }, { device: name, times: 0 })
    expect([await info(), await info(second)]).toEqual(['EIO', 0])

    inject({ kind: 'errno', errno: 'EACCES' }, { path: '/iommu_groups', times: 0 })

    expect(await sim.kernel.readDir('/sys/kernel/iommu_groups')).toBe(-13)
    expect(await info()).toBe(0)
  })
})

describe('a fault of one device', () => {
  const stopCopy = async (driver: VendorDriver): Promise<number> => {
    await driver.set('STOP')
    return driver.set('STOP_COPY')
  }

  test('strikes its data_fds, and no others', async () => {
    const { sim, name, inject, first, second } = await world()
    const [source, other] = [await stopCopy(first), await stopCopy(second)]
    const into = Buffer.alloc(64)
    expect(Math.min(source, other)).toBeGreaterThan(0)
    inject({ kind: 'errno', errno: 'EIO' }, { device: name, call: 'read' })

    expect(await sim.kernel.read(other, into)).toBe(64)
    expect(await sim.kernel.read(source, into)).toBe(-5)
    expect(await sim.kernel.read(source, into)).toBe(64)
  })
})

describe('a fault that stalls', () => {
  test('holds the call back for so many steps of time', async () => {
    const { sim, inject, info } = await world()
    inject({ kind: 'stall', steps: 2 }, { call: 'ioctl' })
    let isDone = false
    const call = info().then((answer) => {
      isDone = true
      return answer
    })
    sim.step()
    await new Promise(setImmediate)
    expect(isDone).toBe(false)

    sim.step()

    expect(await call).toBe(0)
  })

  test('lets the call go on where it is cleared', async () => {
    const { sim, inject, info } = await world()
    inject({ kind: 'stall', steps: 0 }, { call: 'ioctl' })
    const call = info()

    sim.faults.clear('x')

    expect(await call).toBe(0)
  })
})

test('a fault that cuts a call short lets it do no more bytes', async () => {
  const { sim, first, inject } = await world()
  const bytes = Buffer.alloc(8, 0xee)
  inject({ kind: 'short', bytes: 4 }, { call: 'pread' })

  expect(await sim.kernel.pread(first.device, bytes, 0n)).toBe(4)

  expect(bytes.subarray(4)).toEqual(Buffer.alloc(4, 0xee))
  expect(await sim.kernel.pread(first.device, bytes, 0n)).toBe(8)
})

test('a device that is lost answers ENODEV and EIO, does no DMA, and cannot be opened', async () => {
  const made = await world()
  const { sim, machine, first, name, inject, info } = made
  const { bytes } = await mapped(made, 0x10_0000n, 0x1000)
  await first.work({ start: 0x10_0000n, last: 0x10_0fffn }, 1n)
  inject({ kind: 'lose', device: name }, { request: 'VFIO_IOMMU_MAP_DMA' })

  await mapDma(sim.kernel, made.container, { iova: 0n, size: 0n })

  expect(await info()).toBe('ENODEV')
  expect(said(await sim.kernel.pread(first.device, Buffer.alloc(8), 0n))).toBe('EIO')
  expect(said(await sim.kernel.pwrite(first.device, Buffer.alloc(8), 0n))).toBe('EIO')
  sim.step()
  expect(bytes.some((byte) => byte !== 0)).toBe(false)
  expect(await machine.close(first.device)).toBe(0)
})

test('a device that reports an error fires its ERR interrupt', async () => {
  const { machine, first, name, inject, info, sim } = await world()
  const eventfd = machine.eventfd()
  const flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER
  const set = { flags, index: VFIO_PCI_ERR_IRQ_INDEX, start: 0, count: 1, data: s32(eventfd) }
  expect(await setIrqs(sim.kernel, first.device, set)).toBe(0)
  inject({ kind: 'aer', device: name }, { call: 'ioctl' })

  expect(await info()).toBe(0)

  expect(await machine.signals(eventfd)).toBe(1n)
  expect(await first.get(ENGINE.id)).not.toBe(0n)
})

test('an arc that fails leaves a device like pds in ERROR', async () => {
  const { addresses, second, inject, info } = await world()
  inject({ kind: 'arc', device: addresses[1] ?? '', errno: 'ETIMEDOUT' }, { call: 'ioctl' })
  await info()

  expect(said(await second.set('STOP'))).toBe('ETIMEDOUT')
  expect(await second.state()).toBe(0)
})

test.each<[string, Partial<FaultSpec>, FaultEffect]>([
  ['there is no request', { request: 'VFIO_NONSENSE' }, { kind: 'stall', steps: 1 }],
  ['it has no name', { name: '' }, { kind: 'stall', steps: 1 }],
  ['can be short', { call: 'open' }, { kind: 'short', bytes: 1 }],
  ['is not a device', {}, { kind: 'lose', device: '0000:99:00.0' }],
  ['has no request', { call: 'open', request: 'VFIO_IOMMU_MAP_DMA' }, { kind: 'stall', steps: 1 }],
])('a fault that makes no sense is not taken: %s', async (message, more, effect) => {
  const { inject, sim } = await world()

  expect(() => inject(effect, more)).toThrow(message)
  expect(sim.faults.list()).toEqual([])
})

test('a write of device state that is cut short goes on where it ended', async () => {
  const { sim, first, inject } = await world()
  const source = await first.set('STOP_COPY')
  const { bytes } = await first.drain(source)
  await first.reset()
  const loading = await first.set('RESUMING')
  inject({ kind: 'short', bytes: 100 }, { call: 'write' })

  expect(await sim.kernel.write(loading, bytes)).toBe(100)
  expect(await sim.kernel.write(loading, bytes.subarray(100))).toBe(bytes.length - 100)
  expect(await first.set('STOP')).toBe(-1)
})
