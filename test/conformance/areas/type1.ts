/** type1: mapping, unmapping, VADDR flags, dirty bitmaps, information, groups that come and go. */

import fc from 'fast-check'
import { CALLS } from '../calls.ts'
import { RAM_PAGES } from '../memory.ts'
import type { IoctlOp, Op } from '../operation.ts'
import {
  type Area,
  argsz,
  device,
  hex,
  ioctl,
  join,
  mostly,
  oneOf,
  open,
  pick,
  placed,
  sequencesOf,
  setContainer,
  setIommu,
} from './area.ts'

const PAGE = 4096

const container = mostly(fc.constant('c0'), fc.constant('c1'))

const page = fc.integer({ min: 0, max: 31 })
const onPage = page.map((number) => hex(number * PAGE))
/** Where ranges begin and end, and next to it. */
const strangeIova = pick(
  '0x1',
  '0x800',
  '0x1001',
  '0xfedff000',
  '0xfee00000',
  '0xfeeff000',
  '0xfef00000',
  '0x7ffffff000',
  '0x8000000000',
  '0xfffffffffffff000',
  '0xffffffffffffe000',
  '0x7ffffffffffff000',
)
const iova = mostly(onPage, strangeIova)

const count = fc.integer({ min: 1, max: 8 }).map((pages) => hex(pages * PAGE))
const size = mostly(
  count,
  pick('0x0', '0x1', '0x800', '0x1001', '0x40000', '0x1000000000000', '0xfffffffffffff000'),
)

const strangeVaddr = pick(
  'ro+0',
  'ro+0x1000',
  'hole+0',
  'ram+0x1',
  'ram+0x800',
  'other+0x1000',
  `ram+${hex((RAM_PAGES - 1) * PAGE)}`,
  '0x0',
  '0xfffffffffffff000',
  '0x7ffffffff000',
)
const vaddr = mostly(
  page.map((number) => `ram+${hex(number * PAGE)}`),
  strangeVaddr,
)

const map = placed(
  fc
    .record({
      fd: container,
      argsz: argsz(CALLS.MAP.size),
      flags: fc.oneof(
        { weight: 16, arbitrary: fc.constant(3) },
        { weight: 3, arbitrary: pick(1, 2) },
        { weight: 4, arbitrary: fc.constant(4) },
        { weight: 1, arbitrary: pick(0, 5, 7, 8, 11, 0x8000_0003) },
      ),
      vaddr,
      iova,
      size,
    })
    .map(({ fd, ...fields }): IoctlOp => ({ op: 'ioctl', fd, call: 'MAP', in: fields })),
  CALLS.MAP.size,
)

/** A mapping whose vaddr was taken away gets one again: the exact range, as a client would. */
const remap = fc
  .record({ fd: container, vaddr, iova: onPage, size: count })
  .map(({ fd, ...fields }): Op => ioctl(fd, 'MAP', { in: { flags: 4, ...fields } }))

const unmap = placed(
  fc
    .record({
      fd: container,
      argsz: argsz(CALLS.UNMAP.size),
      flags: fc.oneof(
        { weight: 12, arbitrary: fc.constant(0) },
        { weight: 4, arbitrary: fc.constant(4) },
        { weight: 1, arbitrary: pick(1, 3, 5, 7, 8, 0x8000_0000) },
      ),
      iova,
      size,
    })
    .map(({ fd, ...fields }): IoctlOp => ({ op: 'ioctl', fd, call: 'UNMAP', in: fields })),
  CALLS.UNMAP.size,
)

const unmapAll = fc
  .record({ fd: container, flags: pick(2, 2, 6), iova: mostly(fc.constant('0x0'), onPage) })
  .chain(({ fd, flags, iova: at }) =>
    mostly(fc.constant('0x0'), count).map(
      (bytes): Op => ioctl(fd, 'UNMAP', { in: { flags, iova: at, size: bytes } }),
    ),
  )

const bitmap = {
  pgsize: mostly(fc.constant('0x1000'), pick('0x2000', '0x800', '0x200000', '0x3000')),
  bytes: mostly(pick('0x8', '0x10'), pick('0x0', '0x4', '0x10000000', '0x10000001', '0x20')),
  data: mostly(
    pick('bits+0', 'bits+0', 'bits+8', 'bits+4'),
    pick('0x0', 'hole+0', 'bits+0x2ff8', 'bits+0x2ffc', '0x7fffffffe000', '0xfffffffffffff000'),
  ),
  fill: pick('00', '00', 'ff', 'a5'),
}
const around = fc.record(bitmap)
const watch = (fill: string): Partial<IoctlOp> => ({
  poke: ['bits+0', fill.repeat(48)],
  look: ['bits+0', 48],
})

const unmapDirty = placed(
  fc.record({ fd: container, argsz: argsz(48), iova, size, bitmap: around }).map(
    ({ fd, bitmap: { pgsize, bytes, data, fill }, ...fields }): IoctlOp => ({
      op: 'ioctl',
      fd,
      call: 'UNMAP_DIRTY',
      in: { ...fields, flags: 1, pgsize, 'vfio_bitmap.size': bytes, data },
      ...watch(fill),
    }),
  ),
  CALLS.UNMAP_DIRTY.size,
)

const dirtyGet = placed(
  fc.record({ fd: container, argsz: argsz(48), iova, size, bitmap: around }).map(
    ({ fd, bitmap: { pgsize, bytes, data, fill }, ...fields }): IoctlOp => ({
      op: 'ioctl',
      fd,
      call: 'DIRTY_GET',
      in: {
        ...fields,
        flags: 4,
        'bitmap.pgsize': pgsize,
        'bitmap.size': bytes,
        'bitmap.data': data,
      },
      ...watch(fill),
    }),
  ),
  CALLS.DIRTY_GET.size,
)

const dirty = placed(
  fc
    .record({
      fd: container,
      argsz: argsz(8),
      flags: fc.oneof(
        { weight: 8, arbitrary: fc.constant(1) },
        { weight: 2, arbitrary: fc.constant(2) },
        { weight: 1, arbitrary: pick(0, 3, 4, 5, 8, 0x8000_0001) },
      ),
    })
    .map(({ fd, ...fields }): IoctlOp => ({ op: 'ioctl', fd, call: 'DIRTY', in: fields })),
  CALLS.DIRTY.size,
)

const info = placed(
  fc
    .record({
      fd: container,
      argsz: mostly(
        pick(24, 120, 4096),
        pick(0, 15, 16, 20, 23, 25, 56, 72, 80, 100, 104, 119, 121),
      ),
      flags: pick(0, 0xff),
    })
    .map(({ fd, ...fields }): IoctlOp => ({ op: 'ioctl', fd, call: 'INFO', in: fields })),
  120,
)

const extension = fc
  .record({ fd: container, value: fc.integer({ min: -1, max: 12 }) })
  .map(({ fd, value }): Op => ({ op: 'value', fd, call: 'CHECK_EXTENSION', value }))

const group = pick('g0', 'g1', 'g2')
const PLACE = { g0: 'edu0', g1: 'edu1', g2: 'mtty0' } as const

const membership = fc.oneof(
  fc.record({ g: group, c: container }).map(({ g, c }): Op => setContainer(g, c)),
  group.map((g): Op => ioctl(g, 'UNSET_CONTAINER')),
  group.map((g): Op => open(g, PLACE[g])),
  fc
    .record({ fd: container, model: pick(3, 3, 3, 1, 6) })
    .map(({ fd, model }): Op => setIommu(fd, model)),
  group.map((fd): Op => ({ op: 'close', fd })),
  group.map((g): Op => device(g, PLACE[g], `d${g.slice(1)}`)),
  group.map((g): Op => ({ op: 'close', fd: `d${g.slice(1)}` })),
  pick<Op>(open('c0', 'container'), open('c1', 'container'), { op: 'dup', fd: 'c0', into: 'c1' }),
)

const unknown = fc
  .record({ fd: container, call: pick('ENABLE', 'PRECOPY', 'STATUS', 'API_VERSION') })
  .map(({ fd, call }): Op => ioctl(fd, call))

const locked: Op = { op: 'locked' }
const start: Op = ioctl('c0', 'DIRTY', { in: { flags: 1 } })

const starts: readonly (readonly Op[])[] = [
  [open('c0', 'container'), ...join('g0', 'edu0', 'c0', 3)],
  [open('c0', 'container'), ...join('g0', 'edu0', 'c0', 3), start],
  [open('c0', 'container'), ...join('g0', 'edu0', 'c0', 1)],
  [open('c0', 'container'), ...join('g2', 'mtty0', 'c0', 3)],
  [open('c0', 'container'), ...join('g2', 'mtty0', 'c0'), setIommu('c0', 6)],
  [open('c0', 'container'), ...join('g2', 'mtty0', 'c0', 3), start],
  [open('c0', 'container'), ...join('g0', 'edu0', 'c0', 3), ...join('g2', 'mtty0', 'c0')],
  [open('c0', 'container'), ...join('g2', 'mtty0', 'c0', 3), ...join('g1', 'edu1', 'c0')],
  [
    open('c0', 'container'),
    ...join('g0', 'edu0', 'c0', 3),
    open('c1', 'container'),
    ...join('g1', 'edu1', 'c1', 3),
  ],
]

const op = oneOf(
  [30, map],
  [5, remap],
  [16, unmap],
  [4, unmapAll],
  [6, unmapDirty],
  [8, dirtyGet],
  [5, dirty],
  [5, info],
  [2, extension],
  [5, membership],
  [1, unknown],
  [4, fc.constant(locked)],
)

const SLOTS = ['c0', 'c1', 'g0', 'g1', 'g2', 'd0', 'd1', 'd2'] as const

export const type1: Area = {
  name: 'type1',
  sequence: sequencesOf(starts, op, SLOTS, pick(null, null, null, 16, 40)),
}
