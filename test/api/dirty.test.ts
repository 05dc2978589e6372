/** DirtyService over real sockets: what its messages say, and what a client that leaves gets later. */

import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { ENGINE } from '../../src/backends/sim/devices/profiles/engine.ts'
import { defaultMachine } from '../../src/backends/sim/spec/default-machine.ts'
import type { Messages } from '../../src/client/calls.ts'
import type { VfiodClient } from '../../src/client/client.ts'
import type { ReadAndUnmapResponse__Output as Message } from '../../src/proto/vfiod/v1/ReadAndUnmapResponse.ts'
import { vendorMachine } from '../contract/vendor-machine.ts'
import { refusal, startServer, type TestServer, until } from './server.ts'

const PAGE = 4096
const IOVA = 0x10_0000
const NAME = '0000:10:01.0'
const spaceId = 'space'

/** Room for more memory than a bitmap of one message can tell of. */
const WIDE = { ...defaultMachine.iommu, aperture: { start: 0n, last: (1n << 48n) - 1n } }

let server: TestServer
let client: VfiodClient

beforeEach(async () => {
  const machine = vendorMachine([['mlx5-like']])
  server = await startServer({}, { machine: { ...machine, iommu: WIDE } })
  client = server.client()
  await client.addressSpace.createSpace({ spaceId })
  await client.addressSpace.addGroup({ spaceId, groupId: 100 })
  await client.device.openDevice({ spaceId, name: NAME })
  await client.device.writeRegion({ name: NAME, region: 7, offset: '4', data: Buffer.from([6, 0]) })
})
afterEach(() => server.stop())

const map = async (memoryId: string, iova: number, length: bigint) => {
  await client.memory.allocateMemory({ memoryId, length: `${length}` })
  const item = { iova: `${iova}`, length: `${length}`, memoryId, offset: '0' } as const
  const access = 'ACCESS_READ_WRITE' as const
  const { results } = await client.addressSpace.map({ spaceId, items: [{ ...item, access }] })
  expect(results).toMatchObject([{ code: 0, message: '' }])
}

/** Let the device write these pages behind IOVA once, and wait until it has. */
const write = async (...pages: readonly number[]) => {
  const put = async (register: number, value: number) => {
    const data = Buffer.alloc(8)
    data.writeBigUInt64LE(BigInt(value))
    await client.device.writeRegion({ name: NAME, region: 0, offset: `${register}`, data })
  }
  const done = async () => {
    const at = { name: NAME, region: 0, offset: `${ENGINE.written}`, length: 8 }
    return (await client.device.readRegion(at)).data.readBigUInt64LE()
  }
  for (const page of pages) {
    const before = await done()
    await put(ENGINE.start, IOVA + page * PAGE)
    await put(ENGINE.last, IOVA + page * PAGE)
    await put(ENGINE.pagesPerStep, 1)
    await put(ENGINE.control, 1)
    while ((await done()) === before) await new Promise((resolve) => setTimeout(resolve, 1))
    await put(ENGINE.control, 0)
  }
}

const all = async <Each>(messages: Messages<Each>): Promise<Each[]> => {
  const seen: Each[] = []
  for await (const message of messages) seen.push(message)
  return seen
}

describe('a stream of dirty pages', () => {
  beforeEach(() => map('ram', IOVA, 64n * 4096n))

  test('is of bitmaps, the lowest bit first, and ends with how many pages and how precise', async () => {
    await client.dirty.startTracking({ spaceId, devices: [NAME] })
    await write(1, 8, 63)

    const messages = await all(client.dirty.readDirty({ spaceId }))

    expect(messages).toHaveLength(2)
    expect(messages[0]?.bitmaps).toEqual([
      { iova: `${IOVA}`, pageSize: '4096', bitmap: Buffer.from([2, 1, 0, 0, 0, 0, 0, 0x80]) },
    ])
    expect(messages[1]).toMatchObject({
      bitmaps: [],
      end: { pages: '3', precision: 'DIRTY_PRECISION_TRACKED_WRITES' },
    })
  })

  test('is of ranges where that is asked for', async () => {
    await client.dirty.startTracking({ spaceId, iommu: true })

    const messages = await all(client.dirty.readDirty({ spaceId, asRanges: true }))

    expect(messages.map(({ ranges, end }) => end ?? ranges)).toEqual([
      [{ iova: `${IOVA}`, length: `${64 * PAGE}` }],
      { pages: '64', precision: 'DIRTY_PRECISION_PINNED_PAGES' },
    ])
  })

  test('of what was unmapped ends with a result for each item', async () => {
    await client.dirty.startTracking({ spaceId, devices: [NAME] })
    await write(5)
    const item = { iova: `${IOVA}`, length: `${64 * PAGE}` }
    const half = { ...item, length: `${32 * PAGE}` }

    const messages: Message[] = await all(
      client.dirty.readAndUnmap({ spaceId, items: [half, item], asRanges: true }),
    )

    expect(messages[0]?.ranges).toEqual([{ iova: `${IOVA + 5 * PAGE}`, length: `${PAGE}` }])
    expect(messages[1]).toMatchObject({
      end: { pages: '1' },
      results: [{ reason: 'MAPPING_STRADDLES' }, { code: 0 }],
      unmappedBytes: item.length,
    })
  })

  test('that is empty has an end all the same', async () => {
    await client.dirty.startTracking({ spaceId, devices: [NAME] })

    expect(await all(client.dirty.readDirty({ spaceId }))).toMatchObject([{ end: { pages: '0' } }])
  })
})

test('tracking tells who tracks what, and how far it was read', async () => {
  await map('ram', IOVA, 64n * 4096n)
  expect((await client.dirty.getTracking({ spaceId })).tracking).toBeNull()

  const { tracking } = await client.dirty.startTracking({ spaceId, iommu: true, devices: [NAME] })

  expect(tracking).toMatchObject({
    spaceId,
    sources: [
      { name: '', precision: 'DIRTY_PRECISION_PINNED_PAGES', pageSize: '4096', ranges: [] },
      {
        name: NAME,
        precision: 'DIRTY_PRECISION_TRACKED_WRITES',
        pageSize: '4096',
        ranges: [{ start: `${IOVA}`, last: `${IOVA + 64 * PAGE - 1}` }],
      },
    ],
    untrackedDevices: [],
    reads: '0',
  })
  await all(client.dirty.readDirty({ spaceId, peek: true }))
  expect((await client.dirty.getTracking({ spaceId })).tracking).toMatchObject({
    reads: '1',
    lastReadPages: '64',
    keptPages: '64',
  })
  await client.dirty.stopTracking({ spaceId })
  expect((await client.dirty.getTracking({ spaceId })).tracking).toBeNull()
})

test('a client that leaves a stream is told everything again when it asks to be', async () => {
  await map('ram', IOVA, 64n * 4096n)
  await client.dirty.startTracking({ spaceId, devices: [NAME] })
  await write(3)
  for await (const _ of client.dirty.readDirty({ spaceId })) break
  await until(() => server.lines.some(({ fields }) => /ReadDirty/.test(`${fields.method}`)))

  const messages = await all(client.dirty.readDirty({ spaceId, again: true, asRanges: true }))

  expect(messages[0]?.ranges).toEqual([{ iova: `${IOVA + 3 * PAGE}`, length: `${PAGE}` }])
})

test('a client that stops reading holds the stream back, and its cancel clears nothing', async () => {
  // 32 MiB of bitmaps: more than flow control lets through.
  await map('large', 2 ** 40, 1n << 40n)
  const { tracking } = await client.dirty.startTracking({ spaceId, iommu: true })
  expect(tracking?.reads).toBe('0')
  const stream = client.dirty.readDirty({ spaceId })
  const messages = stream[Symbol.asyncIterator]()
  await messages.next()
  expect(await refusal(all(client.dirty.readDirty({ spaceId })))).toMatchObject({
    reason: 'SESSION_BUSY',
  })

  stream.cancel()

  await until(() => server.lines.some(({ fields }) => fields.reason === 'CANCELLED'))
  expect((await client.dirty.getTracking({ spaceId })).tracking).toMatchObject({
    reads: '0',
    keptPages: `${2 ** 28}`,
  })
  const pages = (await all(client.dirty.readDirty({ spaceId }))).at(-1)?.end?.pages
  expect(pages).toBe(`${2 ** 28}`)
})

test('what changes tracking is audited, what looks and what reads is not', async () => {
  await map('ram', IOVA, 64n * 4096n)
  await client.dirty.startTracking({ spaceId })
  await client.dirty.getTracking({ spaceId })
  await all(client.dirty.readDirty({ spaceId }))
  await client.dirty.stopTracking({ spaceId })

  const audited = server.lines.filter(
    ({ fields }) => fields.audit === true && /DirtyService/.test(`${fields.method}`),
  )

  expect(audited.map(({ fields }) => [fields.method, fields.object])).toMatchObject([
    ['vfiod.v1.DirtyService/StartTracking', { spaceId }],
    ['vfiod.v1.DirtyService/StopTracking', { spaceId }],
  ])
})
