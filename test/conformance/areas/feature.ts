/** What a device says of itself, its features with every flag, and its regions. */

import fc from 'fast-check'
import { CALLS } from '../calls.ts'
import type { IoctlOp, Op } from '../operation.ts'
import {
  type Area,
  argsz,
  hex,
  ioctl,
  mostly,
  oneOf,
  pick,
  placed,
  type Step,
  sequenceOf,
} from './area.ts'
import { eduScene, FEATURE_GET, FEATURE_PROBE, FEATURE_SET, mttyScene } from './scene.ts'

const dev = pick('d0', 'd1')

const verb = fc.oneof(
  { weight: 4, arbitrary: fc.constant(FEATURE_GET) },
  { weight: 4, arbitrary: fc.constant(FEATURE_SET) },
  {
    weight: 3,
    arbitrary: pick(0, FEATURE_GET, FEATURE_SET, FEATURE_GET | FEATURE_SET).map(
      (flags) => flags | FEATURE_PROBE,
    ),
  },
  { weight: 1, arbitrary: pick(0, FEATURE_GET | FEATURE_SET, 0x8_0000, 0x9_0000) },
)
/** MIG_DEVICE_STATE is the migration area's. */
const number = mostly(pick(0, 1, 3, 5, 6, 7, 8, 9, 10), pick(2, 4, 11, 12, 13, 0x7fff, 0xffff))
const feature = placed(
  fc
    .record({
      fd: dev,
      verb,
      number,
      argsz: mostly(pick(8, 16, 24, 32, 40), pick(0, 7, 12, 15, 4096, 0xffff_ffff)),
    })
    // Setting a state through this would need a slot for the fd.
    .filter(({ verb: flags, number: which }) => which !== 2 || (flags & FEATURE_SET) === 0)
    .map(
      ({ fd, verb: flags, number: which, argsz: size }): IoctlOp => ({
        op: 'ioctl',
        fd,
        call: 'FEATURE',
        in: { argsz: size, flags: flags | which },
        bytes: Array(32).fill(0),
      }),
    ),
  8,
)

const u64 = (value: bigint): string => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(value)
  return bytes.toString('hex')
}
const at = mostly(
  fc.integer({ min: 0, max: 7 }).map((page) => BigInt(page) * 0x1000n),
  pick(1n, 0x800n, 0x7f_ffff_f000n, 0xffff_ffff_ffff_f000n, 0xffff_ffff_ffff_ffffn),
)
const bytes = mostly(pick(0x1000n, 0x2000n), pick(0n, 1n, 0x800n, 0x10000n, 0xffff_ffff_ffff_f000n))
const range = fc.record({ iova: at, length: bytes })

const logStart = placed(
  fc
    .record({
      fd: dev,
      argsz: argsz(32),
      verb: mostly(pick(FEATURE_SET), verb),
      page_size: mostly(pick('0x1000'), pick('0x0', '0x1', '0x800', '0x3000', '0x200000')),
      ranges: fc.array(range, { minLength: 1, maxLength: 3 }),
      lie: mostly(pick(0), pick(-1, -2, -3, 253, 254, 255, 256, 0x1000_0000)),
      reserved: pick(0, 7),
      address: mostly(pick('bits+0'), pick('0x0', 'hole+0', 'bits+0x2ff0', 'bits+0x2ff8')),
    })
    .map(
      ({ fd, argsz: size, verb: flags, ranges, lie, reserved, address, page_size }): IoctlOp => ({
        op: 'ioctl',
        fd,
        call: 'LOG_START',
        in: {
          argsz: size,
          flags: flags | 6,
          page_size,
          num_ranges: Math.max(ranges.length + lie, 0),
          __reserved: reserved,
          ranges: address,
        },
        // What lies behind them must be the same on both sides.
        poke: [
          'bits+0',
          ranges.map(({ iova, length }) => u64(iova) + u64(length)).join('') + '00'.repeat(64),
        ],
      }),
    ),
  CALLS.LOG_START.size,
)

const logReport = placed(
  fc
    .record({
      fd: dev,
      argsz: argsz(40),
      verb: mostly(pick(FEATURE_GET), verb),
      iova: at.map(hex),
      length: bytes.map(hex),
      page_size: mostly(
        pick('0x1000'),
        pick('0x0', '0x1', '0x800', '0x3000', '0x200000', '0x2000'),
      ),
      bitmap: mostly(pick('bits+0', 'bits+4'), pick('0x0', 'hole+0', '0xfffffffffffff000')),
    })
    .map(
      ({ fd, verb: flags, ...fields }): IoctlOp => ({
        op: 'ioctl',
        fd,
        call: 'LOG_REPORT',
        in: { ...fields, flags: flags | 8 },
        poke: ['bits+0', '00'.repeat(32)],
        look: ['bits+0', 32],
      }),
    ),
  CALLS.LOG_REPORT.size,
)

const wakeup = placed(
  fc
    .record({
      fd: dev,
      argsz: argsz(16),
      verb: mostly(pick(FEATURE_SET), verb),
      wakeup_eventfd: mostly(pick('@e0', '@e1'), pick('@none', '@shut', '@c0')),
      reserved: mostly(pick(0), pick(1)),
    })
    .map(
      ({ fd, verb: flags, ...fields }): IoctlOp => ({
        op: 'ioctl',
        fd,
        call: 'WAKEUP',
        in: { ...fields, flags: flags | 4 },
      }),
    ),
  CALLS.WAKEUP.size,
)

const deviceInfo = placed(
  fc
    .record({
      fd: dev,
      argsz: mostly(pick(16, 20, 24, 32), pick(0, 15, 17, 4096)),
      flags: pick(0, 255),
    })
    .map(({ fd, ...fields }): IoctlOp => ({ op: 'ioctl', fd, call: 'DEVICE_INFO', in: fields })),
  24,
)
const regionInfo = placed(
  fc
    .record({
      fd: dev,
      argsz: argsz(32),
      index: mostly(fc.integer({ min: 0, max: 9 }), pick(10, 0xffff_ffff)),
      cap_offset: pick(0, 9),
    })
    .map(({ fd, ...fields }): IoctlOp => ({ op: 'ioctl', fd, call: 'REGION_INFO', in: fields })),
  32,
)
const irqInfo = fc
  .record({ fd: dev, index: fc.integer({ min: 0, max: 6 }) })
  .map(({ fd, index }): Op => ioctl(fd, 'IRQ_INFO', { in: { index } }))
const plain = fc
  .record({ fd: dev, call: pick('RESET', 'GFX_PLANE', 'STATUS', 'PRECOPY', 'DIRTY') })
  .map(({ fd, call }): Op => ioctl(fd, call))
const hotResetInfo = fc
  .record({ fd: dev, argsz: argsz(12) })
  .map(({ fd, ...fields }): Op => ioctl(fd, 'HOT_RESET_INFO', { in: fields }))

/** Where firmware put the BAR of edu is its own affair. */
const hasBar = (at: number, length: number): boolean => at < 0x14 && at + length > 0x10
const sizeBar = pick('ffffffff', '78563412', '00000000').map(
  (hex): Step => [
    { op: 'pwrite', fd: 'd0', region: 7, at: 0x10, hex },
    { op: 'pread', fd: 'd0', region: 7, at: 0x10, length: 4 },
  ],
)

/** The header, where every byte is known; behind it QEMU's devices have more than the simulator. */
const readConfig = fc
  .record({ fd: dev, at: fc.integer({ min: 0, max: 0x3f }), length: pick(1, 2, 4, 8) })
  .filter(({ at: where, length }) => where + length <= 0x40 && !hasBar(where, length))
  .map((fields): Op => ({ op: 'pread', region: 7, ...fields }))
const registers = pick(
  ...[0, 4, 5, 6, 8, 0xc, 0x10, 0x14, 0x18, 0x20, 0x24, 0x2c, 0x30, 0x34, 0x3c, 0x3d],
)
const writeConfig = fc
  .record({
    at: registers,
    hex: pick('00', 'ff', '0204', '0600', 'ffff', 'ffffffff', '00000000', '0200'),
  })
  .map((fields): Op => ({ op: 'pwrite', fd: 'd0', region: 7, ...fields }))
/** mtty reads four bytes of the kernel's stack, however few are written to a BAR. */
const writeMttyConfig = fc
  .record({ at: registers, hex: pick('ffffffff', '00000000', '78563412', 'f0ff0f00') })
  .map((fields): Op => ({ op: 'pwrite', fd: 'd1', region: 7, ...fields }))
/** mtty goes beyond its ports for the other BARs, into memory of the kernel's. */
const outside = fc
  .record({
    where: fc.oneof(
      fc.record({ fd: pick('d0'), region: pick(1, 2, 5, 6, 8, 9, 12) }),
      fc.record({ fd: pick('d1'), region: pick(6, 8, 9, 12) }),
    ),
    at: pick(0, 4, 8, 0x1000),
    length: pick(0, 1, 4),
  })
  .map(({ where, ...fields }): Op => ({ op: 'pread', ...where, ...fields }))

const bar = mostly(
  pick(0, 4, 8, 0x20, 0x24, 0x80, 0x88, 0x90),
  pick(2, 0x9c, 0xa0, 0xf_fffc, 0x10_0000),
)
const readEdu = fc
  .record({ at: bar, length: mostly(pick(4, 8), pick(1, 2, 3, 12, 0)) })
  .map((fields): Op => ({ op: 'pread', fd: 'd0', region: 0, ...fields }))
const writeEdu = fc
  .record({
    at: mostly(pick(0x80, 0x88, 0x90), pick(0, 0x24, 0xa0, 0x10_0000)),
    hex: pick('78563412', '0102030405060708', '05000000', 'ff', ''),
  })
  .map((fields): Op => ({ op: 'pwrite', fd: 'd0', region: 0, ...fields }))
/** Large factorials keep the emulator busy for seconds. */
const compute = fc
  .record({ at: pick(4, 8), hex: pick('05000000', '0c000000', '22000000', 'ff', '') })
  .map((fields): Op => ({ op: 'pwrite', fd: 'd0', region: 0, ...fields }))
const uart = fc
  .record({
    region: pick(0, 1),
    at: fc.integer({ min: 0, max: 7 }),
    hex: pick('00', '5a', '83', '0f', '0103'),
  })
  .map((fields): Op => ({ op: 'pwrite', fd: 'd1', ...fields }))
const readUart = fc
  .record({ region: pick(0, 1), at: fc.integer({ min: 0, max: 7 }) })
  .map((fields): Op => ({ op: 'pread', fd: 'd1', ...fields, length: 1 }))

const count = pick('e0', 'e1').map((fd): Op => ({ op: 'count', fd }))
const reopen = pick(
  { op: 'close', fd: 'd0' } as const,
  { op: 'device', fd: 'g0', place: 'edu0', into: 'd0' } as const,
)

const op = oneOf(
  [20, feature],
  [10, logStart],
  [8, logReport],
  [4, wakeup],
  [2, count],
  [2, reopen],
  [4, deviceInfo],
  [8, regionInfo],
  [2, irqInfo],
  [2, plain],
  [1, hotResetInfo],
  [10, readConfig],
  [6, writeConfig],
  [2, sizeBar],
  [3, writeMttyConfig],
  [3, outside],
  [5, readEdu],
  [3, writeEdu],
  [3, compute],
  [5, uart],
  [5, readUart],
)

export const features: Area = {
  name: 'feature',
  sequence: sequenceOf([[...eduScene, ...mttyScene(1, 'mtty0', 2, false)]], op),
}
