/** Memory whose file a client cuts under the machine: an access fails, and the process lives. */

import { afterEach, describe, expect, test } from 'vitest'
import { createSim } from '../../src/backends/sim/sim.ts'
import { defaultMachine } from '../../src/backends/sim/spec/default-machine.ts'
import { sys } from '../../src/os/libc.ts'
import { mapDma } from '../contract/calls.ts'
import { EduDriver } from '../contract/edu-driver.ts'
import { boundAndAttached, openIommufd } from '../contract/iommufd-calls.ts'
import { Machine } from '../contract/machine.ts'
import { PINNER, PinningDriver, pinningMachine } from '../contract/pinning-machine.ts'

const EDU = '0000:00:04.0'
const IOVA = 0x10_0000n
const PAGE = 0x1000
const SIZE = 2 * PAGE
const BEHIND = IOVA + BigInt(PAGE)

let machine: Machine | undefined

const machineOf = (spec = defaultMachine): Machine => {
  const sim = createSim(spec, { time: 'poked' })
  machine = new Machine('sim', sim.kernel, async () => void sim.step())
  return machine
}

afterEach(() => machine?.cleanUp())

/** Two pages of a file, of which the second is gone. */
const cut = (fd: number): number => sys.ftruncate(fd, BigInt(PAGE))

describe('a device in a container', () => {
  const world = async () => {
    const on = machineOf()
    await on.bind(EDU)
    const { container, device } = await on.opened(EDU)
    const { fd, segment } = await on.memory(SIZE)
    segment.bytes.fill(7)
    await mapDma(on.kernel, container, { vaddr: segment.address, iova: IOVA, size: BigInt(SIZE) })
    return { edu: await new EduDriver(on, device).enable(), fd, segment }
  }

  test('reads zeros from a page that is gone, and other pages as before', async () => {
    const { edu, fd, segment } = await world()
    cut(fd)

    await edu.fetch(BEHIND, 16)
    await edu.store(IOVA, 16)
    expect([...segment.view(0, 16)]).toEqual(Array(16).fill(0))
    segment.view(0, 16).fill(9)
    await edu.fetch(IOVA, 16)
    await edu.store(IOVA + 64n, 16)

    expect([...segment.view(64, 16)]).toEqual(Array(16).fill(9))
  })

  test('writes to a page that is gone move nothing', async () => {
    const { edu, fd } = await world()
    cut(fd)

    await edu.store(BEHIND, 16)
    sys.ftruncate(fd, BigInt(SIZE))

    const bytes = new Uint8Array(16)
    expect(sys.preadSync(fd, bytes, BigInt(PAGE))).toBe(16)
    expect([...bytes]).toEqual(Array(16).fill(0))
  })
})

test('a device of an iommufd moves nothing to a page that is gone', async () => {
  const on = machineOf()
  await on.bind(EDU)
  const iommufd = await openIommufd(on)
  const ioas = await iommufd.newIoas()
  const { device } = await boundAndAttached(on, iommufd, EDU, ioas)
  const { fd, segment } = await on.memory(SIZE)
  const edu = await new EduDriver(on, device).enable()
  const at = { iova: IOVA, vaddr: segment.address, length: BigInt(SIZE) }
  expect(await iommufd.mapAt(ioas, at)).toBe(0)
  cut(fd)

  await edu.store(BEHIND, 16)
  await edu.fetch(BEHIND, 16)

  expect(await iommufd.mapAt(ioas, { ...at, iova: 2n * IOVA })).toBe('EFAULT')
})

test('a driver that reads, writes or pins a page that is gone: EFAULT', async () => {
  const on = machineOf(pinningMachine)
  const { container, device } = await on.opened(PINNER)
  const { fd, segment } = await on.memory(SIZE)
  await mapDma(on.kernel, container, {
    vaddr: segment.address,
    iova: IOVA,
    size: BigInt(SIZE),
  })
  const driver = new PinningDriver(on.kernel, device)
  cut(fd)

  expect(await driver.read(BEHIND, 8)).toBe('EFAULT')
  expect(await driver.write(BEHIND, new Uint8Array(8))).toBe('EFAULT')
  expect(await driver.pin({ iova: BEHIND, pages: 1 })).toBe('EFAULT')
  expect(await driver.pin({ iova: IOVA, pages: 1 })).toBe(0)
})
