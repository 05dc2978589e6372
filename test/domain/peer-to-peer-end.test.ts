/**
 * The end of a mapping of a region: it is removed before the device stops decoding, whatever makes it
 * stop, because the IOMMU would lead there for ever.
 */

import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { VFIO_IOMMU_UNMAP_DMA } from '../../src/abi/container.ts'
import { VFIO_DEVICE_PCI_HOT_RESET, VFIO_DEVICE_RESET } from '../../src/abi/device.ts'
import type { MachineSpec } from '../../src/backends/sim/spec/machine-spec.ts'
import { ERRNO } from '../../src/base/errno.ts'
import { Gate } from '../../src/base/gate.ts'
import type { Event } from '../../src/domain/state/events.ts'
import { eventOf } from '../../src/domain/state/events.ts'
import { TYPE1 } from '../modes.ts'
import { busMachine, FIRST, SECOND } from './bus-machine.ts'
import { EDU, failIoctl, OTHER_EDU, type World, world } from './machine.ts'
import {
  CARD,
  command,
  DECODING_OFF,
  DECODING_ON,
  map,
  mappedRegions,
  memory,
  PAGE,
  PEER_IOVA,
  PeerDma,
  peers,
  region,
} from './peer-machine.ts'
import { alice, bob, person } from './people.ts'
import { requireCleanEnd, WatchedKernel } from './watched-kernel.ts'

let at: World
let watched: WatchedKernel
let seen: Event[]
/** What the kernel was asked for that concerns the end of a mapping, in order. */
let calls: string[]

const NAMES = new Map([
  [VFIO_IOMMU_UNMAP_DMA.number, 'unmap'],
  [VFIO_DEVICE_RESET.number, 'reset'],
  [VFIO_DEVICE_PCI_HOT_RESET.number, 'hot reset'],
])

function start(changes: Partial<MachineSpec> = {}): void {
  watched = new WatchedKernel()
  at = world(changes, { mode: TYPE1, over: watched.over })
  seen = []
  at.domain.state.listen((change) => {
    const event = eventOf(change)
    if (event?.kind === 'regions-unmapped') seen.push(event)
  })
}

/** Note the calls from here on. */
function note(): void {
  calls = []
  at.sim.fault = ({ name, request = 0 }) => {
    const what = name === 'ioctl' ? NAMES.get(request) : name
    if (
      what !== undefined &&
      ['unmap', 'reset', 'hot reset', 'munmap', 'close', 'pwrite'].includes(what)
    )
      calls.push(what)
    return undefined
  }
}

beforeEach(() => start())

afterEach(() => requireCleanEnd(at, watched))

/** Two mappings of the peer, and one of memory. */
async function mapped(name: string): Promise<void> {
  await at.domain.memories.allocate(alice, { id: 'ram', length: PAGE, hugePage: undefined })
  const peer = { device: name }
  const items = [region(peer), region({ ...peer, iova: PEER_IOVA + 0x10_0000n }), memory()]
  await at.domain.spaces.map(alice, 'space', { items, allOrNothing: true })
  note()
}

const left = () => at.domain.state.mappings('space').all().length

describe('the mappings of a device are removed', () => {
  test('before its memory decoding is switched off', async () => {
    await peers(at, alice)
    await mapped(OTHER_EDU)

    expect(await command(at, alice, OTHER_EDU, DECODING_OFF)).toBe(2)

    expect(calls).toEqual(['unmap', 'unmap', 'pwrite'])
    expect(left()).toBe(1)
    expect(seen).toMatchObject([
      {
        ...{ clients: ['alice'], device: OTHER_EDU, spaceId: 'space' },
        why: `${OTHER_EDU}: the 2 mappings of its regions in "space" were removed, because a write to its COMMAND register switches memory decoding off; map them again once it decodes`,
      },
    ])
  })

  test('before it is reset', async () => {
    await peers(at, alice, [EDU, CARD])
    await mapped(CARD)

    expect(await at.domain.devices.reset(alice, CARD)).toBe(2)

    expect(calls).toEqual(['unmap', 'unmap', 'reset'])
    expect([left(), seen.length]).toEqual([1, 1])
  })

  test('before it is closed, and before the daemon lets go of its region', async () => {
    await peers(at, alice, [EDU, CARD])
    await mapped(CARD)

    expect(await at.domain.devices.close(alice, CARD)).toBe(2)

    expect(calls.slice(0, 2)).toEqual(['unmap', 'unmap'])
    expect(calls.indexOf('munmap')).toBeGreaterThan(calls.indexOf('reset'))
    expect(calls.indexOf('close')).toBeGreaterThan(calls.indexOf('munmap'))
    expect(left()).toBe(1)
  })

  test('before its bus is reset, those of every device of the bus', async () => {
    start(busMachine)
    for (const { name, group } of [FIRST, SECOND]) {
      await at.domain.spaces.create(alice, 'space')
      await at.domain.spaces.addGroup(alice, 'space', group)
      await at.domain.devices.open(alice, 'space', name)
      await command(at, alice, name, DECODING_ON)
    }
    await mapped(SECOND.name)
    await map(at, alice, region({ device: FIRST.name, iova: 0n }))
    note()

    expect((await at.domain.devices.hotReset(alice, FIRST.name, true)).removed).toBe(3)

    expect(calls.filter((call) => call !== 'close')).toEqual([
      'unmap',
      'unmap',
      'unmap',
      'hot reset',
    ])
    expect(left()).toBe(1)
    expect(seen.map(({ device }) => device)).toEqual([FIRST.name, SECOND.name])
  })

  test('before the daemon takes it for the host', async () => {
    const hasty = person('hasty', 103, { releaseAskedAfterMs: 1 })
    await peers(at, hasty, [EDU, CARD])
    await map(at, hasty, region({ device: CARD }))
    note()
    // The kernel answers once the device is closed.
    await at.sim.kernel.writeFile('/sys/bus/pci/drivers/vfio-pci/unbind', CARD)

    await expect.poll(() => at.log.map(({ event }) => event)).toContain('device-taken')
    expect(calls.indexOf('unmap')).toBe(0)
    expect(left()).toBe(0)
  })

  test('before its address space is destroyed, and with its owner', async () => {
    for (const end of [
      () => at.domain.destroySpace(alice, 'space'),
      () => at.domain.releaseClient(alice, 'it has exited'),
    ]) {
      await peers(at, alice, [EDU, CARD])
      await map(at, alice, region({ device: CARD }))
      note()
      await end()

      // The edu goes first; it is not mapped.
      expect(calls.slice(2, 6)).toEqual(['unmap', 'reset', 'munmap', 'close'])
    }
    expect(seen).toEqual([])
  })

  test('one by one where one cannot be: the device goes on, and both are told', async () => {
    await peers(at, alice, [EDU, CARD])
    await mapped(CARD)
    let unmaps = 0
    at.sim.fault = ({ request }) =>
      request === VFIO_IOMMU_UNMAP_DMA.number && ++unmaps === 2 ? -ERRNO.EIO : undefined

    await expect(at.domain.devices.reset(alice, CARD)).rejects.toMatchObject({
      details: { errno: 'EIO' },
    })
    expect([mappedRegions(at).length, seen.length]).toEqual([1, 1])
    note()
    expect(await at.domain.devices.close(alice, CARD)).toBe(1)
  })
})

describe('the mappings of a device stay', () => {
  beforeEach(async () => {
    await peers(at, alice)
    await mapped(OTHER_EDU)
  })

  afterEach(() => {
    expect(mappedRegions(at)).toHaveLength(2)
    expect(seen).toEqual([])
  })

  test('where a write leaves its decoding on', async () => {
    expect(await command(at, alice, OTHER_EDU, DECODING_ON)).toBe(0)
    expect(calls.filter((call) => call !== 'pread')).toEqual(['pwrite'])
  })

  test('where it is another device that stops', async () => {
    expect(await command(at, alice, EDU, DECODING_OFF)).toBe(0)
    await at.domain.devices.close(alice, EDU)
  })

  test('where it cannot be reset', async () => {
    await expect(at.domain.devices.reset(alice, OTHER_EDU)).rejects.toMatchObject({
      reason: 'UNSUPPORTED',
    })
  })

  test('where another client asks', async () => {
    await expect(command(at, bob, OTHER_EDU, DECODING_OFF)).rejects.toMatchObject({
      reason: 'NOT_MM_OWNER',
    })
    await expect(at.domain.devices.close(bob, OTHER_EDU)).rejects.toMatchObject({
      reason: 'NOT_MM_OWNER',
    })
  })

  test('where another client has adopted the device before the turn of the call comes', async () => {
    const lane = new Gate()
    void at.domain.spaces.owned(alice, 'space').lane.run(() => lane.opened)
    const closing = at.domain.devices.close(alice, OTHER_EDU)
    await at.domain.adopt(bob, at.domain.handOver(alice, 60_000).token)
    lane.open()

    await expect(closing).rejects.toMatchObject({ reason: 'NOT_MM_OWNER' })
    expect(at.domain.devices.find(bob, OTHER_EDU).isClosed).toBe(false)
  })

  test('where the kernel does not remove them: the device is not closed', async () => {
    failIoctl(at.sim, VFIO_IOMMU_UNMAP_DMA, ERRNO.EIO)

    await expect(at.domain.devices.close(alice, OTHER_EDU)).rejects.toMatchObject({
      details: { errno: 'EIO' },
    })
    expect(at.domain.devices.find(alice, OTHER_EDU).isClosed).toBe(false)
  })
})

test('a removed mapping is not restored; it can be made again once the device decodes', async () => {
  await peers(at, alice)
  await mapped(OTHER_EDU)
  await command(at, alice, OTHER_EDU, DECODING_OFF)
  await command(at, alice, OTHER_EDU, DECODING_ON)

  expect(mappedRegions(at)).toEqual([])
  await map(at, alice)
})

test('a region that is mapped during a write to COMMAND is removed before the write, or refused after it', async () => {
  for (let round = 0; round < 20; round += 1) {
    const id = `round-${round}`
    await peers(at, alice, [EDU, OTHER_EDU], id)
    const map1 = map(at, alice, region(), id).catch(() => undefined)
    const off = command(at, alice, OTHER_EDU, DECODING_OFF)
    const map2 = map(at, alice, region({ iova: 0n }), id).catch(() => undefined)
    await Promise.all([map1, off, map2])

    expect(mappedRegions(at, id)).toEqual([])
    await at.domain.destroySpace(alice, id)
  }
})

test('a device that is opened anew has no mapping of its former opening', async () => {
  await peers(at, alice, [EDU, CARD])
  await map(at, alice, region({ device: CARD }))
  await at.domain.devices.close(alice, CARD)
  await at.domain.devices.open(alice, 'space', CARD)
  await command(at, alice, CARD, DECODING_ON)
  const dma = new PeerDma(at, alice)
  const data = new Uint8Array([7, 0, 0, 0])
  await at.domain.devices.write(alice, { name: CARD, region: 0, offset: 0n, data })

  await dma.store(PEER_IOVA, 4)

  const read = at.domain.devices.read(alice, { name: CARD, region: 0, offset: 0n, length: 4 })
  expect([...(await read)]).toEqual([7, 0, 0, 0])
})
