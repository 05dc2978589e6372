import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import {
  VFIO_IOMMU_DIRTY_PAGES,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
  vfio_iommu_type1_dirty_bitmap,
} from '../../src/abi/container.ts'
import {
  vfio_device_feature_dma_logging_control,
  vfio_device_feature_dma_logging_report,
} from '../../src/abi/dma-logging.ts'
import {
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
  VFIO_DEVICE_FEATURE_MASK,
  vfio_device_feature,
} from '../../src/abi/feature.ts'
import { ENGINE } from '../../src/backends/sim/devices/profiles/engine.ts'
import { ERRNO } from '../../src/base/errno.ts'
import type { Access } from '../../src/base/units.ts'
import type { DirtyEvent, DirtyReadRequest } from '../../src/domain/dirty/dirty.ts'
import type { TrackingRequest } from '../../src/domain/dirty/tracking.ts'
import type { Client } from '../../src/domain/identity/clients.ts'
import type { Piece } from '../../src/domain/space/ranges.ts'
import type { IoctlArg, Kernel } from '../../src/kernel/port.ts'
import { hostDevice } from '../../src/kernel/sysfs.ts'
import { bytesAt } from '../../src/os/memory.ts'
import { PINNER, PinningDriver, pinningMachine } from '../contract/pinning-machine.ts'
import { vendorMachine } from '../contract/vendor-machine.ts'
import { MTTY, readySpace, type World, world } from './machine.ts'
import { alice, bob, person } from './people.ts'

const PAGE = 0x1000n
const IOVA = 0x10_0000n
const RAM = 256n * PAGE
const CONFIG = 7

const [first, second] = ['0000:10:01.0', '0000:10:02.0'] as const
const machine = vendorMachine([['mlx5-like'], ['mlx5-like']])

let at: World
/** Called in the place of an ioctl of the domain; undefined lets it through. */
let instead: (fd: number, request: number, arg: IoctlArg) => Promise<number | undefined>

const over = (kernel: Kernel): Kernel =>
  new Proxy(kernel, {
    get: (target, name) => {
      const value = Reflect.get(target, name, target)
      if (name !== 'ioctl') return value?.bind(target)
      return async (fd: number, request: number, arg: IoctlArg) =>
        (await instead(fd, request, arg)) ?? target.ioctl(fd, request, arg)
    },
  })

/** A space with memory at IOVA, and two devices that log. */
beforeEach(async () => {
  instead = async () => undefined
  at = world(machine, { time: 'poked', over })
  await at.domain.memories.allocate(alice, { id: 'ram', length: RAM, hugePage: undefined })
  await at.domain.spaces.create(alice, 'space')
  for (const [n, name] of [first, second].entries()) {
    await at.domain.spaces.addGroup(alice, 'space', 100 + n)
    await at.domain.devices.open(alice, 'space', name)
    const data = Buffer.from([6, 0])
    await at.domain.devices.write(alice, { name, region: CONFIG, offset: 4n, data })
  }
})

/** Other tests of this process would have to live with the memory. */
afterEach(() => at.domain.releaseAll('the test is over'))

/** Map pages of the memory, from page `offset` on, `page` pages behind IOVA. */
const map = async (page: number, count: number, access: Access = 'read-write', offset = page) => {
  const item = {
    iova: IOVA + BigInt(page) * PAGE,
    length: BigInt(count) * PAGE,
    memoryId: 'ram',
    offset: BigInt(offset) * PAGE,
    access,
  }
  await at.domain.spaces.map(alice, 'space', { items: [item], allOrNothing: true })
}

const piece = (page: number, count: number): Piece => ({
  iova: IOVA + BigInt(page) * PAGE,
  length: BigInt(count) * PAGE,
})

const start = (asked: Partial<TrackingRequest> = {}, client: Client = alice) =>
  at.domain.dirty.start(client, 'space', {
    iommu: false,
    devices: [],
    ranges: [],
    pageSize: 0n,
    ...asked,
  })

/** Let a device write to these pages behind IOVA, one after another. */
const write = async (name: string, ...pages: readonly number[]) => {
  const put = async (register: number, value: bigint) => {
    const data = Buffer.alloc(8)
    data.writeBigUInt64LE(value)
    await at.domain.devices.write(alice, { name, region: 0, offset: BigInt(register), data })
  }
  for (const page of pages) {
    const { iova } = piece(page, 1)
    await put(ENGINE.start, iova)
    await put(ENGINE.last, iova + PAGE - 1n)
    await put(ENGINE.pagesPerStep, 1n)
    await put(ENGINE.control, 1n)
    at.sim.step()
    await put(ENGINE.control, 0n)
  }
}

/** The pages of the memory that are not zero: where devices wrote. */
const written = (): number[] => {
  const { window } = at.domain.memories.get(alice, 'ram')
  const bytes = bytesAt(window.at(0n), Number(RAM)) ?? new Uint8Array()
  return Array.from({ length: Number(RAM / PAGE) }, (_, page) => page).filter((page) =>
    bytes.subarray(page * 4096, (page + 1) * 4096).some((byte) => byte !== 0),
  )
}

/** The pages behind IOVA that events tell of. */
const pagesOf = (events: readonly DirtyEvent[]): number[] =>
  events.flatMap((event) => {
    if (event.kind === 'ranges')
      return event.ranges.flatMap(({ start, last }) =>
        Array.from(
          { length: Number((last + 1n - start) / PAGE) },
          (_, n) => Number((start - IOVA) / PAGE) + n,
        ),
      )
    if (event.kind === 'end') return []
    return event.bitmaps.flatMap(({ iova, bytes }) =>
      Array.from({ length: bytes.length * 8 }, (_, bit) => bit)
        .filter((bit) => ((bytes[bit >> 3] ?? 0) >> (bit & 7)) & 1)
        .map((bit) => Number((iova - IOVA) / PAGE) + bit),
    )
  })

const signal = new AbortController().signal

const events = (request: Partial<DirtyReadRequest> = {}, client: Client = alice) =>
  at.domain.dirty.read(
    client,
    {
      spaceId: 'space',
      piece: { iova: 0n, length: 0n },
      isPeek: false,
      again: false,
      form: 'bitmaps',
      ...request,
    },
    signal,
  )

const all = async (stream: AsyncIterable<DirtyEvent>): Promise<DirtyEvent[]> => {
  const seen: DirtyEvent[] = []
  for await (const event of stream) seen.push(event)
  return seen
}

const read = async (request: Partial<DirtyReadRequest> = {}, client: Client = alice) =>
  pagesOf(await all(events(request, client)))

const unmap = (items: readonly Piece[] | 'all') =>
  all(at.domain.dirty.readAndUnmap(alice, { spaceId: 'space', items, form: 'ranges' }, signal))

/** Whether an ioctl is this feature. */
const isFeature = (request: number, arg: IoctlArg, feature: number): boolean =>
  request === VFIO_DEVICE_FEATURE.number &&
  arg instanceof Uint8Array &&
  (vfio_device_feature.decode(arg).flags & VFIO_DEVICE_FEATURE_MASK) === feature

/** The n-th call of a feature from now on answers with an errno, and is not made. */
const failFeature = (feature: number, nth: number, errno: number): void => {
  let seen = 0
  instead = async (_fd, request, arg) => {
    if (!isFeature(request, arg, feature)) return undefined
    seen += 1
    return seen === nth ? -errno : undefined
  }
}

const REPORT = VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT
const EVERY = (count: number) => Array.from({ length: count }, (_, page) => page)

describe('the logs of devices', () => {
  test('tell exactly the pages that were written since the last read, in both forms', async () => {
    await map(0, 64)
    await start({ devices: [first, second] })
    await write(first, 3, 4, 40)
    await write(second, 4, 63)

    expect(await read({ form: 'ranges' })).toEqual([3, 4, 40, 63])
    expect(written()).toEqual([3, 4, 40, 63])
    await write(first, 9)
    expect(await read()).toEqual([9])
    expect(await read()).toEqual([])
  })

  test('are chosen where every open device has one', async () => {
    await map(0, 4)

    const { sources, untracked } = await start()

    expect(sources.map(({ log, precision }) => [log?.device.name, precision])).toEqual([
      [first, 'tracked-writes'],
      [second, 'tracked-writes'],
    ])
    expect(untracked).toEqual([])
  })

  test('name the devices without tracking, whose pages are not reported', async () => {
    await map(0, 4)

    expect((await start({ devices: [second] })).untracked).toEqual([first])
    await write(first, 1)
    await write(second, 2)

    expect(await read()).toEqual([2])
  })

  test('watch the mappings there are at the start; a later mapping reads as written each time', async () => {
    await map(0, 8)
    const { sources } = await start({ devices: [first] })
    await map(16, 4)
    await map(24, 4, 'read')
    await write(first, 2, 17)

    expect(sources[0]?.log?.ranges).toEqual([{ start: IOVA, last: IOVA + 8n * PAGE - 1n }])
    expect(await read()).toEqual([2, 16, 17, 18, 19])
    expect(await read()).toEqual([16, 17, 18, 19])
  })

  test('watch ranges that were named, and later mappings inside them', async () => {
    await start({ devices: [first], ranges: [piece(8, 64)], pageSize: PAGE })
    await map(16, 8)
    await write(first, 17)

    expect(await read()).toEqual([17])
  })

  test('of everywhere are asked about the mapped ranges only', async () => {
    const everywhere = { iova: 0n, length: (1n << 64n) - PAGE }
    await start({ devices: [first], ranges: [everywhere] })
    await map(0, 1)
    await map(250, 2)
    const far = { iova: 1n << 38n, length: PAGE, memoryId: 'ram', offset: 8n * PAGE }
    const items = [{ ...far, access: 'write' as const }]
    await at.domain.spaces.map(alice, 'space', { items, allOrNothing: true })
    const asked: bigint[] = []
    instead = async (_fd, request, arg) => {
      if (isFeature(request, arg, REPORT) && arg instanceof Uint8Array)
        asked.push(
          vfio_device_feature_dma_logging_report.decode(arg, vfio_device_feature.size).iova,
        )
      return undefined
    }
    await write(first, 251, Number((far.iova - IOVA) / PAGE))

    expect(await read()).toEqual([251, Number((far.iova - IOVA) / PAGE)])
    expect(asked).toEqual([IOVA, far.iova])
  })

  test('of a device that uses coarser units are started again with ranges of whole ones', async () => {
    const unit = 16n * PAGE
    const starts: bigint[] = []
    instead = async (fd, request, arg) => {
      if (!isFeature(request, arg, VFIO_DEVICE_FEATURE_DMA_LOGGING_START)) return undefined
      if (!(arg instanceof Uint8Array) || arg.length === vfio_device_feature.size) return undefined
      const { size: head } = vfio_device_feature
      const control = vfio_device_feature_dma_logging_control
      starts.push(control.decode(arg, head).page_size)
      const answer = await at.sim.kernel.ioctl(fd, request, arg)
      control.write(arg, { page_size: unit }, head)
      return answer
    }
    await map(3, 2)
    await map(40, 2)

    const { sources } = await start({ devices: [first] })

    expect(starts).toEqual([PAGE, unit])
    expect(sources[0]).toMatchObject({ pageSize: unit })
    expect(sources[0]?.log?.ranges).toEqual([
      { start: IOVA, last: IOVA + unit - 1n },
      { start: IOVA + 2n * unit, last: IOVA + 3n * unit - 1n },
    ])
    await write(first, 40)
    expect(await read()).toEqual([40, 41])
  })

  test('in coarse units lose nothing to a read that asks for a part of a unit', async () => {
    await map(0, 32)
    await start({ devices: [first], pageSize: 16n * PAGE })
    await write(first, 1)

    expect(await read({ piece: piece(8, 2) })).toEqual([8, 9])
    expect(await read()).toEqual(EVERY(16).filter((page) => page !== 8 && page !== 9))
  })

  test('of a device that is named twice is one', async () => {
    await map(0, 4)

    expect((await start({ devices: [first, first] })).sources).toHaveLength(1)
  })

  test('start all or not at all, and are stopped again', async () => {
    await map(0, 4)
    failFeature(VFIO_DEVICE_FEATURE_DMA_LOGGING_START, 4, ERRNO.ENOMEM)

    await expect(start({ devices: [first, second], iommu: true })).rejects.toMatchObject({
      reason: 'LIMIT_REACHED',
      details: { op: 'VFIO_DEVICE_FEATURE_DMA_LOGGING_START', errno: 'ENOMEM' },
    })
    expect(at.domain.dirty.view(alice, 'space')).toBeUndefined()
    // The simulated device refuses a second start: EINVAL.
    await expect(start({ devices: [first, second] })).resolves.toBeDefined()
  })

  test('that are closed with their device leave what it wrote', async () => {
    await map(0, 8)
    await start({ devices: [first, second] })
    await write(first, 5)
    await at.domain.devices.close(alice, first)

    expect(at.domain.dirty.view(alice, 'space')).toMatchObject({ sources: [{}] })
    expect(await read()).toEqual([5])
    await at.domain.devices.open(alice, 'space', first)
    expect(at.domain.dirty.view(alice, 'space')?.untracked).toEqual([first])
  })

  test('that are closed while a read waits for them leave what they know to that read', async () => {
    await map(0, 8)
    await start({ devices: [first] })
    await write(first, 5)
    const device = at.domain.devices.get(alice, first)
    let goOn = () => {}
    const busy = device.lane.run(
      () =>
        new Promise<void>((resolve) => {
          goOn = resolve
        }),
    )
    const closed = at.domain.devices.close(alice, first)
    await expect.poll(() => device.isClosed).toBe(true)
    const pages = read()
    goOn()
    await Promise.all([busy, closed])

    expect(await pages).toEqual([5])
  })

  test('that do not answer when their device is closed leave all that they watched', async () => {
    await map(0, 8)
    await map(16, 2, 'read')
    await start({ devices: [first] })
    failFeature(REPORT, 1, ERRNO.EIO)
    await at.domain.devices.close(alice, first)

    expect(await read()).toEqual(EVERY(8))
  })
})

describe('a container', () => {
  test('with an IOMMU tells every page that devices may write, each time', async () => {
    await map(0, 12)
    await map(100, 5)
    await map(20, 4, 'read')
    const { sources } = await start({ iommu: true })

    expect(sources).toEqual([{ log: undefined, precision: 'pinned-pages', pageSize: PAGE }])
    const expected = [...EVERY(12), ...EVERY(5).map((n) => 100 + n)]
    for (const _ of [1, 2, 3]) expect(await read()).toEqual(expected)
    expect((await all(events())).at(-1)).toMatchObject({ pages: 17, precision: 'pinned-pages' })
  })

  test('without one tells exactly what drivers of mediated devices pin and write', async () => {
    at = world(pinningMachine, { time: 'poked', over })
    const { domain, sim } = at
    await domain.memories.allocate(alice, { id: 'ram', length: RAM, hugePage: undefined })
    await domain.spaces.create(alice, 'space')
    const { group = -1 } = (await hostDevice(sim.kernel, PINNER)) ?? {}
    await domain.spaces.addGroup(alice, 'space', group)
    const { fd } = await domain.devices.open(alice, 'space', PINNER)
    const driver = new PinningDriver(sim.kernel, fd)
    // None of the others begins on a word of a bitmap that begins with the first.
    for (const [page, count] of [
      [0, 12],
      [20, 30],
      [60, 100],
    ] as const)
      await map(page, count)
    const pinned = { iova: piece(22, 1).iova, pages: 2 }

    expect((await start()).sources).toMatchObject([{ precision: 'tracked-writes' }])
    await driver.write(piece(5, 1).iova, Buffer.from('bytes'))
    await driver.write(piece(159, 1).iova, Buffer.from('bytes'))
    await driver.pin(pinned, { isWritten: true })

    expect(await read()).toEqual([5, 22, 23, 159])
    // The driver may write to what it has pinned at any time.
    expect(await read()).toEqual([22, 23])
    await driver.unpin(pinned)
    expect(await read()).toEqual([22, 23])
    expect(await read()).toEqual([])
    await driver.write(piece(49, 1).iova, Buffer.from('bytes'))
    expect(pagesOf(await unmap([piece(20, 30)]))).toEqual([49])
    expect(await read()).toEqual([])
  })

  test('without one tells nothing of mtty, whose driver pins and writes nothing', async () => {
    const device = await hostDevice(at.sim.kernel, MTTY)
    await at.domain.destroySpace(alice, 'space')
    await at.domain.spaces.create(alice, 'space')
    await at.domain.spaces.addGroup(alice, 'space', device?.group ?? -1)
    await map(0, 8)

    const { sources } = await start({ iommu: true })

    expect(sources).toMatchObject([{ precision: 'tracked-writes' }])
    expect(await read()).toEqual([])
  })

  test('is chosen where a device has no log', async () => {
    at = world()
    await at.domain.memories.allocate(alice, { id: 'ram', length: RAM, hugePage: undefined })
    await readySpace(at, alice)
    await at.domain.devices.open(alice, 'space', '0000:00:04.0')
    await map(0, 2)

    expect((await start()).sources).toMatchObject([{ log: undefined }])
    await expect(start({ devices: ['0000:00:04.0'] })).rejects.toMatchObject({
      reason: 'TRACKING_STARTED',
    })
    await at.domain.dirty.stop(alice, 'space')
    await expect(start({ devices: ['0000:00:04.0'] })).rejects.toMatchObject({
      reason: 'UNSUPPORTED',
    })
  })

  test('and logs together tell what any of them tells', async () => {
    await map(0, 4)
    const { sources } = await start({ iommu: true, devices: [first] })
    await write(first, 1)

    expect(sources).toHaveLength(2)
    expect(await read()).toEqual(EVERY(4))
  })
})

describe('starting', () => {
  test('again with the same arguments answers with the tracking there is', async () => {
    await map(0, 4)
    const asked = { devices: [first], ranges: [piece(0, 4)], pageSize: PAGE }
    const { tracking } = await start(asked)
    await write(first, 1)

    expect((await start({ ...asked })).tracking).toBe(tracking)
    expect(await read()).toEqual([1])
  })

  test.each<[string, Partial<TrackingRequest>]>([
    ['another source', { iommu: true }],
    ['other devices', { devices: [first, second] }],
    ['other ranges', { devices: [first], ranges: [piece(0, 8)] }],
    ['another page size', { devices: [first], pageSize: 2n * PAGE }],
  ])('again with %s is refused: TRACKING_STARTED', async (_, asked) => {
    await map(0, 4)
    await start({ devices: [first] })

    await expect(start(asked)).rejects.toMatchObject({ reason: 'TRACKING_STARTED' })
  })

  test.each<[string, Partial<TrackingRequest>, string]>([
    ['a device that is not open here', { devices: ['0000:10:03.0'] }, 'DEVICE_NOT_OPEN'],
    ['a page size below a page', { devices: [first], pageSize: 512n }, 'BAD_RANGE'],
    ['a page size that is no power of two', { devices: [first], pageSize: 3n * PAGE }, 'BAD_RANGE'],
    [
      'a range that is not aligned to the page size',
      { devices: [first], pageSize: 2n * PAGE, ranges: [piece(1, 2)] },
      'BAD_RANGE',
    ],
    [
      'more ranges than a page of the kernel holds',
      { devices: [first], ranges: EVERY(257).map((n) => piece(2 * n, 1)) },
      'BATCH_TOO_LARGE',
    ],
  ])('with %s is refused', async (_, asked, reason) => {
    await map(0, 4)

    await expect(start(asked)).rejects.toMatchObject({ reason })
  })

  test('by devices, where nothing is mapped and no range named, is refused', async () => {
    await expect(start({ devices: [first] })).rejects.toMatchObject({
      reason: 'BAD_ARGUMENT',
      details: { field: 'ranges' },
    })
  })

  test('joins mapped ranges where there are more than a device takes', async () => {
    const items = EVERY(300).map((n) => ({
      ...piece(2 * n, 1),
      memoryId: 'ram',
      offset: 0n,
      access: 'read-write' as const,
    }))
    await at.domain.spaces.map(alice, 'space', { items, allOrNothing: true })

    const { sources } = await start({ devices: [first] })
    await write(first, 598)

    expect(sources[0]?.log?.ranges).toHaveLength(256)
    expect(await read()).toEqual([598])
  })

  test('needs a group: SPACE_NOT_READY', async () => {
    await at.domain.spaces.create(alice, 'empty')
    const asked = { iommu: true, devices: [], ranges: [], pageSize: 0n }

    await expect(at.domain.dirty.start(alice, 'empty', asked)).rejects.toMatchObject({
      reason: 'SPACE_NOT_READY',
    })
  })

  test('reading and stopping are for the owner: NOT_MM_OWNER', async () => {
    await map(0, 4)
    await start()

    await expect(start({}, bob)).rejects.toMatchObject({ reason: 'NOT_MM_OWNER' })
    await expect(read({}, bob)).rejects.toMatchObject({ reason: 'NOT_MM_OWNER' })
    await expect(at.domain.dirty.stop(bob, 'space')).rejects.toMatchObject({
      reason: 'NOT_MM_OWNER',
    })
    expect(() => at.domain.dirty.view(bob, 'space')).toThrow('it belongs to')
  })
})

describe('a read', () => {
  beforeEach(async () => {
    await map(0, 64)
    await map(65, 3)
    await start({ devices: [first, second] })
    await write(first, 3, 66)
  })

  test('that peeks clears nothing', async () => {
    expect(await read({ isPeek: true })).toEqual([3, 66])
    expect(at.domain.dirty.view(alice, 'space')?.tracking.pending.count).toBe(2)
    await write(first, 7)

    expect(await read()).toEqual([3, 7, 66])
    expect(await read()).toEqual([])
  })

  test('of a range, which may cut a mapping, leaves the rest for the next', async () => {
    expect(await read({ piece: piece(2, 2) })).toEqual([3])
    expect(await read({ piece: piece(2, 2) })).toEqual([])
    expect(await read()).toEqual([66])
  })

  test('that asks again is told what the last one was, besides what is new', async () => {
    expect(await read()).toEqual([3, 66])
    await write(first, 8)

    expect(await read({ again: true })).toEqual([3, 8, 66])
    expect(await read({ again: true })).toEqual([3, 8, 66])
    expect(await read()).toEqual([])
    expect(await read({ again: true })).toEqual([])
  })

  test('that is left before its end clears nothing', async () => {
    for await (const event of events()) {
      expect(pagesOf([event])).toEqual([3, 66])
      break
    }

    expect(await read()).toEqual([3, 66])
  })

  test('whose end was not taken clears nothing', async () => {
    for await (const event of events()) if (event.kind === 'end') break

    expect(await read()).toEqual([3, 66])
  })

  test('that is cancelled clears nothing', async () => {
    const abort = new AbortController()
    abort.abort()
    const request = {
      spaceId: 'space',
      piece: { iova: 0n, length: 0n },
      isPeek: false,
      again: false,
      form: 'ranges' as const,
    }

    expect(await all(at.domain.dirty.read(alice, request, abort.signal))).toEqual([])
    expect(await read()).toEqual([3, 66])
  })

  test('that fails at the second device loses nothing of the first', async () => {
    await write(second, 20)
    // Each of them is asked about two ranges.
    failFeature(REPORT, 4, ERRNO.EIO)

    await expect(read()).rejects.toMatchObject({
      reason: 'KERNEL_REFUSED',
      details: {
        op: 'VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT',
        causes: ['driver-failed', 'device-does-not-wake'],
      },
    })
    expect(await read()).toEqual([3, 20, 66])
  })

  test('is the only one: SESSION_BUSY', async () => {
    const stream = events()
    await stream.next()

    await expect(read()).rejects.toMatchObject({ reason: 'SESSION_BUSY' })
    await expect(unmap('all')).rejects.toMatchObject({ reason: 'SESSION_BUSY' })
    await stream.return()
    expect(await read()).toEqual([3, 66])
  })

  test('ends with an error when tracking is stopped meanwhile: TRACKING_STOPPED', async () => {
    const stream = events()
    await stream.next()
    await at.domain.dirty.stop(alice, 'space')

    await expect(stream.next()).rejects.toMatchObject({ reason: 'TRACKING_STOPPED' })
    await expect(read()).rejects.toMatchObject({ reason: 'TRACKING_STOPPED' })
  })

  test('takes one of the streams that the policy grants, and gives it back', async () => {
    const small = person('alice', 101, { quota: { streams: 0n } })
    await expect(read({}, small)).rejects.toMatchObject({ reason: 'LIMIT_REACHED' })

    const streams = () => at.domain.quotas.usage(alice).find(({ name }) => name === 'streams')
    const stream = events()
    await stream.next()
    expect(streams()).toMatchObject({ current: 1n })
    await stream.return()
    expect(streams()).toMatchObject({ current: 0n })
    expect(await read()).toEqual([3, 66])
  })

  test('counts when it reached its end', async () => {
    const { tracking } = at.domain.dirty.view(alice, 'space') ?? {}
    for await (const _ of events()) break
    expect(tracking).toMatchObject({ reads: 0, lastReadPages: 0 })

    await read()

    expect(tracking).toMatchObject({ reads: 1, lastReadPages: 2 })
  })
})

test('a GET_BITMAP that fails after it cleared something loses nothing of it', async () => {
  await map(0, 4)
  await map(64, 4)
  await map(65 + 64, 4)
  await start({ iommu: true })
  const answers = [-ERRNO.EFAULT]
  instead = async (fd, request, arg) => {
    const isGet =
      arg instanceof Uint8Array && (arg[4] ?? 0) === VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP
    if (request !== VFIO_IOMMU_DIRTY_PAGES.number || !isGet) return undefined
    const answer = answers.shift()
    if (answer === undefined) return undefined
    await at.sim.kernel.ioctl(fd, request, arg)
    return answer
  }

  await expect(read()).rejects.toMatchObject({ details: { errno: 'EFAULT' } })

  expect(at.domain.dirty.view(alice, 'space')?.tracking.pending.count).toBe(8)
  expect(await read()).toEqual([...EVERY(4), ...EVERY(4).map((n) => 64 + n), 129, 130, 131, 132])
})

test('messages are of a bounded size, for mappings of any', async () => {
  const length = 20n << 30n
  await at.domain.memories.allocate(alice, { id: 'large', length, hugePage: undefined })
  const item = { iova: 1n << 33n, length, memoryId: 'large', offset: 0n, access: 'write' as const }
  await at.domain.spaces.map(alice, 'space', { items: [item], allOrNothing: true })
  await start({ iommu: true })

  const seen = await all(events())

  const bytes = seen.map((event) =>
    event.kind === 'bitmaps' ? event.bitmaps.reduce((sum, each) => sum + each.bytes.length, 0) : 0,
  )
  expect(bytes).toEqual([1 << 18, 1 << 18, 1 << 17, 0])
  expect(seen.at(-1)).toMatchObject({ pages: Number(length / PAGE) })
})

describe('a mapping of 2^31 pages', () => {
  const length = 2n ** 43n
  const large = { iova: length, length, memoryId: 'large', offset: 0n, access: 'write' as const }
  const mapLarge = () => at.domain.spaces.map(alice, 'wide', { items: [large], allOrNothing: true })
  const startWide = () =>
    at.domain.dirty.start(alice, 'wide', { iommu: true, devices: [], ranges: [], pageSize: 0n })

  beforeEach(async () => {
    await at.domain.releaseAll('another machine is needed')
    const aperture = { start: 0n, last: 2n ** 48n - 1n }
    at = world({ ...machine, iommu: { ...machine.iommu, aperture } }, { time: 'poked', over })
    await at.domain.memories.allocate(alice, { id: 'large', length, hugePage: undefined })
    await at.domain.spaces.create(alice, 'wide')
    await at.domain.spaces.addGroup(alice, 'wide', 100)
  })

  test('is refused while the container tracks, which could not: BAD_RANGE', async () => {
    await startWide()

    await expect(mapLarge()).rejects.toMatchObject({ reason: 'BAD_RANGE' })
  })

  test('keeps the container from tracking: BAD_RANGE', async () => {
    await mapLarge()

    await expect(startWide()).rejects.toMatchObject({ reason: 'BAD_RANGE' })
  })
})

describe('unmapping', () => {
  beforeEach(() => map(0, 8))

  test('with a read reports the pages written until then, and unmaps', async () => {
    await map(8, 8)
    await start({ devices: [first] })
    await write(first, 2, 9)

    const seen = await unmap([piece(0, 8), piece(4, 8), piece(40, 1)])

    expect(pagesOf(seen)).toEqual([2])
    const end = seen.at(-1)
    expect(end?.kind === 'end' && end.result).toMatchObject({
      bytes: 8n * PAGE,
      errors: [undefined, { reason: 'MAPPING_STRADDLES' }, undefined],
    })
    expect(await read()).toEqual([9])
    expect(at.domain.spaces.owned(alice, 'space').mappings.size).toBe(1)
  })

  test('with a read asks the container in the same call', async () => {
    await map(9, 3)
    await start({ iommu: true })

    expect(pagesOf(await unmap('all'))).toEqual([...EVERY(8), 9, 10, 11])
    expect(at.sim.lockedPages).toBe(0n)
    expect(await read()).toEqual([])
  })

  test('with a read that breaks off leaves the pages for the next read', async () => {
    await start({ devices: [first] })
    await write(first, 2)
    const request = { spaceId: 'space', items: 'all', form: 'ranges' } as const
    for await (const _ of at.domain.dirty.readAndUnmap(alice, request, signal)) break

    expect(at.domain.spaces.owned(alice, 'space').mappings.size).toBe(0)
    expect(await read()).toEqual([2])
  })

  test('with a read takes for written what no log watches', async () => {
    await start({ devices: [first] })
    await map(16, 2)

    expect(pagesOf(await unmap([piece(8, 32)]))).toEqual([16, 17])
    expect(await read()).toEqual([])
  })

  test('with a read takes all for written where a log does not answer', async () => {
    await start({ devices: [first] })
    failFeature(REPORT, 1, ERRNO.EIO)

    expect(pagesOf(await unmap('all'))).toEqual(EVERY(8))
  })

  test('without a read forgets the kept pages', async () => {
    await start({ devices: [first] })
    await write(first, 2)
    await read({ isPeek: true })

    await at.domain.spaces.unmap(alice, 'space', 'all')

    expect(await read()).toEqual([])
  })

  test('with a read needs tracking and items', async () => {
    await expect(unmap('all')).rejects.toMatchObject({ reason: 'TRACKING_STOPPED' })
    await expect(unmap([])).rejects.toMatchObject({ reason: 'BAD_ARGUMENT' })
  })
})

describe('tracking', () => {
  beforeEach(() => map(0, 8))

  test('goes along with a handover, and nothing of it is lost', async () => {
    await start({ devices: [first] })
    await write(first, 1)
    const stream = events()
    expect(pagesOf([(await stream.next()).value as DirtyEvent])).toEqual([1])
    await write(first, 6)

    await at.domain.adopt(bob, at.domain.handOver(alice, 0).token)

    expect(await read({}, bob)).toEqual([1, 6])
    await expect(stream.next()).rejects.toMatchObject({ reason: 'NOT_MM_OWNER' })
    expect(await read({}, bob)).toEqual([])
  })

  test.each([
    ['a read', () => read()],
    ['a read that unmaps', () => unmap('all')],
  ])('that is handed over in the middle of %s loses nothing of what that found', async (_, act) => {
    await start({ devices: [first] })
    await write(first, 2)
    instead = async (fd, request, arg) => {
      if (!isFeature(request, arg, REPORT)) return undefined
      instead = async () => undefined
      const answer = await at.sim.kernel.ioctl(fd, request, arg)
      await at.domain.adopt(bob, at.domain.handOver(alice, 0).token)
      return answer
    }

    await expect(act()).rejects.toMatchObject({ reason: 'NOT_MM_OWNER' })

    expect(await read({}, bob)).toEqual([2])
  })

  test('that is handed over and back ends the read from before', async () => {
    await start({ devices: [first] })
    await write(first, 1)
    const stream = events()
    await stream.next()
    await at.domain.adopt(bob, at.domain.handOver(alice, 0).token)
    await at.domain.adopt(alice, at.domain.handOver(bob, 0).token)

    await expect(stream.next()).rejects.toMatchObject({ reason: 'CANCELLED' })
    expect(await read()).toEqual([1])
  })

  test('ends with the last group, as in the kernel', async () => {
    await start({ iommu: true })
    for (const name of [first, second]) await at.domain.devices.close(alice, name)
    await at.domain.spaces.removeGroup(alice, 'space', 100)
    expect(at.domain.dirty.view(alice, 'space')).toBeDefined()
    await at.domain.spaces.removeGroup(alice, 'space', 101)

    expect(at.domain.dirty.view(alice, 'space')).toBeUndefined()
  })

  test('ends with its space', async () => {
    await start()
    await at.domain.destroySpace(alice, 'space')

    await expect(read()).rejects.toMatchObject({ reason: 'NO_SUCH_SPACE' })
  })

  test('that is stopped, once or twice, can be started otherwise', async () => {
    await start({ devices: [first], iommu: true })
    await write(first, 1)
    const stops: number[] = []
    instead = async (fd, request, arg) => {
      const isDevice = [first, second].some((name) => at.domain.devices.get(alice, name).fd === fd)
      if (!isDevice && request === VFIO_IOMMU_DIRTY_PAGES.number)
        stops.push(vfio_iommu_type1_dirty_bitmap.decode(arg as Uint8Array).flags)
      return undefined
    }
    await at.domain.dirty.stop(alice, 'space')
    await at.domain.dirty.stop(alice, 'space')
    expect(stops).toEqual([VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP])

    await start({ devices: [first, second] })
    expect(await read()).toEqual([])
  })

  test('that one device does not stop is over all the same, and its close ends the rest', async () => {
    await start({ devices: [first, second], iommu: true })
    failFeature(VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, 1, ERRNO.EIO)

    await expect(at.domain.dirty.stop(alice, 'space')).rejects.toMatchObject({
      reason: 'KERNEL_REFUSED',
    })
    expect(at.domain.dirty.view(alice, 'space')).toBeUndefined()
    await expect(start({ devices: [first] })).rejects.toMatchObject({
      details: { errno: 'EINVAL' },
    })
    await at.domain.devices.close(alice, first)
    await at.domain.devices.open(alice, 'space', first)
    await expect(start({ devices: [first, second] })).resolves.toBeDefined()
  })
})

test.each(['demote', 'promote'] as const)('to %s takes an iommufd: UNSUPPORTED', async (verb) => {
  const refused = at.domain.dirty.resize(alice, 'space', piece(0, 1), verb)
  await expect(refused).rejects.toMatchObject({ reason: 'UNSUPPORTED' })
  await expect(refused).rejects.toThrow(`Cannot ${verb} the page table entries`)
  await expect(
    at.domain.dirty.resize(alice, 'space', { iova: 1n, length: 1n }, verb),
  ).rejects.toMatchObject({ reason: 'BAD_RANGE' })
})
