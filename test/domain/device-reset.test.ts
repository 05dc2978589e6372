/** A device has no memory of its last user: it is reset on the way in and on the way out. */

import { beforeEach, expect, test } from 'vitest'
import { VFIO_DEVICE_RESET, VFIO_DEVICE_SET_IRQS } from '../../src/abi/device.ts'
import { ERRNO } from '../../src/base/errno.ts'
import { describeModes } from '../modes.ts'
import { EDU, failIoctl, readySpace, type World, world } from './machine.ts'
import { alice } from './people.ts'

const NAMES = new Map([
  [VFIO_DEVICE_RESET.number, 'reset'],
  [VFIO_DEVICE_SET_IRQS.number, 'irqs'],
])

describeModes('a device', (mode) => {
  let at: World
  /** Resets, changes of interrupts and closes, in their order. */
  let seen: string[]

  beforeEach(async () => {
    at = world({}, { mode })
    await readySpace(at, alice)
    seen = []
    at.sim.fault = ({ name, request = 0 }) => {
      const what = name === 'ioctl' ? NAMES.get(request) : name === 'close' ? name : undefined
      if (what !== undefined) seen.push(what)
      return undefined
    }
  })

  test('is reset before its first use, and before its fd is closed', async () => {
    await at.domain.devices.open(alice, 'space', EDU)
    // REQ is armed once it is reset; the close disarms it.
    expect(seen).toEqual(['reset', 'irqs'])

    await at.domain.devices.close(alice, EDU)
    expect(seen).toEqual(['reset', 'irqs', 'reset', 'close'])
  })

  test('has its interrupts off before it is reset, and is closed by the end of its client', async () => {
    await at.domain.devices.open(alice, 'space', EDU)
    const end = new AbortController()
    const vectors = { name: EDU, index: 0, start: 0, count: 0 }
    const irqs = at.domain.irqs.watch(alice, vectors, end.signal)
    expect(await irqs.next()).toMatchObject({ value: { kind: 'armed' } })
    seen.length = 0

    await at.domain.releaseClient(alice, 'it has exited')

    expect(seen.slice(0, 3)).toEqual(['irqs', 'reset', 'close'])
    end.abort()
    await irqs.return()
  })

  test('that does not take the reset is not opened', async () => {
    failIoctl(at.sim, VFIO_DEVICE_RESET, ERRNO.EIO)

    await expect(at.domain.devices.open(alice, 'space', EDU)).rejects.toMatchObject({
      details: { errno: 'EIO' },
    })

    expect(at.domain.state.device(EDU)).toBeUndefined()
  })
})
