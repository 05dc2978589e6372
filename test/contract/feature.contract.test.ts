/** vfio.h: VFIO_DEVICE_FEATURE: the envelope, what devices know, and DMA logging. */

import { beforeAll, describe, expect, test } from 'vitest'
import {
  vfio_device_feature_dma_logging_control,
  vfio_device_feature_dma_logging_range,
  vfio_device_feature_dma_logging_report,
} from '../../src/abi/dma-logging.ts'
import {
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY,
  VFIO_DEVICE_FEATURE_LOW_POWER_EXIT,
  VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
  VFIO_DEVICE_FEATURE_MIGRATION,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FEATURE_SET,
} from '../../src/abi/feature.ts'
import {
  VFIO_MIGRATION_P2P,
  VFIO_MIGRATION_PRE_COPY,
  VFIO_MIGRATION_STOP_COPY,
  vfio_device_feature_mig_data_size,
  vfio_device_feature_migration,
} from '../../src/abi/mig-v2.ts'
import { allocPages } from '../../src/os/memory.ts'
import { type Said, said } from './answers.ts'
import { describeContract } from './backends.ts'
import { feature } from './calls.ts'
import { MttyDriver } from './mtty-driver.ts'

const GET = VFIO_DEVICE_FEATURE_GET
const SET = VFIO_DEVICE_FEATURE_SET
const PROBE = VFIO_DEVICE_FEATURE_PROBE
const STATE = VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE
const MIGRATION = VFIO_DEVICE_FEATURE_MIGRATION
const START = VFIO_DEVICE_FEATURE_DMA_LOGGING_START
const STOP = VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP
const REPORT = VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT

describeContract('VFIO_DEVICE_FEATURE', (machine) => {
  const { kernel } = machine
  let edu = ''

  beforeAll(async () => {
    ;[edu] = await machine.edus()
  })

  const mtty = async (): Promise<number> => (await MttyDriver.make(machine, 'mtty-1')).device

  const ask = async (device: number, flags: number, payload?: Uint8Array, argsz?: number) =>
    said(await feature(kernel, device, flags, payload, argsz))

  describe('the envelope', () => {
    test('refuses an argsz below 8: EINVAL', async () => {
      expect(await ask(await mtty(), PROBE | MIGRATION, undefined, 7)).toBe('EINVAL')
    })

    test('refuses a pointer that leads nowhere: EFAULT', async () => {
      const device = await mtty()

      expect(said(await kernel.ioctl(device, VFIO_DEVICE_FEATURE.number, undefined))).toBe('EFAULT')
    })

    test.each([19, 20, 31])('refuses flag bit %i: EINVAL', async (bit) => {
      expect(await ask(await mtty(), (PROBE | MIGRATION | (1 << bit)) >>> 0)).toBe('EINVAL')
    })

    test('refuses GET with SET, unless it only asks: EINVAL', async () => {
      const device = await mtty()
      const payload = new Uint8Array(8)

      expect(await ask(device, GET | SET | STATE, payload)).toBe('EINVAL')
      expect(await ask(device, PROBE | GET | SET | STATE, payload)).toBe(0)
    })

    test('refuses neither GET nor SET, unless it only asks: EINVAL', async () => {
      const device = await mtty()

      expect(await ask(device, STATE, new Uint8Array(8))).toBe('EINVAL')
      expect(await ask(device, PROBE | STATE)).toBe(0)
    })

    test('refuses what the feature does not do, asking included: EINVAL', async () => {
      const device = await mtty()
      const payload = new Uint8Array(8)

      expect(await ask(device, SET | MIGRATION, payload)).toBe('EINVAL')
      expect(await ask(device, PROBE | SET | MIGRATION, payload)).toBe('EINVAL')
      expect(await ask(device, PROBE | GET | STOP)).toBe('EINVAL')
    })

    test('refuses an argsz without room for the payload: EINVAL', async () => {
      expect(await ask(await mtty(), GET | MIGRATION, new Uint8Array(8), 15)).toBe('EINVAL')
    })
  })

  describe('PROBE', () => {
    const known = async (device: number): Promise<Said[]> => {
      const answers: Said[] = []
      for (let number = 0; number <= 12; number++) answers.push(await ask(device, PROBE | number))
      return answers
    }

    test('of an mtty finds migration and DMA logging', async () => {
      expect(await known(await mtty())).toEqual([
        'ENOTTY',
        0,
        0,
        ...Array(3).fill('ENOTTY'),
        0,
        0,
        0,
        0,
        ...Array(3).fill('ENOTTY'),
      ])
    })

    test('of a device with vfio-pci finds power management alone', async () => {
      const { device } = await machine.opened(edu)

      expect(await known(device)).toEqual([
        ...Array(3).fill('ENOTTY'),
        0,
        0,
        0,
        ...Array(7).fill('ENOTTY'),
      ])
    })

    test('of a feature that does not exist: ENOTTY', async () => {
      expect(await ask(await mtty(), PROBE | 0xffff)).toBe('ENOTTY')
    })
  })

  describe('VFIO_DEVICE_FEATURE_MIGRATION', () => {
    test('says that an mtty does everything', async () => {
      const payload = vfio_device_feature_migration.encode({})

      expect(await ask(await mtty(), GET | MIGRATION, payload)).toBe(0)

      const all = VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY
      expect(vfio_device_feature_migration.decode(payload).flags).toBe(BigInt(all))
    })
  })

  describe('VFIO_DEVICE_FEATURE_MIG_DATA_SIZE', () => {
    test.each([
      ['mtty-1', 60n],
      ['mtty-2', 96n],
    ] as const)('of an %s is %i bytes', async (type, size) => {
      const { device } = await MttyDriver.make(machine, type)
      const payload = vfio_device_feature_mig_data_size.encode({})

      expect(await ask(device, GET | VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, payload)).toBe(0)

      expect(vfio_device_feature_mig_data_size.decode(payload).stop_copy_length).toBe(size)
    })
  })

  describe('VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY and EXIT', () => {
    test('of a device with vfio-pci are taken', async () => {
      const { device } = await machine.opened(edu)

      expect(await ask(device, SET | VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY)).toBe(0)
      expect(await ask(device, SET | VFIO_DEVICE_FEATURE_LOW_POWER_EXIT)).toBe(0)
    })
  })

  describe('VFIO_DEVICE_FEATURE_DMA_LOGGING_START', () => {
    const room = allocPages(8192)

    const start = async (
      device: number,
      ranges: readonly (readonly [bigint, bigint])[],
      more: { page_size?: bigint; num_ranges?: number; ranges?: bigint } = {},
    ): Promise<{ readonly answer: Said; readonly pageSize: bigint }> => {
      const { size } = vfio_device_feature_dma_logging_range
      for (const [index, [iova, length]] of ranges.entries())
        vfio_device_feature_dma_logging_range.write(room.bytes, { iova, length }, index * size)
      const control = vfio_device_feature_dma_logging_control.encode({
        page_size: 4096n,
        num_ranges: ranges.length,
        ranges: room.address,
        ...more,
      })
      const answer = await ask(device, SET | START, control)
      return { answer, pageSize: vfio_device_feature_dma_logging_control.decode(control).page_size }
    }

    test('is taken, as often as it is asked for, and so is STOP', async () => {
      const device = await mtty()

      expect(await start(device, [[0n, 0x10000n]])).toEqual({ answer: 0, pageSize: 4096n })
      expect((await start(device, [[0n, 0x10000n]])).answer).toBe(0)
      expect(await ask(device, SET | STOP)).toBe(0)
      expect(await ask(device, SET | STOP)).toBe(0)
    })

    test.each<[string, Said, readonly (readonly [bigint, bigint])[], object]>([
      ['no range', 'EINVAL', [], {}],
      ['257 ranges', 'E2BIG', [], { num_ranges: 257 }],
      ['ranges that are not there', 'EFAULT', [], { num_ranges: 1, ranges: 0x1000n }],
      ['a page size of 0', 'EINVAL', [[0x1000n, 0x1000n]], { page_size: 0n }],
      ['an iova off the page', 'EINVAL', [[0x800n, 0x1000n]], {}],
      ['a length off the page', 'EINVAL', [[0x1000n, 0x800n]], {}],
      [
        'ranges that overlap',
        'EINVAL',
        [
          [0x1000n, 0x2000n],
          [0x2000n, 0x1000n],
        ],
        {},
      ],
      ['a range that wraps', 'EOVERFLOW', [[0xffff_ffff_ffff_f000n, 0x2000n]], {}],
    ])('refuses %s: %s', async (_what, errno, ranges, more) => {
      expect((await start(await mtty(), ranges, more)).answer).toBe(errno)
    })

    test.each<[string, readonly (readonly [bigint, bigint])[], object]>([
      ['256 ranges', Array.from({ length: 256 }, (_, at) => [BigInt(at) << 12n, 4096n]), {}],
      ['a range without length', [[0x1000n, 0n]], {}],
      ['a page size that is no power of two', [[0n, 0x4000n]], { page_size: 0x3000n }],
      ['something in __reserved', [[0n, 0x1000n]], { __reserved: 1 }],
    ])('takes %s', async (_what, ranges, more) => {
      const { answer } = await start(await mtty(), ranges, more)

      expect(answer).toBe(0)
    })
  })

  describe('VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT', () => {
    const bitmap = allocPages(4096)

    const report = async (device: number, more = {}): Promise<Said> =>
      ask(
        device,
        GET | REPORT,
        vfio_device_feature_dma_logging_report.encode({
          iova: 0n,
          length: 0x10000n,
          page_size: 4096n,
          bitmap: bitmap.address,
          ...more,
        }),
      )

    test('of an mtty sets no bit, and clears none', async () => {
      bitmap.bytes.fill(0xaa)

      expect(await report(await mtty())).toBe(0)

      expect(bitmap.bytes.every((byte) => byte === 0xaa)).toBe(true)
    })

    test.each<[string, Said, object]>([
      ['a page size below 4096', 'EINVAL', { page_size: 2048n }],
      ['a page size that is no power of two', 'EINVAL', { page_size: 0x3000n }],
      ['a range that wraps', 'EOVERFLOW', { iova: 0xffff_ffff_ffff_f000n, length: 0x2000n }],
    ])('refuses %s: %s', async (_what, errno, more) => {
      expect(await report(await mtty(), more)).toBe(errno)
    })

    test('takes a range off the page', async () => {
      expect(await report(await mtty(), { iova: 0x10n, length: 0x123n })).toBe(0)
    })
  })
})
