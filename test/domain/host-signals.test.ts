// What the daemon signals for a client does not wait for the client.

import { expect, test } from 'vitest'
import type { DeviceFd } from '../../src/base/units.ts'
import { HostSignals } from '../../src/domain/device/host-signals.ts'
import { REQUEST_IRQ } from '../../src/kernel/device-calls.ts'
import { eventfdCreate, eventfdRead } from '../../src/os/eventfd.ts'
import { sys } from '../../src/os/libc.ts'
import { openFds } from '../os/fds.ts'
import { EDU, readySpace, world } from './machine.ts'
import { alice } from './people.ts'

const FULL = new Uint8Array(new BigUint64Array([2n ** 64n - 2n]).buffer)
const SATURATED = 2n ** 64n - 1n

const armed = async () => {
  const at = world()
  await readySpace(at, alice)
  await at.domain.devices.open(alice, 'space', EDU)
  const irq = { index: REQUEST_IRQ, count: 1, hasEventfd: true }
  const device = { isPci: true, irqs: [irq] } as unknown as Parameters<typeof HostSignals.arm>[2]
  const { kernel } = at.sim
  const over = { ...kernel, ioctl: async () => 0 } as typeof kernel
  return { at, signals: await HostSignals.arm(over, 3 as DeviceFd, device) }
}

test('a counter that its client keeps full holds up neither the daemon nor its end', async () => {
  const { at, signals } = await armed()
  const before = openFds()
  const eventfd = eventfdCreate()
  sys.writeSync(eventfd, FULL)
  signals.share(REQUEST_IRQ, eventfd)

  signals.trigger(REQUEST_IRQ)
  signals.trigger(REQUEST_IRQ)
  expect(eventfdRead(eventfd)).toBe(SATURATED)
  signals.trigger(REQUEST_IRQ)
  expect(eventfdRead(eventfd)).toBe(1n)
  signals.unshare(REQUEST_IRQ)
  sys.closeSync(eventfd)

  expect(openFds()).toBe(before)
  signals.close()
  await at.domain.releaseAll('the test is over')
})
