/** The state machine of migration v2 on mtty: any target from any state, streams, reset, reopen. */

import fc from 'fast-check'
import { CALLS } from '../calls.ts'
import type { IoctlOp, Op } from '../operation.ts'
import { type Area, argsz, device, ioctl, mostly, oneOf, pick, placed, sequenceOf } from './area.ts'
import { FEATURE_GET, FEATURE_SET, mttyScene, pristineStream, setState } from './scene.ts'

const PLACE = { d0: 'mtty0', d1: 'mtty1', d2: 'solo' } as const
const dev = pick('d0', 'd0', 'd1', 'd2')
const data = pick('f0', 'f1', 'f2')
const fileOf = (fd: string): string => `f${fd.slice(1)}`

const set = fc
  .record({ fd: dev, state: mostly(fc.integer({ min: 1, max: 7 }), pick(0, 8, 9, 0xffff_ffff)) })
  .map(({ fd, state }): Op => setState(fd, state, fileOf(fd)))
const setPlaced = placed(
  fc
    .record({
      fd: dev,
      argsz: argsz(16),
      state: fc.integer({ min: 1, max: 7 }),
      flags: pick(0, 0x4_0000),
    })
    .map(
      ({ fd, argsz: size, state, flags }): IoctlOp => ({
        op: 'ioctl',
        fd,
        call: 'MIG_STATE',
        in: { argsz: size, flags: flags | FEATURE_SET | 2, device_state: state, data_fd: -1 },
        into: fileOf(fd),
      }),
    ),
  16,
)
const get = dev.map((fd): Op => ioctl(fd, 'MIG_STATE', { in: { flags: FEATURE_GET | 2 } }))
const flags = dev.map((fd): Op => ioctl(fd, 'MIGRATION', { in: { flags: FEATURE_GET | 1 } }))
const size = dev.map((fd): Op => ioctl(fd, 'MIG_SIZE', { in: { flags: FEATURE_GET | 9 } }))
const precopy = placed(
  fc
    .record({ fd: mostly(data, dev), argsz: argsz(24), flags: pick(0, 1, 0x80) })
    .map(({ fd, ...fields }): IoctlOp => ({ op: 'ioctl', fd, call: 'PRECOPY', in: fields })),
  CALLS.PRECOPY.size,
)
const unknown = data.map((fd): Op => ioctl(fd, 'RESET'))

const length = mostly(pick(7, 24, 36, 60, 96, 200), pick(0, 1, 8, 16))
const read = fc
  .record({ fd: data, length })
  .map(({ fd, length: bytes }): Op => ({ op: 'read', fd, length: bytes }))
const pipe = fc
  .record({ fd: data, to: data, length })
  .map(({ fd, to, length: bytes }): Op => ({ op: 'pipe', fd, to, length: bytes }))
const streams = [2, 1].map(pristineStream)
const [two = '', one = ''] = streams
const marked = `${two.slice(0, 62)}5a${two.slice(64)}`
const pieces = mostly(
  pick(two, one, marked, two.slice(0, 48), two.slice(48), two.slice(48, 120), two.slice(120)),
  pick('', '00', 'ff'.repeat(24), 'ff'.repeat(96), `${two}00`, two.slice(0, 20), two.slice(20, 60)),
)
const write = fc
  .record({ fd: data, hex: pieces })
  .map(({ fd, hex }): Op => ({ op: 'write', fd, hex }))
const seek = fc
  .record({ fd: data, at: pick(0, 8) })
  .map(({ fd, at }): Op => ({ op: 'pread', fd, region: 0, at, length: 8 }))

const register = fc.integer({ min: 0, max: 7 })
const byte = mostly(pick('00', '5a', '01', '0f', '83'), pick('ff', '80'))
const port = pick(0, 0, 1)
const writeRegister = fc
  .record({ fd: dev, region: port, at: register, hex: byte })
  .map((fields): Op => ({ op: 'pwrite', ...fields }))
const readRegister = fc
  .record({ fd: dev, region: port, at: register })
  .map((fields): Op => ({ op: 'pread', ...fields, length: 1 }))

const reset = dev.map((fd): Op => ioctl(fd, 'RESET'))
const close = fc.oneof(dev, data).map((fd): Op => ({ op: 'close', fd }))
const reopen = dev.map((fd): Op => device(`g${fd.slice(1)}`, PLACE[fd], fd))
const dup = pick<Op>({ op: 'dup', fd: 'f0', into: 'f2' }, { op: 'dup', fd: 'd0', into: 'd3' })

const op = oneOf(
  [30, set],
  [3, setPlaced],
  [8, get],
  [1, flags],
  [3, size],
  [8, precopy],
  [1, unknown],
  [10, read],
  [6, pipe],
  [10, write],
  [1, seek],
  [5, writeRegister],
  [4, readRegister],
  [2, reset],
  [2, close],
  [3, reopen],
  [1, dup],
)

const starts: readonly (readonly Op[])[] = [
  mttyScene(0, 'mtty0', 2, true),
  [...mttyScene(0, 'mtty0', 2, true), ...mttyScene(1, 'mtty1', 2, false)],
  [...mttyScene(0, 'mtty0', 2, true), ...mttyScene(2, 'solo', 1, false)],
]

export const migration: Area = { name: 'migration', sequence: sequenceOf(starts, op) }
