/** Vendor-like devices: how each profile migrates, what its DMA does, and when it does none. */

import { createHash } from 'node:crypto'
import { afterEach, expect, test } from 'vitest'
import {
  vfio_device_feature_dma_logging_control,
  vfio_device_feature_dma_logging_range,
  vfio_device_feature_dma_logging_report,
} from '../../src/abi/dma-logging.ts'
import {
  VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
  VFIO_DEVICE_FEATURE_SET,
} from '../../src/abi/feature.ts'
import { vfio_device_feature_mig_data_size } from '../../src/abi/mig-v2.ts'
import { ENGINE } from '../../src/backends/sim/devices/profiles/engine.ts'
import { RECORD_SIZE } from '../../src/backends/sim/devices/profiles/records.ts'
import type { VendorKind } from '../../src/backends/sim/spec/machine-spec.ts'
import { ERRNO } from '../../src/base/errno.ts'
import { said } from './answers.ts'
import { describeModelled } from './backends.ts'
import { feature, mapDma } from './calls.ts'
import { STATE } from './mtty-driver.ts'
import {
  type Change,
  mapped,
  type VendorDriver,
  type VendorWorld,
  vendorWorld,
} from './vendor-machine.ts'

const describe = describeModelled('the test machine has no device of these vendors')

const worlds: VendorWorld[] = []

const world = async (...kinds: (readonly [VendorKind, Change?])[]): Promise<VendorWorld> => {
  const made = await vendorWorld(kinds)
  worlds.push(made)
  return made
}

/** Two devices of a kind. */
const pair = async (kind: VendorKind, change: Change = {}) => {
  const made = await world([kind, change], [kind, change])
  const [source, target] = made.drivers as [VendorDriver, VendorDriver]
  return { ...made, source, target }
}

const write = async ({ machine }: VendorDriver, fd: number, bytes: Buffer): Promise<number> => {
  for (let at = 0; at < bytes.length; at += 40_000) {
    const answer = await machine.kernel.write(fd, bytes.subarray(at, at + 40_000))
    if (answer < 0) return answer
  }
  return bytes.length
}

const digest = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')

/** The state of a device that is stopped for it. */
const stateOf = async (device: VendorDriver): Promise<Buffer> =>
  (await device.drain(await device.set('STOP_COPY'))).bytes

afterEach(async () => {
  for (const { machine } of worlds.splice(0)) await machine.cleanUp()
})

const STATE_OF_64K = { bytes: 0x1_0000n, initialBytes: 0x4000n, dirtyPagesPerStep: 2 }

describe('a device like mlx5', () => {
  test('sends its initial part, then the rest, then ENOMSG, then what changed', async () => {
    const { sim, source } = await pair('mlx5-like', { state: STATE_OF_64K })
    const fd = await source.set('PRE_COPY')

    expect(await source.precopyInfo(fd)).toEqual({
      initial: BigInt(4 * RECORD_SIZE),
      dirty: BigInt(12 * RECORD_SIZE),
    })
    const first = await source.drain(fd)
    expect([first.bytes.length, said(first.end)]).toEqual([16 * RECORD_SIZE, 'ENOMSG'])
    sim.step()
    expect(await source.precopyInfo(fd)).toEqual({ initial: 0n, dirty: BigInt(2 * RECORD_SIZE) })
    expect((await source.drain(fd)).bytes.length).toBe(2 * RECORD_SIZE)

    expect(await source.set('STOP_COPY')).toBe(-1)

    const last = await source.drain(fd)
    expect([last.bytes.length, last.end]).toEqual([RECORD_SIZE, 0])
  })

  test('loads into another, which then is the same', async () => {
    const { sim, source, target } = await pair('mlx5-like', { state: STATE_OF_64K })
    await source.put(ENGINE.mailbox, 0x5a5an)
    sim.step()
    const saving = await source.set('PRE_COPY')
    const parts = [(await source.drain(saving)).bytes]
    sim.step()
    await source.set('STOP_COPY')
    parts.push((await source.drain(saving)).bytes)
    const loading = await target.set('RESUMING')

    await write(target, loading, Buffer.concat(parts))

    expect(await target.set('RUNNING')).toBe(-1)
    expect(await target.get(ENGINE.mailbox)).toBe(0x5a5an)
    await source.set('STOP')
    expect(digest(await stateOf(target))).toBe(digest(await stateOf(source)))
  })

  test('refuses a wrong record where it is written, and takes no more: EINVAL, then ENODEV', async () => {
    const { source, target } = await pair('mlx5-like')
    const stream = await stateOf(source)
    stream[RECORD_SIZE + 100] = (stream[RECORD_SIZE + 100] ?? 0) ^ 1
    const fd = await target.set('RESUMING')

    expect(said(await write(target, fd, stream))).toBe('EINVAL')
    expect(said(await write(target, fd, stream))).toBe('ENODEV')
    expect(said(await target.set('STOP'))).toBe('EINVAL')
    expect(await target.state()).toBe(STATE.RESUMING)
  })

  test('refuses a record of an unknown kind: EOPNOTSUPP', async () => {
    const { source, target } = await pair('mlx5-like')
    const stream = await stateOf(source)
    stream[12] = 7

    expect(said(await write(target, await target.set('RESUMING'), stream))).toBe('EOPNOTSUPP')
  })

  test('refuses the state of another make: EOPNOTSUPP', async () => {
    const { drivers } = await world(['mlx5-like'], ['pds-like'])
    const [target, source] = drivers as [VendorDriver, VendorDriver]
    const stream = await stateOf(source)

    expect(said(await write(target, await target.set('RESUMING'), stream))).toBe('EOPNOTSUPP')
  })

  test('refuses a state that is not all there, and one that goes on: EINVAL, ENOMEM', async () => {
    const { source, target } = await pair('mlx5-like')
    const stream = await stateOf(source)
    const fd = await target.set('RESUMING')
    await write(target, fd, stream.subarray(0, stream.length - 1))
    expect(said(await target.set('STOP'))).toBe('EINVAL')

    expect(await write(target, fd, stream.subarray(stream.length - 1))).toBe(1)
    expect(said(await target.machine.kernel.write(fd, Buffer.alloc(1)))).toBe('ENOMEM')
  })

  test('orphans its files where it leaves the session, and when it is reset: ENODEV', async () => {
    const { source } = await pair('mlx5-like')
    const fd = await source.set('PRE_COPY')
    await source.set('RUNNING')
    expect(said((await source.drain(fd)).end)).toBe('ENODEV')
    const resuming = await source.set('RESUMING')

    await source.reset()

    expect(said(await source.machine.kernel.write(resuming, Buffer.alloc(8)))).toBe('ENODEV')
    expect(await source.state()).toBe(STATE.RUNNING)
  })
})

describe('a device like hisilicon', () => {
  test('has only what identifies it to send in PRE_COPY, and then 0', async () => {
    const { source } = await pair('hisilicon-like')
    const fd = await source.set('PRE_COPY')

    expect(await source.precopyInfo(fd)).toEqual({ initial: 16n, dirty: 0n })
    expect(await source.drain(fd)).toMatchObject({ bytes: { length: 16 }, end: 0 })
    expect(said(await source.set('RUNNING_P2P'))).toBe('EINVAL')
    await source.set('STOP_COPY')
    expect((await source.drain(fd)).bytes.length).toBe(17 * RECORD_SIZE)
  })

  test('is told at once that the source is of another make: EINVAL', async () => {
    const { target } = await pair('hisilicon-like')
    const fd = await target.set('RESUMING')

    expect(said(await target.machine.kernel.write(fd, Buffer.alloc(16, 1)))).toBe('EINVAL')
  })

  test('loads what another sent', async () => {
    const { source, target } = await pair('hisilicon-like')
    const stream = await stateOf(source)
    await write(target, await target.set('RESUMING'), stream)

    await target.set('RUNNING')

    expect(await stateOf(target)).toEqual(stream)
  })
})

describe('a device like pds', () => {
  test('enters ERROR with a state that is wrong, and answers EIO until it is reset', async () => {
    const { source, target } = await pair('pds-like')
    const stream = await stateOf(source)
    stream[RECORD_SIZE - 1] = (stream[RECORD_SIZE - 1] ?? 0) ^ 1
    expect(await write(target, await target.set('RESUMING'), stream)).toBe(stream.length)

    expect(said(await target.set('STOP'))).toBe('EIO')

    expect(await target.state()).toBe(0)
    expect(said(await target.set('RUNNING'))).toBe('EIO')
    await target.reset()
    expect(await target.state()).toBe(STATE.RUNNING)
    expect(await target.set('STOP')).toBe(-1)
  })

  test('enters ERROR where any arc fails; others stay as they are', async () => {
    const { sim, drivers, addresses } = await world(['pds-like'], ['mlx5-like'])
    const [pds, mlx5] = drivers as [VendorDriver, VendorDriver]
    for (const address of addresses) sim.failNextArc(address, ERRNO.ETIMEDOUT)

    expect([await pds.set('STOP'), await mlx5.set('STOP')].map(said)).toEqual([
      'ETIMEDOUT',
      'ETIMEDOUT',
    ])

    expect([await pds.state(), await mlx5.state()]).toEqual([0, STATE.RUNNING])
  })
})

const RANGE = { start: 0x10_0000n, last: 0x10_ffffn }
const wordAt = (bytes: Uint8Array, page: number): bigint =>
  Buffer.from(bytes).readBigUInt64LE(page * 4096)

describe('VFIO_DEVICE_FEATURE_MIG_DATA_SIZE', () => {
  const dataSize = async ({ machine, device }: VendorDriver): Promise<bigint> => {
    const payload = vfio_device_feature_mig_data_size.encode({})
    const flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DATA_SIZE
    expect(await feature(machine.kernel, device, flags, payload)).toBe(0)
    return vfio_device_feature_mig_data_size.decode(payload).stop_copy_length
  }

  test.each(['mlx5-like', 'hisilicon-like', 'pds-like'] as const)(
    'of %s is what STOP_COPY then sends',
    async (kind) => {
      const { source } = await pair(kind, { state: STATE_OF_64K })
      const told = await dataSize(source)

      expect(BigInt((await stateOf(source)).length)).toBe(told)
    },
  )

  test('of mlx5 is what is left once PRE_COPY sends', async () => {
    const { source } = await pair('mlx5-like', { state: STATE_OF_64K })
    const fd = await source.set('PRE_COPY')
    await source.drain(fd)
    const told = await dataSize(source)
    await source.set('STOP_COPY')

    expect(BigInt((await source.drain(fd)).bytes.length)).toBe(told)
  })
})

describe('a workload', () => {
  test('writes so many pages in each step, from the machine file on', async () => {
    const workload = { range: RANGE, pagesPerStep: 3, pattern: 'sequential' } as const
    const made = await world(['mlx5-like', { workload }])
    const { bytes } = await mapped(made, RANGE.start, 0x1_0000)
    expect(bytes.some((byte) => byte !== 0)).toBe(false)

    made.sim.step()
    expect([0, 1, 2, 3].map((page) => wordAt(bytes, page))).toEqual([1n, 2n, 3n, 0n])
    made.sim.step()

    expect([3, 4, 5, 6].map((page) => wordAt(bytes, page))).toEqual([4n, 5n, 6n, 0n])
  })

  test.each([
    ['sequential', 0n, 16],
    ['random', 1n, 16],
    ['hot', 2n, 8],
  ] as const)('of pattern %s spreads as it is said', async (_name, pattern, most) => {
    const made = await world(['mlx5-like'])
    const { bytes } = await mapped(made, RANGE.start, 0x1_0000)
    await made.drivers[0]?.work(RANGE, 32n, pattern)

    made.sim.step()

    const written = Array.from({ length: 16 }, (_, page) => wordAt(bytes, page)).filter(
      (n) => n > 0n,
    )
    expect(written.length).toBeLessThanOrEqual(most)
    expect(written.length).toBeGreaterThan(0)
    expect(await made.drivers[0]?.get(ENGINE.written)).toBe(32n)
  })

  test('is stopped by the IOMMU where nothing is mapped, and counts it', async () => {
    const made = await world(['mlx5-like'])
    await made.drivers[0]?.work(RANGE, 2n)

    made.sim.step()

    expect(await made.drivers[0]?.get(ENGINE.faults)).toBe(2n)
  })

  test.each(['RUNNING_P2P', 'PRE_COPY_P2P', 'STOP', 'STOP_COPY', 'RESUMING'] as const)(
    'does nothing in %s',
    async (state) => {
      const made = await world(['mlx5-like'])
      const { bytes } = await mapped(made, RANGE.start, 0x1_0000)
      await made.drivers[0]?.work(RANGE, 2n)
      await made.drivers[0]?.set(state)

      made.sim.step()

      expect(bytes.some((byte) => byte !== 0)).toBe(false)
    },
  )
})

describe('tracking by the device', () => {
  const start = (device: VendorDriver) => {
    const range = vfio_device_feature_dma_logging_range.encode({
      iova: RANGE.start,
      length: 0x1_0000n,
    })
    return device.machine.memory(4096).then(({ segment }) => {
      segment.bytes.set(range)
      const control = vfio_device_feature_dma_logging_control.encode({
        page_size: 4096n,
        num_ranges: 1,
        ranges: segment.address,
      })
      return feature(
        device.machine.kernel,
        device.device,
        VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
        control,
      )
    })
  }
  const report = async (device: VendorDriver, iova = RANGE.start) => {
    const { segment } = await device.machine.memory(4096)
    const payload = vfio_device_feature_dma_logging_report.encode({
      iova,
      length: 0x1_0000n,
      page_size: 4096n,
      bitmap: segment.address,
    })
    const answer = await feature(
      device.machine.kernel,
      device.device,
      VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
      payload,
    )
    return answer < 0 ? said(answer) : Buffer.from(segment.bytes).readUInt16LE()
  }

  test('reports what the device wrote, once', async () => {
    const made = await world(['mlx5-like'])
    const device = made.drivers[0] as VendorDriver
    await mapped(made, RANGE.start, 0x1_0000)
    expect(await report(device)).toBe('EINVAL')
    expect(await start(device)).toBe(0)
    await device.work(RANGE, 3n)

    made.sim.step()

    expect([await report(device), await report(device)]).toEqual([7, 0])
    expect(await report(device, 0x20_0000n)).toBe('EINVAL')
  })

  test.each([
    ['mlx5-like', 'EINVAL'],
    ['pds-like', 'EEXIST'],
    ['hisilicon-like', 'ENOTTY'],
  ] as const)('of %s started twice is %s', async (kind, errno) => {
    const { drivers } = await world([kind])
    await start(drivers[0] as VendorDriver)

    expect(said(await start(drivers[0] as VendorDriver))).toBe(errno)
  })
})

describe('a hostile peer', () => {
  /** The registers of the second device, mapped for the first one. */
  const besieged = async (kind: VendorKind) => {
    const made = await world(['hostile'], [kind])
    const [hostile, victim] = made.drivers as [VendorDriver, VendorDriver]
    const vaddr = (await victim.map()).address
    const iova = 0x8000_0000n
    expect(await mapDma(made.sim.kernel, made.container, { vaddr, iova, size: 4096n })).toBe(0)
    const poke = async (register: number, value: bigint): Promise<void> => {
      await hostile.put(ENGINE.pokeIova, iova + BigInt(register))
      await hostile.put(ENGINE.pokeValue, value)
      await hostile.put(ENGINE.poke, 1n)
      made.sim.step()
    }
    return { ...made, victim, poke }
  }

  test('writes the registers of a device whose page is mapped for it', async () => {
    const { victim, poke } = await besieged('mlx5-like')

    await poke(ENGINE.mailbox, 0xbadn)

    expect(await victim.get(ENGINE.mailbox)).toBe(0xbadn)
  })

  test('is stopped by the IOMMU where nothing is mapped, and counts it', async () => {
    const { drivers, poke } = await besieged('mlx5-like')

    await poke(0x1000, 0xbadn)

    expect(await drivers[0]?.get(ENGINE.faults)).toBe(1n)
  })

  test('does not reach a device that is stopped: its state stays what was saved', async () => {
    const { victim, poke } = await besieged('mlx5-like')
    const fd = await victim.set('STOP_COPY')

    await poke(ENGINE.mailbox, 0xbadn)

    const { bytes } = await victim.drain(fd)
    expect(bytes.subarray(-4096).readBigUInt64LE(ENGINE.mailbox)).toBe(0n)
    await victim.set('RUNNING')
    expect(await victim.get(ENGINE.mailbox)).toBe(0n)
  })
})
