/** What happens to groups outside the daemon: an address space says so, and goes on once it can. */

import { afterEach, beforeEach, expect, test } from 'vitest'
import { type Event, eventOf } from '../../src/domain/state/events.ts'
import { describeModes } from '../modes.ts'
import {
  EDU,
  EDU_GROUP,
  OTHER_EDU,
  OTHER_EDU_GROUP,
  readySpace,
  type World,
  world,
} from './machine.ts'
import { alice } from './people.ts'
import { requireRightBooks } from './watched-kernel.ts'

const DRIVER = '/sys/bus/pci/drivers/vfio-pci'
const PAGE = 0x1000n
const LOST = `the kernel took group ${EDU_GROUP} out of "space": its devices left their VFIO driver or were removed`

describeModes('a group that the kernel takes out of an address space', (mode) => {
  let at: World
  let seen: Event[]

  async function start(options: { readonly reconcileMs?: number } = {}) {
    at = world({}, { mode, ...options })
    seen = []
    at.domain.state.listen((change) => {
      const event = eventOf(change)
      if (event !== undefined) seen.push(event)
    })
    await readySpace(at, alice)
    await at.domain.memories.allocate(alice, { id: 'ram', length: 4n * PAGE, hugePage: undefined })
    await map(0n)
  }

  beforeEach(() => start())

  afterEach(async () => {
    requireRightBooks(at)
    await at.domain.releaseAll('the test is over')
    requireRightBooks(at)
  })

  const map = (page: bigint) => {
    const item = { iova: page * PAGE, length: PAGE, memoryId: 'ram', offset: 0n, access: 'read' }
    return at.domain.spaces.map(alice, 'space', {
      items: [item as never],
      allOrNothing: true,
    })
  }
  const unbindOutside = () => at.sim.kernel.writeFile(`${DRIVER}/unbind`, EDU)
  const bindOutside = () => at.sim.kernel.writeFile(`${DRIVER}/bind`, EDU)
  const remove = () => at.sim.kernel.writeFile(`/sys/bus/pci/devices/${EDU}/remove`, '1')

  test('leaves it pending, without its mappings, and tells its owner', async () => {
    await unbindOutside()

    const space = await at.domain.spaces.get('space')
    expect(space.state).toBe('pending')
    expect(space.mappings.size).toBe(0)
    expect(space.blockers).toEqual([
      {
        subject: `group ${EDU_GROUP}`,
        found: 'without a device that is bound to a VFIO driver',
        fix: `bind ${EDU} to vfio-pci`,
      },
    ])
    expect(seen).toMatchObject([
      {
        kind: 'group-lost',
        clients: ['alice'],
        spaceId: 'space',
        group: EDU_GROUP,
        why: `${LOST}, and the 1 mappings of the space are gone with it; bind them again, or remove the group`,
      },
    ])
    expect(at.log.at(-1)).toMatchObject({ event: 'group-lost', level: 'warn' })
    await expect(map(1n)).rejects.toMatchObject({ reason: 'SPACE_NOT_READY' })
  })

  test('is not one that the kernel cannot tell about: nothing is released', async () => {
    const { faults } = at.sim
    const pinned = at.pinned()
    for (const errno of ['EMFILE', 'ENOMEM', 'EIO'] as const) {
      const request = 'VFIO_GROUP_GET_STATUS'
      const effect = { kind: 'errno', errno } as const
      faults.inject({ name: 'status', request, nth: 1, times: 0, effect })
      await at.domain.spaces.reconcile().catch(() => undefined)
      faults.clear('status')

      const { state, mappings } = await at.domain.spaces.get('space')
      expect([state, mappings.size], errno).toEqual(['ready', 1])
    }
    expect(seen).toEqual([])
    expect(at.pinned()).toBe(pinned)
  })

  test('is noticed without a call', async () => {
    await at.domain.releaseAll('another machine')
    await start({ reconcileMs: 1 })
    await unbindOutside()

    await expect.poll(() => seen.map(({ kind }) => kind)).toEqual(['group-lost'])
    expect(at.domain.spaces.list().map(({ state }) => state)).toEqual(['pending'])
  })

  test('is why a map is refused, not what the kernel answers to it', async () => {
    await unbindOutside()

    await expect(map(1n)).rejects.toMatchObject({
      reason: 'SPACE_NOT_READY',
      message: expect.stringContaining(`bind ${EDU} to vfio-pci`),
    })
    expect(seen).toHaveLength(1)
  })

  test('leaves nothing to unmap, and can be removed', async () => {
    await unbindOutside()

    expect(await at.domain.spaces.unmap(alice, 'space', 'all')).toMatchObject({
      errors: [undefined],
    })
    await at.domain.spaces.removeGroup(alice, 'space', EDU_GROUP)
    expect((await at.domain.spaces.get('space')).state).toBe('empty')
  })

  test('is attached again once its device is bound again', async () => {
    await unbindOutside()
    await at.domain.spaces.get('space')
    await bindOutside()
    await at.domain.binding.bind(alice, { devices: [EDU], driver: undefined, wholeGroup: false })

    expect((await at.domain.spaces.get('space')).state).toBe('ready')
    await map(0n)
    expect((await at.domain.devices.open(alice, 'space', EDU)).name).toBe(EDU)
  })

  test('takes no other group with it, and no mapping', async () => {
    await at.domain.binding.bind(alice, {
      devices: [OTHER_EDU],
      driver: undefined,
      wholeGroup: false,
    })
    await at.domain.spaces.addGroup(alice, 'space', OTHER_EDU_GROUP)
    await unbindOutside()

    const space = await at.domain.spaces.get('space')
    expect(space.state).toBe('pending')
    expect(space.mappings.size).toBe(1)
    expect(seen[0]?.why).toBe(`${LOST}; bind them again, or remove the group`)
    await at.domain.spaces.removeGroup(alice, 'space', EDU_GROUP)
    expect(space.state).toBe('ready')
    await map(1n)
  })

  test('is named as gone where its device was removed, and returns with it', async () => {
    await remove()

    const space = await at.domain.spaces.get('space')
    expect(space.state).toBe('pending')
    expect(space.blockers).toEqual([
      {
        subject: `group ${EDU_GROUP}`,
        found: 'gone: its devices were removed from the host',
        fix: 'remove the group, or plug its devices in again',
      },
    ])
    await at.sim.kernel.writeFile('/sys/bus/pci/rescan', '1')
    await at.domain.binding.bind(alice, { devices: [EDU], driver: undefined, wholeGroup: false })
    const { group } = await at.domain.inventory.device(EDU)
    await at.domain.spaces.addGroup(alice, 'space', group)
    expect((await at.domain.spaces.get('space')).state).toBe('ready')
  })
})
