/** The whole matrix of states, and streams that go right and wrong. */

import { device, ioctl } from '../areas/area.ts'
import {
  FEATURE_GET,
  mttyScene,
  RESUMING,
  RUNNING,
  STOP,
  setState,
  writeBar,
} from '../areas/scene.ts'
import type { Op } from '../operation.ts'
import { close, type Directed } from './steps.ts'

const STATES = [1, 2, 3, 4, 5, 6, 7]
const getState = ioctl('d0', 'MIG_STATE', { in: { flags: FEATURE_GET | 2, data_fd: -9 } })
const read = (fd: string, length: number): Op => ({ op: 'read', fd, length })
const precopy = (fd: string): Op => ioctl(fd, 'PRECOPY')

export const migration: readonly Directed[] = [
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
