/** How groups, containers and devices come and go. */

import {
  bySecond,
  device,
  ioctl,
  join,
  kill,
  open,
  setContainer,
  setIommu,
  spawn,
} from '../areas/area.ts'
import { close, type Directed, extensions, info, locked, map, v2 } from './steps.ts'

export const group: readonly Directed[] = [
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
  {
    title: 'a group has one file in all processes, until the last fd of it is gone',
    ops: [
      ...[...v2, spawn('g0'), bySecond(open('g1', 'edu0')), close('g0'), open('g0', 'edu0')],
      ...[bySecond(ioctl('g0', 'STATUS')), bySecond(device('g0', 'edu0', 'd0')), close('c0')],
      ...[bySecond({ op: 'send', fd: 'd0', into: 'd1' }), bySecond(close('g0'))],
      ...[open('g0', 'edu0'), ioctl('d1', 'DEVICE_INFO'), kill, open('g0', 'edu0')],
      ...[ioctl('d1', 'DEVICE_INFO'), close('d1'), open('g0', 'edu0'), ioctl('g0', 'STATUS')],
    ],
  },
  {
    title: 'a process that is killed leaves its groups, its containers and its devices',
    ops: [
      ...[spawn(), ...v2.map(bySecond), bySecond(device('g0', 'edu0', 'd0'))],
      ...[bySecond(map(0x0, 4)), bySecond(locked), open('g0', 'edu0'), kill, open('g0', 'edu0')],
      ...[ioctl('g0', 'STATUS'), open('c0', 'container'), setContainer('g0', 'c0'), locked],
      ...[spawn('c0', 'g0'), bySecond(ioctl('g0', 'UNSET_CONTAINER')), ioctl('g0', 'STATUS')],
      ...[bySecond(setContainer('g0', 'c0')), bySecond(setIommu('c0', 3)), info(24), kill],
      ...[map(0x0, 1), info(24), bySecond(locked), kill],
    ],
  },
]
