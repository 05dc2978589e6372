/** Dirty tracking through gRPC, against what devices really wrote into the client's memory. */

import { closeSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { ENGINE } from '../../src/backends/sim/devices/profiles/engine.ts'
import type { VfiodClient } from '../../src/client/client.ts'
import { registerMemory } from '../../src/client/verbs.ts'
import { freeSegment, mapFd, memfdCreate, type Segment } from '../../src/os/memory.ts'
import type { DirtyRange } from '../../src/proto/vfiod/v1/DirtyRange.ts'
import type { ReadDirtyRequest } from '../../src/proto/vfiod/v1/ReadDirtyRequest.ts'
import { Edu } from './edu.ts'
import { Owner } from './owner.ts'
import {
  backend,
  type Daemon,
  eduDevices,
  mttyDevices,
  openIn,
  removeMttyDevices,
  startDaemon,
  until,
} from './world.ts'

const PAGE = 4096
const IOVA = 0x10_0000
const PAGES = 512
const spaceId = 'tracked'

let daemon: Daemon
let client: VfiodClient
let memory: Segment
let fd: number
const owners: Owner[] = []

/** The pages behind IOVA that ranges name. */
const pagesOf = (ranges: readonly DirtyRange[]): number[] =>
  ranges.flatMap(({ iova, length }) => {
    const first = (Number(iova) - IOVA) / PAGE
    return Array.from({ length: Number(length) / PAGE }, (_, n) => first + n)
  })

const read = async (request: ReadDirtyRequest = {}): Promise<number[]> => {
  const pages: number[] = []
  for await (const { ranges } of client.dirty.readDirty({ spaceId, asRanges: true, ...request }))
    pages.push(...pagesOf(ranges))
  return pages
}

/** So many pages from a page on, counted from IOVA. */
const from = (first: number, count: number) => Array.from({ length: count }, (_, n) => first + n)
const piece = (first: number, count: number) => ({
  iova: String(IOVA + first * PAGE),
  length: String(count * PAGE),
})

const map = async (first: number, count: number, access: 'READ' | 'READ_WRITE' = 'READ_WRITE') => {
  const offset = String(first * PAGE)
  const item = {
    ...piece(first, count),
    memoryId: 'ram',
    offset,
    access: `ACCESS_${access}`,
  } as const
  const { results } = await client.addressSpace.map({ spaceId, items: [item] })
  expect(results).toMatchObject([{ code: 0 }])
}

/** Start a daemon, and give it memory of this process. */
const begin = async (machine?: string) => {
  daemon = await startDaemon(machine)
  client = daemon.client()
  fd = memfdCreate('client-memory', BigInt(PAGES * PAGE))
  await registerMemory(client, { memoryId: 'ram', fd })
  const mine = await mapFd(fd, { offset: 0n, length: BigInt(PAGES * PAGE), access: 'read-write' })
  if (typeof mine === 'number') throw new Error(`mmap answered ${mine}`)
  memory = mine
}

const end = async () => {
  for (const { child } of owners.splice(0)) child.kill('SIGKILL')
  if (memory) freeSegment(memory)
  if (fd) closeSync(fd)
  expect(await daemon?.stop()).toBe(0)
}

/** Whether the address space is there, and this process's. */
const isMine = async (): Promise<boolean> => {
  const { spaces } = await client.addressSpace.listSpaces()
  return spaces.some(({ owner }) => owner?.process?.pid === process.pid)
}

const stopTracking = async () => {
  if (await isMine()) await client.dirty.stopTracking({ spaceId })
}

/** Another process takes over everything that this one owns. */
const handOver = async (): Promise<Owner> => {
  const { token } = await client.ownership.handOver({})
  const owner = new Owner(daemon.socket, token)
  owners.push(owner)
  expect((await owner.next()).result).toMatchObject({ spaces: 1 })
  return owner
}

describe('with an IOMMU', () => {
  let edu: Edu
  let name: string

  beforeAll(async () => {
    await begin()
    const [first] = await eduDevices(client)
    if (first === undefined) throw new Error('the machine has no edu device')
    name = first
    await client.inventory.bindDevices({ devices: [name] })
    await openIn(client, spaceId, name)
    edu = new Edu(client, name)
    await edu.enable()
    // Neither starts at a word of a bitmap that starts with the other.
    await map(0, 12)
    await map(100, 30)
    await map(20, 4, 'READ')
  })
  afterEach(stopTracking)
  afterAll(async () => {
    await until(
      async () => (await client.addressSpace.listSpaces()).spaces.length === 0 || undefined,
    )
    await client.inventory.unbindDevices({ devices: [name] })
    await end()
  })

  const all = [...from(0, 12), ...from(100, 30)]

  test('every page that the device may write reads as written, each time', async () => {
    const { tracking } = await client.dirty.startTracking({ spaceId })
    expect(tracking?.sources).toMatchObject([
      { name: '', precision: 'DIRTY_PRECISION_PINNED_PAGES', pageSize: '4096' },
    ])
    await edu.copyIn(BigInt(IOVA), 2048)
    await edu.copyOut(BigInt(IOVA + 5 * PAGE), 2048)

    for (const _ of [1, 2, 3]) expect(await read()).toEqual(all)
    expect(await read({ ...piece(4, 100) })).toEqual([...from(4, 8), ...from(100, 4)])
  })

  test('a device without a log cannot be named: UNSUPPORTED', async () => {
    await expect(client.dirty.startTracking({ spaceId, devices: [name] })).rejects.toMatchObject({
      reason: 'UNSUPPORTED',
      details: { errno: 'ENOTTY' },
    })
  })

  test('nothing is reported before tracking starts: TRACKING_STOPPED', async () => {
    await expect(read()).rejects.toMatchObject({ reason: 'TRACKING_STOPPED' })
  })

  test('mappings that are made while it tracks are reported as well', async () => {
    await client.dirty.startTracking({ spaceId, iommu: true })
    await map(200, 3)

    expect(await read()).toEqual([...all, ...from(200, 3)])
    await client.addressSpace.unmap({ spaceId, items: [piece(200, 3)] })
    expect(await read()).toEqual(all)
  })

  test('reading and unmapping is one step, and unmaps the pages it reports', async () => {
    await client.dirty.startTracking({ spaceId, iommu: true })
    await map(200, 3)
    await map(300, 70)
    await edu.copyOut(BigInt(IOVA + 201 * PAGE), 2048)

    const request = { spaceId, items: [piece(200, 100), piece(300, 70)], asRanges: true }
    const messages = []
    for await (const message of client.dirty.readAndUnmap(request)) messages.push(message)

    expect(messages.flatMap(({ ranges }) => pagesOf(ranges))).toEqual([
      ...from(200, 3),
      ...from(300, 70),
    ])
    expect(messages.at(-1)).toMatchObject({
      results: [{ code: 0 }, { code: 0 }],
      unmappedBytes: String(73 * PAGE),
    })
    const { mappings } = await client.addressSpace.listMappings({ spaceId })
    expect(mappings.map(({ iova }) => Number(iova))).toEqual(
      [0, 20, 100].map((n) => IOVA + n * PAGE),
    )
    expect(await read()).toEqual(all)
  })

  test('tracking goes along to another process, and ends with its space', async () => {
    await client.dirty.startTracking({ spaceId })
    await read()
    const owner = await handOver()

    await expect(read()).rejects.toMatchObject({ reason: 'NOT_MM_OWNER' })
    const { result } = await owner.tell({ command: 'tracking', spaceId })
    expect(result.tracking).toMatchObject({ reads: '1', lastReadPages: '42' })
    const dirty = await owner.tell({ command: 'dirty', spaceId })
    expect(pagesOf(dirty.result.ranges)).toEqual(all)
    await owner.tell({ command: 'destroy', spaceId })
    expect(await owner.tell({ command: 'dirty', spaceId })).toMatchObject({
      reason: 'NO_SUCH_SPACE',
    })
  })
})

describe('without an IOMMU', () => {
  let name: string

  beforeAll(async () => {
    await begin()
    ;[name] = await mttyDevices(client)
    await openIn(client, spaceId, name)
    await map(0, 12)
  })
  afterEach(stopTracking)
  afterAll(async () => {
    await end()
    removeMttyDevices()
  })

  test('the container tells what drivers wrote, and mtty writes nothing', async () => {
    const { tracking } = await client.dirty.startTracking({ spaceId, iommu: true })

    expect(tracking?.sources).toMatchObject([{ precision: 'DIRTY_PRECISION_TRACKED_WRITES' }])
    expect(await read()).toEqual([])
  })

  test('the log of a device is started, read and stopped, as often as one likes', async () => {
    for (const _ of [1, 2]) {
      const { tracking } = await client.dirty.startTracking({ spaceId, devices: [name] })
      const { start, last } = { start: String(IOVA), last: String(IOVA + 12 * PAGE - 1) }
      expect(tracking?.sources).toMatchObject([{ name, ranges: [{ start, last }] }])
      expect(await read()).toEqual([])
      // mtty keeps no log, so this is what nobody watches.
      await map(40, 2)
      expect(await read()).toEqual([40, 41])
      await client.addressSpace.unmap({ spaceId, items: [piece(40, 2)] })
      await client.dirty.stopTracking({ spaceId })
    }
  })

  test('every page is reported when a group with an IOMMU comes in', async () => {
    const [edu] = await eduDevices(client)
    if (edu === undefined) throw new Error('the machine has no edu device')
    await client.inventory.bindDevices({ devices: [edu] })
    await client.dirty.startTracking({ spaceId, iommu: true })
    const { device } = await client.inventory.getDevice({ name: edu })
    const groupId = device?.groupId ?? 0
    await client.addressSpace.addGroup({ spaceId, groupId })

    const { tracking } = await client.dirty.getTracking({ spaceId })
    expect(tracking?.sources).toMatchObject([{ precision: 'DIRTY_PRECISION_PINNED_PAGES' }])
    expect(await read()).toEqual(from(0, 12))

    // What it wrote last is told of once more after it left, and then nothing is.
    await client.addressSpace.removeGroup({ spaceId, groupId })
    expect(await read()).toEqual(from(0, 12))
    expect(await read()).toEqual([])
    await client.inventory.unbindDevices({ devices: [edu] })
  })
})

/** A device that logs its DMA, and writes two pages of its range in each step of time. */
const MACHINE = `
[[functions]]
address = "0000:00:09.0"
kind = "mlx5-like"
group = 9
bound_driver = "vfio-pci"
workload = { range = { start = ${IOVA}, last = ${IOVA + PAGES * PAGE - 1} }, pages_per_step = 2, pattern = "random" }
`

describe.skipIf(backend !== 'sim')('a device that logs its own DMA', () => {
  const name = '0000:00:09.0'

  beforeAll(() => begin(MACHINE))
  afterAll(end)
  afterEach(async () => {
    await client.simulator.clearFaults()
    if (await isMine()) await client.addressSpace.destroySpace({ spaceId })
  })

  /** The pages of this process's memory that are not zero: where the device wrote. */
  const written = (): number[] =>
    from(0, PAGES).filter((page) => memory.view(page * PAGE, 8).some((byte) => byte !== 0))

  const writes = async (): Promise<bigint> => {
    const at = { name, region: 0, offset: String(ENGINE.written), length: 8 }
    return (await client.device.readRegion(at)).data.readBigUInt64LE()
  }
  const run = async (isRunning: boolean) => {
    const data = Buffer.alloc(8)
    data.writeBigUInt64LE(isRunning ? 1n : 0n)
    const offset = String(ENGINE.control)
    await client.device.writeRegion({ name, region: 0, offset, data })
  }
  /** Let it write so often, and on. */
  const some = async (count: bigint) => {
    const enough = (await writes()) + count
    await until(async () => (await writes()) >= enough || undefined)
  }
  /** A space with all of the memory, tracked; the device does DMA from here on. */
  const start = async () => {
    memory.bytes.fill(0)
    await openIn(client, spaceId, name)
    await map(0, PAGES)
    await client.dirty.startTracking({ spaceId })
    const data = Buffer.from([6, 0])
    await client.device.writeRegion({ name, region: 7, offset: '4', data })
  }

  test('has exactly the pages reported that it wrote, while it writes', async () => {
    await start()
    const told = new Set<number>()
    for (const _ of [1, 2, 3, 4]) {
      await some(20n)
      for (const page of await read()) {
        expect(memory.view(page * PAGE, 8).some((byte) => byte !== 0)).toBe(true)
        told.add(page)
      }
    }
    await run(false)
    for (const page of await read()) told.add(page)

    expect([...told].sort((a, b) => a - b)).toEqual(written())
    expect(told.size).toBeGreaterThan(50)
  })

  test('has exactly those reported that it wrote since the last read', async () => {
    await start()
    await some(50n)
    await run(false)
    await read()
    memory.bytes.fill(0)
    await run(true)
    await some(20n)
    await run(false)

    const pages = written()
    expect(pages.length).toBeGreaterThan(10)
    expect(pages.length).toBeLessThan(PAGES)
    expect(await read({ peek: true })).toEqual(pages)
    expect(await read()).toEqual(pages)
    expect(await read()).toEqual([])
  })

  test('loses nothing to a read that fails, wherever it fails', async () => {
    await start()
    await some(50n)
    await run(false)
    const fault = {
      fault: 'no report',
      request: 'VFIO_DEVICE_FEATURE',
      device: name,
      kind: 'FAULT_KIND_ERRNO',
      error: 'ENOMEM',
    } as const
    await client.simulator.injectFault({ fault })

    await expect(read()).rejects.toMatchObject({ details: { errno: 'ENOMEM' } })

    await client.simulator.clearFaults()
    expect(await read()).toEqual(written())
  })

  test('goes on across a handover to another process: all of it is read there', async () => {
    await start()
    await some(30n)
    // Read, but not to the end.
    for await (const { ranges } of client.dirty.readDirty({
      spaceId,
      asRanges: true,
      peek: true,
    })) {
      expect(ranges.length).toBeGreaterThan(0)
      break
    }
    const before = written()
    const owner = await handOver()

    await until(() => written().length > before.length + 10 || undefined)
    const during = pagesOf((await owner.tell({ command: 'dirty', spaceId })).result.ranges)
    expect(before.filter((page) => !during.includes(page))).toEqual([])
    // Its end stops the device, and what it wrote until then is in the memory.
    await owner.tell({ command: 'close', name })
    const rest = pagesOf((await owner.tell({ command: 'dirty', spaceId })).result.ranges)

    const told = new Set([...during, ...rest])
    expect([...told].sort((a, b) => a - b)).toEqual(written())
    await owner.tell({ command: 'destroy', spaceId })
  })
})
