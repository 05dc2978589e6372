/** iommufd: address spaces, mappings in them, devices by cdev, and an iommufd as a container. */

import fc from 'fast-check'
import { CALLS, type CallName } from '../calls.ts'
import type { IoctlOp, Op, Value } from '../operation.ts'
import {
  type Area,
  argsz,
  hex,
  ioctl,
  mostly,
  oneOf,
  open,
  pick,
  placed,
  type Step,
  sequencesOf,
} from './area.ts'

const PAGE = 4096

const file = mostly(pick('i0'), pick('i1'))
const dev = pick('d0', 'd1')
/** Ids are small and given in order, so that most of these are there. */
const id = mostly(fc.integer({ min: 1, max: 6 }), pick(0, 9, 0xffff_ffff))
const ioas = mostly(pick(1, 1, 1, 2), id)

const page = fc.integer({ min: 0, max: 31 })
const iova = mostly(
  page.map((number) => hex(number * PAGE)),
  pick(
    ...['0x1', '0x800', '0xfedff000', '0xfee00000', '0xfeeff000', '0xfef00000', '0x7ffffff000'],
    ...['0x8000000000', '0xfffffffffffff000', '0xffffffffffffffff'],
  ),
)
const length = mostly(
  fc.integer({ min: 1, max: 8 }).map((pages) => hex(pages * PAGE)),
  pick('0x0', '0x1', '0x800', '0x1001', '0x40000', '0xfffffffffffff000', '0xffffffffffffffff'),
)
const address = mostly(
  page.map((number) => `ram+${hex(number * PAGE)}`),
  pick(
    'ro+0',
    'hole+0',
    'ram+0x1',
    'ram+0x800',
    'other+0x1000',
    `ram+${hex(47 * PAGE)}`,
    '0x0',
    '0xfffffffffffff000',
  ),
)
const mapFlags = mostly(pick(7, 7, 7, 6), pick(0, 1, 2, 3, 4, 5, 8, 15))
const zero = mostly(pick(0), pick(0, 0, 1))

/** A call whose fields are made up; its size is right, or beside that. */
const made = (
  call: CallName,
  fields: Record<string, fc.Arbitrary<Value>>,
  more: Partial<IoctlOp> = {},
): fc.Arbitrary<Op> =>
  placed(
    fc.record({ fd: file, size: argsz(CALLS[call].size), fields: fc.record(fields) }).map(
      ({ fd, size, fields: values }): IoctlOp => ({
        op: 'ioctl',
        fd,
        call,
        in: { size, ...values },
        ...more,
      }),
    ),
    CALLS[call].size,
  )

const alloc = made('IOAS_ALLOC', { flags: zero })
const destroy = made('DESTROY', { id })
const map = made('IOAS_MAP', {
  flags: mapFlags,
  ioas_id: ioas,
  __reserved: zero,
  user_va: address,
  length,
  iova,
})
const unmap = made('IOAS_UNMAP', { ioas_id: ioas, iova, length })
const unmapAll = made('IOAS_UNMAP', {
  ioas_id: ioas,
  iova: pick('0x0'),
  length: pick('0xffffffffffffffff'),
})
const copy = made('IOAS_COPY', {
  flags: mapFlags,
  dst_ioas_id: ioas,
  src_ioas_id: ioas,
  length,
  dst_iova: iova,
  src_iova: iova,
})
const ranges = made(
  'IOAS_RANGES',
  {
    ioas_id: ioas,
    num_iovas: mostly(pick(0, 1, 2, 8), pick(100)),
    __reserved: zero,
    allowed_iovas: mostly(pick('bits+0'), pick('0x0', 'hole+0', 'bits+0x2ff0')),
  },
  { poke: ['bits+0', '5a'.repeat(96)], look: ['bits+0', 96] },
)
const u64 = (value: bigint): string => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(value)
  return bytes.toString('hex')
}
const edge = mostly(
  page.map((number) => BigInt(number * PAGE)),
  pick(0xfee0_0000n, 0x7f_ffff_ffffn, 0xffff_ffff_ffff_ffffn),
)
const allow = fc
  .record({
    fd: file,
    ioas_id: ioas,
    lie: mostly(pick(0), pick(1, -1)),
    ranges: fc.array(fc.record({ start: edge, length: pick(0x1000n, 0x8000n, 0x10_0000n, 0n) }), {
      maxLength: 3,
    }),
  })
  .map(
    ({ fd, ioas_id, lie, ranges: list }): Op =>
      ioctl(fd, 'IOAS_ALLOW', {
        in: { ioas_id, num_iovas: Math.max(list.length + lie, 0), allowed_iovas: 'bits+0' },
        poke: [
          'bits+0',
          list
            .map(
              ({ start, length: bytes }) =>
                u64(start) + u64(BigInt.asUintN(64, start + bytes - 1n)),
            )
            .join('') + '00'.repeat(32),
        ],
      }),
  )
const option = made('OPTION', {
  option_id: mostly(pick(0, 1, 1), pick(2)),
  op: mostly(pick(0, 1), pick(2)),
  __reserved: zero,
  object_id: mostly(ioas, pick(0)),
  val64: mostly(pick('0x0', '0x1'), pick('0x2')),
})
const vfioIoas = made('VFIO_IOAS', {
  ioas_id: ioas,
  op: mostly(pick(0, 1, 2), pick(3)),
  __reserved: zero,
})
const hwptAlloc = made('HWPT_ALLOC', {
  flags: mostly(pick(0), pick(1, 2, 4, 8)),
  dev_id: id,
  pt_id: ioas,
  __reserved: zero,
  data_type: mostly(pick(0), pick(1, 2)),
  data_len: mostly(pick(0), pick(8)),
  __reserved2: zero,
})
const setDirty = made('SET_DIRTY', {
  flags: mostly(pick(0, 1), pick(2)),
  hwpt_id: id,
  __reserved: zero,
})
const getDirty = made('GET_DIRTY', {
  hwpt_id: id,
  flags: mostly(pick(0, 1), pick(2)),
  __reserved: zero,
  iova,
  length,
  page_size: mostly(pick('0x1000'), pick('0x800', '0x200000')),
  data: pick('bits+0', 'hole+0'),
})
/** What the registers of the IOMMU say is the emulator's; where they fit is the kernel's. */
const hwInfo = made('HW_INFO', {
  flags: zero,
  dev_id: id,
  data_len: pick(0, 8, 24, 32),
  data_uptr: mostly(pick('bits+0'), pick('0x0', 'hole+0')),
  out_max_pasid_log2: pick(0),
})
const unknown = fc
  .record({ fd: file, call: pick('PRECOPY', 'STATUS', 'DEVICE_INFO', 'API_VERSION', 'DIRTY') })
  .map(({ fd, call }): Op => ioctl(fd, call))

const bind = placed(
  fc
    .record({
      fd: dev,
      argsz: argsz(16),
      flags: zero,
      iommufd: mostly(pick('@i0', '@i0', '@i1'), pick('@none', '@shut', '@c0', '@e0')),
    })
    .map(({ fd, ...fields }): IoctlOp => ({ op: 'ioctl', fd, call: 'BIND', in: fields })),
  16,
)
const attach = placed(
  fc
    .record({ fd: dev, argsz: argsz(12), flags: zero, pt_id: mostly(ioas, id) })
    .map(({ fd, ...fields }): IoctlOp => ({ op: 'ioctl', fd, call: 'ATTACH', in: fields })),
  12,
)
const detach = placed(
  fc
    .record({ fd: dev, argsz: argsz(8), flags: zero })
    .map(({ fd, ...fields }): IoctlOp => ({ op: 'ioctl', fd, call: 'DETACH', in: fields })),
  8,
)
const deviceInfo = dev.map((fd): Op => ioctl(fd, 'DEVICE_INFO'))
const cdev = (into: 'd0' | 'd1'): Op => ({
  op: 'open',
  into,
  place: into === 'd0' ? 'edu0' : 'mtty0',
  cdev: true,
})
const openDevice = dev.map(cdev)
const openGroup = fc
  .record({ place: pick('edu0', 'edu1', 'mtty0'), into: pick('g0', 'g1') })
  .map(({ place, into }): Op => open(into, place))
const openFile = pick<Op>(open('i0', 'iommufd'), open('i1', 'iommufd'))
const close = pick('d0', 'd1', 'g0', 'g1', 'i1').map((fd): Op => ({ op: 'close', fd }))

const compat = fc.oneof(
  pick('g0', 'g1').map((g): Op => ioctl(g, 'SET_CONTAINER', { in: { fd: '@i0' } })),
  pick('g0', 'g1').map((g): Op => ioctl(g, 'UNSET_CONTAINER')),
  pick('g0', 'g1').map((g): Op => ioctl(g, 'STATUS')),
  pick('edu0', 'edu1', 'mtty0').map((place): Op => ({ op: 'device', fd: 'g1', place, into: 'd2' })),
  fc
    .record({ fd: file, value: mostly(pick(1, 3), pick(0, 2, 6, 8, 9)) })
    .map(({ fd, value }): Op => ({ op: 'value', fd, call: 'SET_IOMMU', value })),
  fc
    .record({ fd: file, value: fc.integer({ min: 0, max: 11 }) })
    .map(({ fd, value }): Op => ({ op: 'value', fd, call: 'CHECK_EXTENSION', value })),
  fc
    .record({
      fd: file,
      argsz: mostly(argsz(32), argsz(31)),
      flags: mostly(pick(3), pick(0, 1, 2, 4, 8)),
      vaddr: address,
      iova,
      size: length,
    })
    .map(({ fd, ...fields }): Op => ioctl(fd, 'MAP', { in: fields })),
  fc
    .record({
      fd: file,
      argsz: argsz(24),
      flags: mostly(pick(0), pick(1, 2, 4, 8)),
      iova,
      size: length,
    })
    .map(({ fd, ...fields }): Op => ioctl(fd, 'UNMAP', { in: fields })),
  fc
    .record({ fd: file, argsz: pick(15, 16, 24, 32, 56, 80, 100, 104, 120, 4096) })
    .map(({ fd, ...fields }): Op => ioctl(fd, 'INFO', { in: fields })),
)

const op = oneOf(
  [4, alloc],
  [4, destroy],
  [22, map],
  [12, unmap],
  [1, unmapAll],
  [8, copy],
  [5, ranges],
  [4, allow],
  [4, option],
  [3, vfioIoas],
  [5, hwptAlloc],
  [2, setDirty],
  [2, getDirty],
  [2, hwInfo],
  [1, unknown],
  [6, bind],
  [7, attach],
  [4, detach],
  [2, deviceInfo],
  [3, openDevice],
  [3, openGroup],
  [1, openFile],
  [3, close],
  [12, compat],
) satisfies fc.Arbitrary<Step>

const allocated: readonly Op[] = [open('i0', 'iommufd'), ioctl('i0', 'IOAS_ALLOC')]
const bound = (fd: 'd0' | 'd1'): readonly Op[] => [
  cdev(fd),
  ioctl(fd, 'BIND', { in: { iommufd: '@i0' } }),
]
const starts: readonly (readonly Op[])[] = [
  allocated,
  [...allocated, ...bound('d0'), ioctl('d0', 'ATTACH', { in: { pt_id: 1 } })],
  [...allocated, ...bound('d1'), ioctl('d1', 'ATTACH', { in: { pt_id: 1 } })],
  [...allocated, ...bound('d0'), ...bound('d1'), ioctl('i0', 'IOAS_ALLOC')],
  [
    open('i0', 'iommufd'),
    open('g1', 'edu1'),
    ioctl('g1', 'SET_CONTAINER', { in: { fd: '@i0' } }),
    { op: 'value', fd: 'i0', call: 'SET_IOMMU', value: 3 },
    { op: 'device', fd: 'g1', place: 'edu1', into: 'd2' },
  ],
]

const SLOTS = ['i0', 'i1', 'd0', 'd1', 'd2', 'g0', 'g1'] as const

export const iommufd: Area = {
  name: 'iommufd',
  sequence: sequencesOf(starts, op, SLOTS, pick(null, null, 16, 40)),
}
