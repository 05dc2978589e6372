/** Pinning, reading and writing through an ioas, by a mediated device of the simulator. */

import { afterAll, afterEach } from 'vitest'
import { createSim } from '../../src/backends/sim/sim.ts'
import { type Access, accessSuite } from '../contract/iommufd-access-suite.ts'
import {
  attach,
  boundAndAttached,
  detach,
  type Iommufd,
  openIommufd,
} from '../contract/iommufd-calls.ts'
import { Machine } from '../contract/machine.ts'
import { PINNER, PinningDriver, pinningMachine } from './pinning-machine.ts'

const EDU = '0000:00:04.0'

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
