/** INTx, MSI and MSI-X as they arrive. */

import { device, ioctl, join, open } from '../areas/area.ts'
import { eduScene, writeBar } from '../areas/scene.ts'
import type { Op } from '../operation.ts'
import { type Directed, enable } from './steps.ts'

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
const signal = (fd: string): Op => ({ op: 'signal', fd })
const ioeventfd = (offset: string, data: string, fd: string, flags = 4, at = 'd0'): Op =>
  ioctl(at, 'IOEVENTFD', { in: { flags, offset, data, fd } })
const liveness: Op = { op: 'pread', fd: 'd0', region: 0, at: 4, length: 4 }
const source: Op = { op: 'pread', fd: 'd0', region: 0, at: 0x80, length: 8 }

export const irq: readonly Directed[] = [
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
  {
    title: 'an ioeventfd writes when it is signalled, until it is removed',
    ops: [
      ...[...eduScene, ioeventfd('0x4', '0x12345678', '@e0'), signal('e0'), liveness, count('e0')],
      ...[ioeventfd('0x4', '0x1', '@e1'), ioeventfd('0x4', '0x1', '@e0')],
      ...[ioeventfd('0x4', '0x2', '@e1'), ioeventfd('0x80', '0x1122334455667788', '@e1', 8)],
      ...[signal('e1'), liveness, source, signal('e0'), liveness],
      ...[ioeventfd('0x4', '0x12345678', '@none'), ioeventfd('0x4', '0x12345678', '@none')],
      ...[signal('e0'), liveness, count('e0'), ioeventfd('0x4', '0x3', '@c0')],
      ...[ioeventfd('0x4', '0x3', '@shut'), ioeventfd('0x4', '0x1', '@shut')],
    ],
  },
  {
    title: 'an ioeventfd is for the BARs, outside the table of MSI-X',
    ops: [
      ...[open('c0', 'container'), ...join('g0', 'card0', 'c0', 3), device('g0', 'card0', 'd0')],
      ...['0x30000000000', '0x3000000004c', '0x3000000004e', '0x30000000050'].map((at) =>
        ioeventfd(at, '0x1', '@e0'),
      ),
      ...['0x20000000000', '0x2000000001d', '0x40000000000', '0x70000000000'].map((at) =>
        ioeventfd(at, '0x1', '@e1'),
      ),
      ...[0, 3, 16].map((flags) => ioeventfd('0x20000000000', '0x1', '@e1', flags)),
    ],
  },
]
