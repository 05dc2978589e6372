/** Pinning, reading and writing through an ioas, by a mediated device of the simulator. */

import { afterAll, afterEach, expect, test } from 'vitest'
import { createSim } from '../../src/backends/sim/sim.ts'
import { describeModelled } from './backends.ts'
import { type Access, accessSuite } from './iommufd-access-suite.ts'
import { attach, boundAndAttached, detach, Iommufd, openIommufd, PAGE } from './iommufd-calls.ts'
import { Machine } from './machine.ts'
import { PINNER, PinningDriver, pinningMachine } from './pinning-machine.ts'

const describe = describeModelled('its mediated devices pin nothing')

const EDU = '0000:00:04.0'
const IOVA = 0x100_0000n

const sim = createSim(pinningMachine, { time: 'poked' })
const machine = new Machine('sim', sim.kernel, async () => void sim.step())
afterEach(() => machine.cleanUp())
afterAll(() => machine.restore())

const access = async (iommufd: Iommufd, ioas: number): Promise<Access> => {
  const { device } = await boundAndAttached(machine, iommufd, PINNER, ioas)
  const driver = new PinningDriver(sim.kernel, device)
  return {
    pin: async ({ iova, pages, isWritten = false }) => ({
      answer: await driver.pin({ iova, pages }, { isWritten }),
      unpin: () => driver.unpin({ iova, pages }),
    }),
    read: (iova, length) => driver.read(iova, length),
    write: (iova, bytes) => driver.write(iova, bytes),
    move: async (other) => (await attach(machine, device, other)).answer,
    close: async () => void (await machine.close(device)),
  }
}

describe('accesses', () => {
  accessSuite('an access of a mediated device', {
    machine,
    open: () => openIommufd(machine),
    access,
    domain: async (iommufd, ioas) => {
      await machine.edus()
      const { device } = await boundAndAttached(machine, iommufd, EDU, ioas)
      return { leave: async () => void (await detach(machine, device)) }
    },
    pinnedPages: () => sim.pinnedPages,
  })
})

describe('an access to memory that another process mapped', () => {
  /** The child maps a page that the access is to pin. */
  const mapped = async () => {
    const iommufd = await openIommufd(machine)
    const ioas = await iommufd.newIoas()
    const child = sim.spawn()
    const theirs = new Machine('sim', child.kernel, async () => {})
    const { segment } = await machine.memory(4096)
    const handed = new Iommufd(theirs, child.receive(sim, iommufd.fd))
    await handed.mapAt(ioas, { iova: IOVA, vaddr: segment.address, length: PAGE })
    const { pin, read } = await access(iommufd, ioas)
    return { child, read, pin: () => pin({ iova: IOVA, pages: 1, vaddr: segment.address }) }
  }

  test('pins it while that one is there, and charges it (fork_present)', async () => {
    const { child, pin } = await mapped()

    expect((await pin()).answer).toBe(0)

    expect([sim.pinnedPages, child.pinnedPages]).toEqual([0n, 1n])
    child.exit()
  })

  test('finds nothing once that one is gone: EFAULT (fork_gone)', async () => {
    const { child, pin, read } = await mapped()

    child.exit()

    expect((await pin()).answer).toBe('EFAULT')
    expect(await read(IOVA, 4)).toBe('EFAULT')
  })
})
