/** Mapping and unmapping, information, dirty pages, limits, and DMA through it all. */

import { bySecond, hex, join, kill, open, setContainer, spawn } from '../areas/area.ts'
import { eduScene } from '../areas/scene.ts'
import type { Op } from '../operation.ts'
import {
  close,
  type Directed,
  dirty,
  dirtyGet,
  emulated,
  enable,
  extensions,
  info,
  locked,
  map,
  PAGE,
  unmap,
  unmapAll,
  unmapDirty,
  v1,
  v2,
} from './steps.ts'

const dma = (toMemory: boolean, iova: number, length = 16, offset = 0): Op => ({
  op: 'dma',
  fd: 'd0',
  toMemory,
  iova: hex(iova),
  offset,
  length,
})

const bothLocked = [locked, bySecond(locked)]
/** A mapping in the other container of the first process. */
const onOther = (iova: number, pages: number): Op => ({ ...map(iova, pages), fd: 'c1' }) as Op

export const type1: readonly Directed[] = [
  {
    title: 'mapping refuses what overlaps, by a page on either side, and takes what only touches',
    ops: [
      ...v2,
      map(0x4000, 4),
      ...[map(0x4000, 4), map(0x3000, 2), map(0x7000, 2), map(0x5000, 1), map(0x2000, 8)],
      ...[map(0x3000, 1), map(0x8000, 1), locked, unmap(0x3000, 6), locked],
    ],
  },
  {
    title: 'the ranges of the IOMMU end where GET_INFO says',
    ops: [
      ...[...v2, info(4096)],
      ...[map(0xfedff000, 1), map(0xfedff000, 2), map(0xfee00000, 1), map(0xfeeff000, 2)],
      ...[map(0xfef00000, 1), map(0x7ffffff000, 1), map(0x7ffffff000, 2), map(0x8000000000, 1)],
      ...[info(120), unmapAll(2), info(120)],
    ],
  },
  {
    title: 'every argsz of GET_INFO',
    ops: [...v2, ...Array.from({ length: 29 }, (_, at) => info(12 + at * 4)), info(23), info(119)],
  },
  {
    title: 'v2 unmaps whole mappings only',
    ops: [
      ...[...v2, map(0x0, 4), map(0x8000, 2)],
      ...[unmap(0x0, 2), unmap(0x1000, 2), unmap(0x2000, 4), unmap(0x4000, 5), unmap(0x4000, 4)],
      ...[unmap(0x0, 32), unmap(0x0, 32), unmapAll(2)],
    ],
  },
  {
    title: 'v1 takes what begins inside, and nothing when the range begins inside a mapping',
    ops: [
      ...[...v1, map(0x0, 4), map(0x8000, 2), unmap(0x1000, 1), unmap(0x2000, 8)],
      ...[unmap(0x0, 1), unmap(0x8000, 1), map(0x0, 4), unmap(0x1000, 1, { flags: 4 }), dirty(1)],
    ],
  },
  {
    title: 'a vaddr is taken away and given back',
    ops: [
      ...[...v2, map(0x0, 2), map(0x4000, 2), unmap(0x0, 2, { flags: 4 }), unmapAll(6)],
      ...[open('g1', 'edu1'), setContainer('g1', 'c0'), map(0x0, 2, { flags: 4 })],
      ...[map(0x0, 2, { flags: 4 }), unmapAll(6), map(0x0, 1, { flags: 4 })],
      ...[map(0x4000, 2, { flags: 4 }), map(0x8000, 1, { flags: 4 }), map(0x8000, 1)],
      ...[unmap(0x0, 2), setContainer('g1', 'c0'), locked, unmapAll(2), locked],
    ],
  },
  {
    title: 'UPDATE_VADDR ends where a mediated device begins',
    ops: [
      ...[...v2, ...extensions, map(0x0, 1), ...join('g2', 'mtty0', 'c0'), ...extensions],
      ...[
        unmap(0x0, 1, { flags: 4 }),
        unmapAll(6),
        close('g2'),
        unmapAll(6),
        map(0x0, 1, { flags: 4 }),
      ],
    ],
  },
  {
    title: 'dirty pages of a physical group are all of them, each time',
    ops: [
      ...[...v2, dirty(1), dirty(1), map(0x1000, 3), map(0x9000, 12), dirtyGet(0x0, 32)],
      ...[dirtyGet(0x0, 32), dirtyGet(0x1000, 32), dirtyGet(0x2000, 8), dirtyGet(0x0, 10)],
      ...[dirtyGet(0x0, 4, 'a5'), unmapDirty(0x0, 32), dirty(2), dirty(2), dirtyGet(0x0, 32)],
    ],
  },
  {
    title: 'dirty pages of a mediated device that never pins are none',
    ops: [
      ...[
        ...emulated,
        info(4096),
        map(0x1000, 3),
        dirty(1),
        map(0x9000, 12),
        dirtyGet(0x0, 32, 'ff'),
      ],
      ...[...join('g1', 'edu1', 'c0'), locked, dirtyGet(0x0, 32), close('g1'), locked],
      ...[dirtyGet(0x0, 32), dirtyGet(0x0, 32), unmapDirty(0x0, 32)],
    ],
  },
  {
    title: 'a physical group pins what a mediated device left unchecked',
    ops: [
      ...[...emulated, map(0x0, 1, { vaddr: 'hole+0' }), ...join('g1', 'edu1', 'c0'), unmapAll(2)],
      ...[map(0xfee00000, 1), setContainer('g1', 'c0'), unmapAll(2), map(0x100000000000, 1)],
      ...[setContainer('g1', 'c0'), unmapAll(2), setContainer('g1', 'c0'), info(4096)],
    ],
  },
  {
    title: 'RLIMIT_MEMLOCK counts every mapping of a page',
    lockPages: 16,
    ops: [
      ...[...v2, map(0x0, 8), map(0x10000, 8), locked, map(0x20000, 1), unmap(0x0, 8), locked],
      ...[map(0x20000, 9), map(0x20000, 8), locked, unmapAll(2), map(0x0, 17), map(0x0, 16)],
    ],
  },
  {
    title: 'memory that is not there, or not to be written, is refused and leaves nothing',
    ops: [
      ...[...v2, map(0x0, 1, { vaddr: 'hole+0' }), map(0x0, 1, { vaddr: 'ro+0' })],
      ...[
        map(0x0, 1, { vaddr: 'ro+0', flags: 1 }),
        map(0x1000, 2, { vaddr: `ram+${hex(47 * PAGE)}` }),
      ],
      ...[unmapAll(2), locked],
    ],
  },
  {
    title: 'edu reads and writes what is mapped for it, once it may master the bus',
    ops: [
      ...[...eduScene, map(0x0, 1), map(0x4000, 1, { flags: 1 }), dma(false, 0x0)],
      ...[dma(true, 0x0), enable, dma(false, 0x0), dma(true, 0x0, 16, 0), dma(true, 0x4000)],
      ...[dma(true, 0x8000), dma(false, 0x4000, 64, 128), dma(true, 0x0, 80, 120)],
    ],
  },
  {
    title: 'DMA goes on while the vaddr is away, and the group outlives its fd',
    ops: [
      ...[...eduScene, map(0x0, 2), enable, dma(false, 0x1000), unmapAll(6), dma(true, 0x0)],
      ...[close('g0'), close('c0'), dma(true, 0x100), open('g1', 'edu0'), close('d0')],
      ...[locked, open('g1', 'edu0')],
    ],
  },
  {
    title: 'VmLck is that of whoever mapped, and either process unmaps what the other did',
    ops: [
      ...[...v2, spawn('c0'), map(0x0, 2), bySecond(map(0x8000, 3)), ...bothLocked],
      ...[bySecond(map(0x0, 2)), bySecond(unmap(0x0, 2)), ...bothLocked],
      ...[unmap(0x8000, 3), ...bothLocked, bySecond(unmapDirty(0x0, 32))],
    ],
  },
  {
    title: 'memory of the other process is not there',
    ops: [
      ...[...v2, spawn('c0'), map(0x0, 1, { vaddr: 'other+0' })],
      ...[bySecond(map(0x0, 1, { vaddr: 'other+0' })), unmapAll(2), ...bothLocked],
    ],
  },
  {
    title: 'each process has its own RLIMIT_MEMLOCK',
    lockPages: 16,
    ops: [
      ...[...v2, spawn('c0'), map(0x0, 16), map(0x10000, 1), bySecond(map(0x20000, 16))],
      ...[bySecond(map(0x30000, 1)), ...bothLocked, bySecond(unmap(0x0, 16)), ...bothLocked],
      ...[bySecond(map(0x30000, 1)), map(0x30000, 1), kill, unmap(0x20000, 16), locked],
    ],
  },
  {
    title: 'whoever gives a vaddr becomes the owner, and is charged first',
    lockPages: 16,
    ops: [
      ...[...v2, spawn('c0'), map(0x0, 8), unmap(0x0, 8, { flags: 4 }), ...bothLocked],
      ...[bySecond(map(0x10000, 12)), bySecond(map(0x0, 8, { flags: 4 })), ...bothLocked],
      ...[bySecond(unmap(0x10000, 12)), bySecond(map(0x0, 8, { flags: 4 })), ...bothLocked],
      ...[map(0x0, 8, { flags: 4 }), bySecond(unmapAll(6)), kill, map(0x0, 8, { flags: 4 })],
      ...[locked, unmapAll(2), locked],
    ],
  },
  {
    title: 'DMA reaches the memory of whoever mapped, also of who is gone',
    ops: [
      ...[...eduScene, enable, spawn('c0', 'd0'), bySecond(map(0x0, 1)), map(0x4000, 1)],
      ...[
        dma(false, 0x4000),
        dma(true, 0x0),
        bySecond(dma(false, 0x0)),
        bySecond(dma(true, 0x4000)),
      ],
      ...[unmapAll(6), bySecond(map(0x4000, 1, { flags: 4 })), dma(true, 0x4010)],
      ...[map(0x0, 1, { flags: 4 }), kill, dma(false, 0x0), dma(true, 0x4000), locked],
    ],
  },
  {
    title: 'a mapping outlives the process that made it',
    ops: [
      ...[...v2, spawn('c0'), bySecond(map(0x0, 2)), bySecond(map(0x8000, 1)), kill, locked],
      ...[map(0x0, 1), dirty(1), dirtyGet(0x0, 32), unmap(0x0, 2), spawn('c0')],
      ...[bySecond(unmap(0x8000, 1)), bySecond(unmapAll(2)), ...bothLocked],
    ],
  },
  {
    title: 'a physical group pins pages of the process that adds it, not of the one that mapped',
    ops: [
      ...[...emulated, spawn('c0', 'g2'), map(0x0, 2), open('g0', 'edu0')],
      ...[{ op: 'send', fd: 'g0', into: 'g0' } as const, bySecond(setContainer('g0', 'c0'))],
      ...[...bothLocked, unmapAll(2), bySecond(map(0x0, 2)), setContainer('g0', 'c0')],
      ...[map(0x8000, 1), setContainer('g0', 'c0'), bySecond(setContainer('g0', 'c0'))],
      ...[unmap(0x8000, 1), bySecond(setContainer('g0', 'c0')), ...bothLocked],
      ...[kill, close('g0'), locked, open('g0', 'edu0'), setContainer('g0', 'c0')],
    ],
  },
  {
    title: 'a physical group meets the limit of the process that adds it',
    lockPages: 16,
    ops: [
      ...[...emulated, spawn('c0'), open('c1', 'container'), ...join('g0', 'edu0', 'c1', 3)],
      ...[
        map(0x0, 12),
        ...[0, 1].map((at) => onOther(at * 0x10000, 6)),
        ...join('g1', 'edu1', 'c0'),
      ],
      ...[locked, unmap(0x0, 12), map(0x0, 4), setContainer('g1', 'c0'), locked],
    ],
  },
]
