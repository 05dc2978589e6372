/** Migration regions: how they are found, their states, and their transactions. */

import { afterEach, expect, test } from 'vitest'
import { vfio_device_migration_info } from '../../src/abi/mig-v1.ts'
import { ENGINE } from '../../src/backends/sim/devices/profiles/engine.ts'
import { MIG_V1_WINDOW } from '../../src/backends/sim/devices/profiles/mig-v1-window.ts'
import { RECORD_SIZE } from '../../src/backends/sim/devices/profiles/records.ts'
import type { V1Order, VendorKind } from '../../src/backends/sim/spec/machine-spec.ts'
import type { MapRequest } from '../../src/kernel/port.ts'
import type { Segment } from '../../src/os/memory.ts'
import { type Said, said } from './answers.ts'
import { describeModelled } from './backends.ts'
import { getDeviceInfo, getRegionInfo, mapDma } from './calls.ts'
import { mapped, type VendorDriver, type VendorWorld, vendorWorld } from './vendor-machine.ts'

const describe = describeModelled('Linux 6.12 has no migration regions')

const REGION = 9n << 40n
const AT = vfio_device_migration_info.offsets
const worlds: VendorWorld[] = []

afterEach(async () => {
  for (const { machine } of worlds.splice(0)) await machine.cleanUp()
})

/** The region as a client uses it. */
class Region {
  readonly driver: VendorDriver

  constructor(driver: VendorDriver) {
    this.driver = driver
  }

  async read(at: number, length: number): Promise<Buffer | Said> {
    const bytes = Buffer.alloc(length)
    const { machine, device } = this.driver
    const answer = await machine.kernel.pread(device, bytes, REGION + BigInt(at))
    return answer < 0 ? said(answer) : bytes
  }

  async write(at: number, bytes: Buffer): Promise<Said> {
    const { machine, device } = this.driver
    return said(await machine.kernel.pwrite(device, bytes, REGION + BigInt(at)))
  }

  async state(): Promise<number> {
    return ((await this.read(AT.device_state, 4)) as Buffer).readUInt32LE()
  }

  set(state: number): Promise<Said> {
    const bytes = Buffer.alloc(4)
    bytes.writeUInt32LE(state)
    return this.write(AT.device_state, bytes)
  }

  async get(at: number): Promise<number> {
    return Number(((await this.read(at, 8)) as Buffer).readBigUInt64LE())
  }

  /** Every chunk until pending_bytes is 0. */
  async save(): Promise<Buffer[]> {
    const chunks: Buffer[] = []
    while ((await this.get(AT.pending_bytes)) > 0) {
      const offset = await this.get(AT.data_offset)
      const size = await this.get(AT.data_size)
      chunks.push((await this.read(offset, size)) as Buffer)
    }
    return chunks
  }

  async load(chunks: readonly Buffer[]): Promise<void> {
    for (const chunk of chunks) {
      expect(await this.write(await this.get(AT.data_offset), chunk)).toBe(chunk.length)
      await this.take(chunk.length)
    }
  }

  /** So many bytes are in the data section. */
  async take(length: number): Promise<void> {
    const size = Buffer.alloc(8)
    size.writeBigUInt64LE(BigInt(length))
    expect(await this.write(AT.data_size, size)).toBe(8)
  }

  async map(at: number, length: number): Promise<Segment | Said> {
    const { machine, device } = this.driver
    const request = { offset: REGION + BigInt(at), length: BigInt(length), access: 'read-write' }
    const segment = await machine.mmap(device, request as MapRequest)
    return typeof segment === 'number' ? said(segment) : segment
  }

  async mapData(): Promise<Segment> {
    const segment = await this.map(MIG_V1_WINDOW.data.offset, MIG_V1_WINDOW.data.size)
    if (typeof segment !== 'object') throw new Error(`Cannot map the data section: ${segment}`)
    return segment
  }
}

const regions = async (kind: VendorKind, v1Order: V1Order = 'rfc-v2') => {
  const state = { bytes: 0x2_0000n, initialBytes: 0n, dirtyPagesPerStep: 1 }
  const change = { v1Order, state }
  const world = await vendorWorld([
    [kind, change],
    [kind, change],
    ['hostile', {}],
  ])
  worlds.push(world)
  const [source, target, hostile] = world.drivers as [VendorDriver, VendorDriver, VendorDriver]
  return { world, source: new Region(source), target: new Region(target), hostile }
}

describe('a migration region', () => {
  test.each([
    ['v1-ndma', [2, 1, 6]],
    ['v1-queue', [2]],
  ] as const)(
    'of %s is the tenth; type, mappable part and NDMA are capabilities',
    async (kind, ids) => {
      const { source } = await regions(kind)
      const { machine, device } = source.driver
      expect((await getDeviceInfo(machine.kernel, device)).num_regions).toBe(10)

      const info = await getRegionInfo(machine.kernel, device, 9, 96)

      expect(info).toMatchObject({
        answer: 0,
        size: BigInt(MIG_V1_WINDOW.regionSize),
        offset: REGION,
      })
      const bytes = Buffer.alloc(96)
      bytes.writeUInt32LE(96)
      bytes.writeUInt32LE(9, 8)
      await machine.kernel.ioctl(device, 0x3b6c, bytes)
      const found: number[] = []
      for (let at = bytes.readUInt32LE(12); at !== 0; at = bytes.readUInt32LE(at + 4))
        found.push(bytes.readUInt16LE(at))
      expect(found).toEqual(ids)
      expect([bytes.readUInt32LE(40), bytes.readUInt32LE(44)]).toEqual([3, 1])
    },
  )

  test('of v1-ndma is saved and loaded through mappings of its data section', async () => {
    const { source, target } = await regions('v1-ndma')
    const [from, to] = [await source.mapData(), await target.mapData()]
    await source.driver.put(ENGINE.mailbox, 0x77n)
    await source.set(2)
    await target.set(4)
    while ((await source.get(AT.pending_bytes)) > 0) {
      const chunk = from.view(
        (await source.get(AT.data_offset)) - MIG_V1_WINDOW.data.offset,
        await source.get(AT.data_size),
      )
      const place = (await target.get(AT.data_offset)) - MIG_V1_WINDOW.data.offset
      to.view(place, chunk.length).set(chunk)
      await target.take(chunk.length)
    }

    expect(await target.set(1)).toBe(4)
    expect(await target.driver.get(ENGINE.mailbox)).toBe(0x77n)
  })

  test('is mapped by its data section alone, where it is at all: EINVAL', async () => {
    const { source } = await regions('v1-ndma')
    const { source: queue } = await regions('v1-queue')
    const { offset, size } = MIG_V1_WINDOW.data

    expect(await source.map(0, 4096)).toBe('EINVAL')
    expect(await source.map(offset, size + 4096)).toBe('EINVAL')
    expect(await queue.map(offset, size)).toBe('EINVAL')
  })

  test('takes each register at its own width and nothing else: EINVAL', async () => {
    const { source } = await regions('v1-ndma')

    expect(await source.state()).toBe(1)
    for (const [at, length] of [
      [0, 1],
      [0, 8],
      [0, 32],
      [8, 4],
      [12, 8],
      [20, 8],
    ] as const)
      expect(await source.read(at, length)).toBe('EINVAL')
    expect(await source.write(AT.pending_bytes, Buffer.alloc(8))).toBe('EINVAL')
    expect(await source.read(MIG_V1_WINDOW.regionSize, 8)).toBe('EINVAL')
  })

  test.each([
    ['v1-ndma', [5, 6, 7, 13, 14, 15, 16, 0x101], [9, 11, 1, 8, 0, 10, 3, 2, 12]],
    ['v1-queue', [5, 6, 7, 8, 9, 11, 16], [3, 2, 0, 1]],
  ] as const)('of %s refuses %j and stays as it was; it takes %j', async (kind, bad, good) => {
    const { source } = await regions(kind)

    for (const state of bad) expect([state, await source.set(state)]).toEqual([state, 'EINVAL'])
    expect(await source.state()).toBe(1)
    for (const state of good) {
      expect([state, await source.set(state)]).toEqual([state, 4])
      expect(await source.state()).toBe(state)
    }
  })

  test('moves the state in transactions, through pre-copy', async () => {
    const { world, source, target } = await regions('v1-ndma')
    await source.driver.put(ENGINE.mailbox, 0x77n)
    await source.set(3)
    const chunks = await source.save()
    expect(await source.get(AT.pending_bytes)).toBe(0)
    world.sim.step()
    expect(await source.get(AT.pending_bytes)).toBe(RECORD_SIZE)
    await source.set(2)
    chunks.push(...(await source.save()))
    expect(await source.get(AT.pending_bytes)).toBe(0)

    await target.set(4)
    await target.load(chunks)

    expect(await target.set(1)).toBe(4)
    expect(await target.driver.get(ENGINE.mailbox)).toBe(0x77n)
    await target.set(2)
    await source.set(0)
    await source.set(2)
    expect(await target.save()).toEqual(await source.save())
  })

  test('reads pending_bytes again without effect, and data only in its turn: EINVAL', async () => {
    const { source } = await regions('v1-ndma')
    await source.set(2)
    expect(await source.read(AT.data_offset, 8)).toBe('EINVAL')
    const pending = await source.get(AT.pending_bytes)
    expect(await source.get(AT.pending_bytes)).toBe(pending)
    expect(await source.read(AT.data_size, 8)).toBe('EINVAL')

    const first = await source.get(AT.data_offset)
    const size = await source.get(AT.data_size)
    expect(await source.read(first + size, 8)).toBe('EINVAL')
    expect(await source.get(AT.pending_bytes)).toBe(pending - size)

    expect(await source.get(AT.data_offset)).not.toBe(first)
  })

  test('enters ERROR with a state that is wrong, cut or missing, until it is reset: EIO', async () => {
    const { source, target } = await regions('v1-ndma')
    await source.set(2)
    const chunks = await source.save()
    const whole = Buffer.concat(chunks)
    const recut = [whole.subarray(0, 5000), whole.subarray(5000, 10_000)]
    for (const wrong of [[], chunks.slice(1), chunks.slice(0, -1), recut]) {
      await target.set(4)
      await target.load(wrong)

      expect(await target.set(1)).toBe('EIO')

      expect(await target.state()).toBe(6)
      expect(await target.set(1)).toBe('EIO')
      await target.driver.reset()
      expect(await target.state()).toBe(1)
    }
  })

  test.each([
    ['rfc-v2', 'before'],
    ['rfc-v3', 'before'],
    ['dec13', 'after'],
  ] as const)(
    'in order %s captures %s it loads, where one write does both',
    async (order, when) => {
      const { source, target } = await regions('v1-ndma', order)
      await source.driver.put(ENGINE.mailbox, 0x77n)
      await source.set(2)
      const sent = await source.save()
      await target.set(4)
      await target.load(sent)

      expect(await target.set(2)).toBe(4)

      const again = Buffer.concat(await target.save())
      expect(again.equals(Buffer.concat(sent))).toBe(when === 'after')
    },
  )
})

describe('DMA of a device with a migration region', () => {
  const RANGE = { start: 0x10_0000n, last: 0x10_ffffn }

  test('is held by NDMA and by a stop, and goes on after', async () => {
    const { world, source } = await regions('v1-ndma')
    await mapped(world, RANGE.start, 0x1_0000)
    await source.driver.work(RANGE, 2n)
    const written: bigint[] = []
    for (const state of [9, 1, 0, 2, 1]) {
      await source.set(state)
      world.sim.step()
      if ((state & 1) !== 0) written.push(await source.driver.get(ENGINE.written))
    }

    expect(written).toEqual([0n, 2n, 4n])
  })

  test('starts again with any access to the registers of a queue, a peer too', async () => {
    const { world, source, hostile } = await regions('v1-queue')
    const { bytes } = await mapped(world, RANGE.start, 0x1_0000)
    const page = (n: number): bigint => Buffer.from(bytes).readBigUInt64LE(n * 4096)
    await source.driver.work(RANGE, 1n)
    await source.set(0)
    world.sim.step()
    expect(page(0)).toBe(0n)

    await source.driver.get(ENGINE.id)
    world.sim.step()
    expect([page(0), page(1)]).toEqual([1n, 0n])

    const vaddr = (await source.driver.map()).address
    await mapDma(world.sim.kernel, world.container, { vaddr, iova: 0x8000_0000n, size: 4096n })
    await hostile.put(ENGINE.pokeIova, 0x8000_0000n + BigInt(ENGINE.mailbox))
    await hostile.put(ENGINE.pokeValue, 1n)
    await hostile.put(ENGINE.poke, 1n)
    world.sim.step()
    world.sim.step()

    expect(page(1)).toBe(2n)
  })
})
