/** Peer to peer through gRPC: one edu does DMA into the registers of another. */

import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { VfiodClient } from '../../src/client/client.ts'
import { mapAll } from '../../src/client/verbs.ts'
import type { Event__Output as Event } from '../../src/proto/vfiod/v1/Event.ts'
import { describeModes, TYPE1 } from '../modes.ts'
import { Edu } from './edu.ts'
import { type ReadyDevice, readyDevice } from './ready-device.ts'
import { eduDevices, groupOf, until } from './world.ts'

const SPACE = 'peers'
const LENGTH = 2n << 20n
const IOVA = 0x10_0000n
/** Where the first page of the peer is mapped. */
const PEER = 0x100_0000n
const PAGE = 0x1000n
/** A register of edu: it answers the complement of what was written. */
const LIVENESS = 4n
const COMMAND = { region: 7, offset: '4' } as const
const MEMORY_OFF = Buffer.from([4, 0])

describeModes('peer to peer', (mode) => {
  let ready: ReadyDevice | undefined
  let client: VfiodClient
  let edu: Edu
  let peer: string
  const events: Event[] = []
  const watch = new AbortController()

  const map = () =>
    mapAll(client, SPACE, [
      { iova: PEER, length: PAGE, region: { device: peer, region: 0 }, offset: 0n },
    ])

  const mappings = async () =>
    (await client.addressSpace.listMappings({ spaceId: SPACE })).mappings.filter(
      ({ region }) => region,
    )

  const liveness = async (): Promise<number> => {
    const at = { name: peer, region: 0, offset: String(LIVENESS), length: 4 }
    return (await client.device.readRegion(at)).data.readUInt32LE()
  }

  let isWatching = false

  async function watchEvents(): Promise<void> {
    const stream = client.ownership.watchEvents({}, { signal: watch.signal })
    for await (const { watching, happened } of stream) {
      isWatching ||= watching === true
      if (happened) events.push(happened)
    }
  }

  beforeAll(async () => {
    ready = await readyDevice(mode, { spaceId: SPACE, length: LENGTH, iova: IOVA })
    client = ready.client
    edu = ready.edu
    const found = (await eduDevices(client)).find((name) => name !== ready?.name)
    if (found === undefined) throw new Error('the machine has no second edu device')
    peer = found
    await client.inventory.bindDevices({ devices: [peer] })
    await client.addressSpace.addGroup({ spaceId: SPACE, groupId: await groupOf(client, peer) })
    await client.device.openDevice({ spaceId: SPACE, name: peer })
    await new Edu(client, peer).enable()
    void watchEvents().catch(() => undefined)
    await until(() => isWatching)
  })

  afterAll(async () => {
    watch.abort()
    await client.device.closeDevice({ name: peer }).catch(() => undefined)
    const groupId = await groupOf(client, peer)
    await client.addressSpace.removeGroup({ spaceId: SPACE, groupId })
    await client.inventory.unbindDevices({ devices: [peer] })
    await ready?.stop()
  })

  test('needs a region that can be mapped, as the information of the device says', async () => {
    const { device } = await client.device.getDeviceInfo({ name: peer })
    const [bar, config] = [0, 7].map((wanted) =>
      device?.regions.find(({ index }) => index === wanted),
    )

    const areas = [{ offset: '0', length: String(1 << 20) }]
    expect(bar).toMatchObject({ mappable: true, mappableAreas: areas })
    expect(config).toMatchObject({ mappable: false, mappableAreas: [] })
  })

  if (mode !== TYPE1) {
    test('is refused where the container is that of iommufd: UNSUPPORTED', async () => {
      await expect(map()).rejects.toMatchObject({ reason: 'UNSUPPORTED' })
      expect(await mappings()).toEqual([])
    })
    return
  }

  // One story, told in order.
  describe('through gRPC', { shuffle: false }, () => {
    test('lets one device read and write the registers of another', async () => {
      const memory = ready?.memory.view(0, 4) ?? new Uint8Array()
      await map()

      await edu.copyIn(PEER, 4)
      await edu.copyOut(IOVA, 4)
      expect(Buffer.from(memory).readUInt32LE()).toBe(0x010000ed)

      memory.set([1, 2, 3, 4])
      await edu.copyIn(IOVA, 4)
      await edu.copyOut(PEER + LIVENESS, 4)
      expect(await liveness()).toBe(~0x04030201 >>> 0)
    })

    test('lists the mapping with its source', async () => {
      expect(await mappings()).toMatchObject([
        {
          ...{ iova: String(PEER), length: String(PAGE), offset: '0', vaddrValid: true },
          ...{ region: { device: peer, region: 0 }, source: 'region' },
        },
      ])
    })

    test('removes the mapping before the device stops decoding, and reports it', async () => {
      const off = { name: peer, ...COMMAND, data: MEMORY_OFF }

      expect(await client.device.writeRegion(off)).toEqual({ mappingsRemoved: 1 })

      expect(await mappings()).toEqual([])
      const event = await until(() =>
        events.find(({ kind }) => kind === 'EVENT_KIND_REGIONS_UNMAPPED'),
      )
      expect(event).toMatchObject({ device: peer, spaceId: SPACE })
      await edu.copyIn(IOVA, 4)
      await edu.copyOut(PEER + LIVENESS, 4)
    })

    test('is refused until the device decodes again: DECODING_OFF', async () => {
      await expect(map()).rejects.toMatchObject({ reason: 'DECODING_OFF' })

      await new Edu(client, peer).enable()
      await map()
      await edu.copyIn(IOVA, 4)
      await edu.copyOut(PEER + LIVENESS, 4)
      expect(await liveness()).toBe(~0x04030201 >>> 0)
    })

    test('removes the mapping before the device is closed', async () => {
      expect(await client.device.closeDevice({ name: peer })).toEqual({ mappingsRemoved: 1 })
      expect(await mappings()).toEqual([])
    })
  })
})
