/** Sequences that someone wrote, each for a rule; they are recorded with the random ones. */

import { device, hex, ioctl, join, open, setContainer, setIommu } from './areas/area.ts'
import {
  eduScene,
  FEATURE_GET,
  mttyScene,
  RESUMING,
  RUNNING,
  STOP,
  setState,
  writeBar,
} from './areas/scene.ts'
import type { Op } from './operation.ts'

export interface Directed {
  readonly title: string
  readonly ops: readonly Op[]
  readonly lockPages?: number
}

const PAGE = 4096
const v2: readonly Op[] = [open('c0', 'container'), ...join('g0', 'edu0', 'c0', 3)]
const v1: readonly Op[] = [open('c0', 'container'), ...join('g0', 'edu0', 'c0', 1)]
const emulated: readonly Op[] = [open('c0', 'container'), ...join('g2', 'mtty0', 'c0', 3)]

const map = (iova: number, pages: number, more: Record<string, string | number> = {}): Op =>
  ioctl('c0', 'MAP', {
    in: {
      flags: 3,
      vaddr: `ram+${hex(iova % 0x10000)}`,
      iova: hex(iova),
      size: hex(pages * PAGE),
      ...more,
    },
  })
const unmap = (iova: number, pages: number, more: Record<string, string | number> = {}): Op =>
  ioctl('c0', 'UNMAP', { in: { flags: 0, iova: hex(iova), size: hex(pages * PAGE), ...more } })
const unmapAll = (flags: number): Op =>
  ioctl('c0', 'UNMAP', { in: { flags, iova: '0x0', size: '0x0' } })
const info = (argsz: number): Op => ioctl('c0', 'INFO', { in: { argsz } })
const dirty = (flags: number): Op => ioctl('c0', 'DIRTY', { in: { flags } })
const dirtyGet = (iova: number, pages: number, fill = '00'): Op =>
  ioctl('c0', 'DIRTY_GET', {
    in: {
      flags: 4,
      iova: hex(iova),
      size: hex(pages * PAGE),
      'bitmap.pgsize': '0x1000',
      'bitmap.size': '0x20',
      'bitmap.data': 'bits+0',
    },
    poke: ['bits+0', fill.repeat(48)],
    look: ['bits+0', 48],
  })
const unmapDirty = (iova: number, pages: number): Op =>
  ioctl('c0', 'UNMAP_DIRTY', {
    in: {
      flags: 1,
      iova: hex(iova),
      size: hex(pages * PAGE),
      pgsize: '0x1000',
      'vfio_bitmap.size': '0x20',
      data: 'bits+0',
    },
    poke: ['bits+0', '00'.repeat(48)],
    look: ['bits+0', 48],
  })
const locked: Op = { op: 'locked' }
const close = (fd: string): Op => ({ op: 'close', fd })
const extension = (value: number): Op => ({ op: 'value', fd: 'c0', call: 'CHECK_EXTENSION', value })
const extensions = Array.from({ length: 12 }, (_, value) => extension(value))
/** Decoding memory and mastering the bus. */
const enable: Op = { op: 'pwrite', fd: 'd0', region: 7, at: 4, hex: '0600' }
const dma = (toMemory: boolean, iova: number, length = 16, offset = 0): Op => ({
  op: 'dma',
  fd: 'd0',
  toMemory,
  iova: hex(iova),
  offset,
  length,
})

const type1: readonly Directed[] = [
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
]

const group: readonly Directed[] = [
  {
    title: 'a container is empty, has a group, has a backend, and is empty again',
    ops: [
      ...[open('c0', 'container'), info(24), map(0x0, 1), ...extensions, setIommu('c0', 3)],
      ...[open('g0', 'edu0'), ioctl('g0', 'STATUS'), device('g0', 'edu0', 'd0')],
      ...[setContainer('g0', 'c0'), ioctl('g0', 'STATUS'), device('g0', 'edu0', 'd0'), info(24)],
      ...[setIommu('c0', 2), setIommu('c0', 99), setIommu('c0', 9), setIommu('c0', 3)],
      ...[setIommu('c0', 3), ...extensions, map(0x0, 1), ioctl('c0', 'ENABLE')],
      ...[device('g0', 'edu0', 'd0'), ioctl('g0', 'UNSET_CONTAINER'), close('d0')],
      ...[ioctl('g0', 'UNSET_CONTAINER'), ioctl('g0', 'UNSET_CONTAINER'), info(24), locked],
      ...[
        setContainer('g0', 'c0'),
        setIommu('c0', 1),
        map(0x0, 1),
        close('c0'),
        close('g0'),
        locked,
      ],
    ],
  },
  {
    title: 'a group has one file, and is viable when no driver has its devices',
    ops: [
      ...[open('g0', 'edu0'), open('g1', 'edu0'), { op: 'dup', fd: 'g0', into: 'g1' } as const],
      ...[close('g0'), open('g0', 'edu0'), close('g1'), open('g0', 'edu0'), open('g2', 'testdev')],
      ...[open('g4', 'chipset'), ioctl('g4', 'STATUS'), open('c0', 'container')],
      ...[setContainer('g4', 'c0'), ioctl('g4', 'STATUS'), setContainer('g4', 'none')],
      ...[setContainer('g0', 'shut'), setContainer('g0', 'e0'), setContainer('g0', 'g4')],
      ...[setContainer('g0', 'c0'), setContainer('g0', 'c0'), setContainer('g0', 'e0')],
    ],
  },
  {
    title: 'a device holds its group and its container',
    ops: [
      ...[
        ...v2,
        device('g0', 'edu0', 'd0'),
        device('g0', 'edu0', 'd1'),
        device('g0', 'edu1', 'd2'),
      ],
      ...[close('c0'), close('g0'), open('g1', 'edu0'), close('d0'), open('g1', 'edu0')],
      ...[ioctl('d1', 'DEVICE_INFO'), close('d1'), open('g1', 'edu0'), ioctl('g1', 'STATUS')],
    ],
  },
  {
    title: 'two functions share a group and a bus',
    ops: [
      ...[open('c0', 'container'), ...join('g3', 'card0', 'c0', 3), device('g3', 'card0', 'd0')],
      ...[device('g3', 'card1', 'd1'), ioctl('d0', 'HOT_RESET_INFO', { in: { argsz: 12 } })],
      ...[ioctl('d0', 'HOT_RESET_INFO', { in: { argsz: 28 } }), ioctl('d1', 'RESET')],
      ioctl('d0', 'HOT_RESET', { in: { count: 0 } }),
      ioctl('d0', 'HOT_RESET', { in: { count: 1 }, fds: ['@c0'] }),
      ioctl('d0', 'HOT_RESET', { in: { count: 1 }, fds: ['@shut'] }),
      ioctl('d0', 'HOT_RESET', { in: { count: 3 }, fds: ['@g3', '@g3', '@g3'] }),
      ...[open('g0', 'edu0'), ioctl('d0', 'HOT_RESET', { in: { count: 1 }, fds: ['@g0'] })],
      ...[close('d1'), { op: 'exit', order: 3 } as const, open('g3', 'card0')],
    ],
  },
]

const STATES = [1, 2, 3, 4, 5, 6, 7]
const getState = ioctl('d0', 'MIG_STATE', { in: { flags: FEATURE_GET | 2, data_fd: -9 } })
const read = (fd: string, length: number): Op => ({ op: 'read', fd, length })
const precopy = (fd: string): Op => ioctl(fd, 'PRECOPY')

const migration: readonly Directed[] = [
  ...STATES.map(
    (from): Directed => ({
      title: `every state from ${from}`,
      ops: [
        ...mttyScene(0, 'mtty0', 2, true),
        ...[0, ...STATES, 8].flatMap((to) => [
          ...[ioctl('d0', 'RESET'), setState('d0', from, 'f0'), getState],
          ...[setState('d0', to, 'f1'), getState],
        ]),
      ],
    }),
  ),
  {
    title: 'a device is saved into another while it runs',
    ops: [
      ...[...mttyScene(0, 'mtty0', 2, true), ...mttyScene(1, 'mtty1', 2, false)],
      ...[writeBar('d0', 7, '5a'), writeBar('d1', 7, '11'), setState('d0', 6, 'f0'), precopy('f0')],
      ...[read('f0', 7), precopy('f0'), setState('d1', RESUMING, 'f1'), setState('d0', 3, 'f2')],
      ...[precopy('f0'), setState('d1', STOP, 'f2'), read('f0', 200), read('f0', 200)],
      ...[setState('d0', STOP, 'f2'), read('f0', 1), setState('d0', 3, 'f0')],
      ...[7, 30, 59, 1].map((length): Op => ({ op: 'pipe', fd: 'f0', to: 'f1', length })),
      ...[setState('d1', RUNNING, 'f2'), { op: 'write', fd: 'f1', hex: '00' } as const],
      { op: 'pread', fd: 'd1', region: 0, at: 7, length: 1 },
    ],
  },
  {
    title: 'a wrong stream is refused where the header ends, and one too long at once',
    ops: [
      ...[...mttyScene(0, 'mtty0', 2, true), setState('d0', RESUMING, 'f0')],
      ...['ff'.repeat(23), 'ff', 'ff'].map((bytes): Op => ({ op: 'write', fd: 'f0', hex: bytes })),
      ...[read('f0', 1), { op: 'write', fd: 'f0', hex: '00'.repeat(72) } as const],
      ...[setState('d0', STOP, 'f1'), { op: 'write', fd: 'f0', hex: '00'.repeat(71) } as const],
      ...[setState('d0', STOP, 'f1'), { op: 'write', fd: 'f0', hex: '00' } as const, getState],
    ],
  },
  {
    title: 'a device that is opened again is in the state it was left in',
    ops: [
      ...[...mttyScene(0, 'mtty0', 2, true), setState('d0', 6, 'f0'), close('d0'), read('f0', 8)],
      ...[device('g0', 'mtty0', 'd0'), getState, setState('d0', 3, 'f1'), read('f1', 200)],
      ...[ioctl('d0', 'RESET'), getState, read('f1', 1)],
    ],
  },
]

const setIrqs = (
  fd: string,
  index: number,
  flags: number,
  more: { start?: number; count?: number; fds?: readonly string[]; bytes?: readonly number[] } = {},
): Op => {
  const { start = 0, fds, bytes } = more
  const count = more.count ?? fds?.length ?? bytes?.length ?? 0
  return ioctl(fd, 'SET_IRQS', {
    in: { index, start, flags, count },
    ...(fds ? { fds } : {}),
    ...(bytes ? { bytes } : {}),
  })
}
const raise = writeBar('d0', 0x60, '01000000')
const acknowledge = writeBar('d0', 0x64, 'ffffffff')
const count = (fd: string): Op => ({ op: 'count', fd })

const irq: readonly Directed[] = [
  {
    title: 'INTx masks itself, and unmasking lets through what is still there',
    ops: [
      ...[
        ...eduScene,
        setIrqs('d0', 0, 0x24, { fds: ['@e0'] }),
        raise,
        count('e0'),
        raise,
        count('e0'),
      ],
      ...[setIrqs('d0', 0, 0x11, { count: 1 }), count('e0'), acknowledge],
      ...[setIrqs('d0', 0, 0x11, { count: 1 }), count('e0'), raise, count('e0'), acknowledge],
      ...[setIrqs('d0', 0, 0x14, { fds: ['@e3'] }), setIrqs('d0', 0, 0x14, { fds: ['@e3'] })],
      ...[{ op: 'signal', fd: 'e3' } as const, raise, count('e0'), acknowledge],
      ...[setIrqs('d0', 1, 0x24, { fds: ['@e1'] }), setIrqs('d0', 0, 0x21), setIrqs('d0', 0, 0x21)],
    ],
  },
  {
    title: 'MSI comes once for each, from a master of the bus',
    ops: [
      ...[...eduScene, setIrqs('d0', 1, 0x24, { fds: ['@e0'] }), raise, count('e0'), enable],
      ...[raise, raise, count('e0'), setIrqs('d0', 1, 0x22, { bytes: [1] }), count('e0')],
      ...[
        setIrqs('d0', 1, 0x24, { fds: ['@e1', '@e1'] }),
        setIrqs('d0', 1, 0x24, { fds: ['@c0'] }),
      ],
      ...[raise, count('e0'), setIrqs('d0', 0, 0x24, { fds: ['@e0'] }), acknowledge],
      ...[setIrqs('d0', 1, 9, { count: 1 }), setIrqs('d0', 1, 0x21), setIrqs('d0', 1, 0x21)],
    ],
  },
  {
    title: 'MSI-X takes vectors beyond the first ones',
    ops: [
      ...[open('c0', 'container'), ...join('g0', 'card0', 'c0', 3), device('g0', 'card0', 'd0')],
      ...[0, 1, 2, 3, 4].map((index) => ioctl('d0', 'IRQ_INFO', { in: { index } })),
      ...[
        setIrqs('d0', 2, 0x24, { count: 0, fds: [] }),
        setIrqs('d0', 2, 0x24, { fds: ['@e0', '@e1'] }),
      ],
      ...[setIrqs('d0', 2, 0x24, { start: 4, fds: ['@e2'] }), setIrqs('d0', 2, 0x21, { count: 5 })],
      ...[
        count('e0'),
        count('e1'),
        count('e2'),
        setIrqs('d0', 2, 0x24, { start: 1, fds: ['@none', '@c0'] }),
      ],
      ...[setIrqs('d0', 2, 0x22, { bytes: [1, 1, 1] }), count('e0'), count('e1')],
      ...[setIrqs('d0', 2, 0x24, { start: 4, fds: ['@e0', '@e0'] }), setIrqs('d0', 2, 0x21)],
      ...[
        setIrqs('d0', 3, 0x24, { fds: ['@e3'] }),
        setIrqs('d0', 3, 0x21, { count: 1 }),
        count('e3'),
      ],
      ...[setIrqs('d0', 4, 0x24, { fds: ['@e3'] }), setIrqs('d0', 4, 0x21), setIrqs('d0', 4, 0x21)],
    ],
  },
]

export const directed: Readonly<Record<string, readonly Directed[]>> = {
  type1,
  group,
  migration,
  irq,
}
