/** Devices as they are when nobody had them before: mtty and edu keep what earlier clients did. */

import type { Op, Place, Slot } from '../operation.ts'
import { device, ioctl, join, open } from './area.ts'

export const FEATURE_GET = 0x1_0000
export const FEATURE_SET = 0x2_0000
export const FEATURE_PROBE = 0x4_0000
export const MIG_STATE_SET = FEATURE_SET | 2
export const RUNNING = 2
export const STOP = 1
export const RESUMING = 4

const PORT = `${'00'.repeat(33)}10${'00'.repeat(2)}`
const headerOf = (ports: number): string =>
  `4e2c3e8c89099d7e0100000000000000${ports.toString(16).padStart(2, '0')}00000000000000`

/** The migration stream of an mtty device that nobody has used. */
export const pristineStream = (ports: number): string => headerOf(ports) + PORT.repeat(ports)

export const setState = (fd: Slot, state: number, into: Slot): Op =>
  ioctl(fd, 'MIG_STATE', { in: { flags: MIG_STATE_SET, device_state: state }, into })

const zeroConfig = (fd: Slot, at: number, hex: string): Op => ({
  op: 'pwrite',
  fd,
  region: 7,
  at,
  hex,
})

/** Opens an mtty device and makes it as new, by having it resume from what a new one is. */
export const freshMtty = (group: Slot, place: Place, fd: Slot, ports: number): readonly Op[] => [
  device(group, place, fd),
  ioctl(fd, 'DEVICE_INFO'),
  ioctl(fd, 'RESET'),
  setState(fd, RESUMING, 'f9'),
  { op: 'write', fd: 'f9', hex: pristineStream(ports) },
  setState(fd, RUNNING, 'f9'),
  { op: 'close', fd: 'f9' },
  zeroConfig(fd, 0x10, '00000000'),
  zeroConfig(fd, 0x14, '00000000'),
  zeroConfig(fd, 0x3c, '00'),
]

/** A container with the mtty device in it. */
export const mttyScene = (
  index: number,
  place: Place,
  ports: number,
  first: boolean,
): readonly Op[] => [
  ...(first ? [open('c0', 'container')] : []),
  ...join(`g${index}`, place, 'c0', first ? 3 : undefined),
  ...freshMtty(`g${index}`, place, `d${index}`, ports),
]

export const writeBar = (fd: Slot, at: number, hex: string): Op => ({
  op: 'pwrite',
  fd,
  region: 0,
  at,
  hex,
})

/** Interrupts acknowledged and the registers that can be written at what they begin with. */
export const freshEdu = (group: Slot, place: Place, fd: Slot): readonly Op[] => [
  device(group, place, fd),
  // Where firmware put the BAR is its own affair.
  { op: 'pwrite', fd, region: 7, at: 0x10, hex: 'ffffffff' },
  writeBar(fd, 0x64, 'ffffffff'),
  writeBar(fd, 0x04, 'ffffffff'),
  writeBar(fd, 0x20, '00000000'),
  writeBar(fd, 0x08, '00000000'),
  writeBar(fd, 0x80, '0000000000000000'),
  writeBar(fd, 0x88, '0000000000000000'),
  writeBar(fd, 0x90, '0000000000000000'),
]

export const eduScene: readonly Op[] = [
  open('c0', 'container'),
  ...join('g0', 'edu0', 'c0', 3),
  ...freshEdu('g0', 'edu0', 'd0'),
]

/** Two e1000e of one group, both open. */
export const cardScene = (group: Slot): readonly Op[] => [
  open('c0', 'container'),
  ...join(group, 'card0', 'c0', 3),
  device(group, 'card0', 'd0'),
  device(group, 'card1', 'd1'),
]
