/** Groups and containers: opening, joining and leaving in any order, several at once. */

import fc from 'fast-check'
import { CALLS } from '../calls.ts'
import type { IoctlOp, Op, Place } from '../operation.ts'
import {
  type Area,
  argsz,
  device,
  ioctl,
  join,
  mostly,
  oneOf,
  open,
  pick,
  placed,
  sequenceOf,
  sequencesOf,
} from './area.ts'
import { cardScene } from './scene.ts'

const container = pick('c0', 'c1', 'c2')
const group = pick('g0', 'g1', 'g2', 'g3', 'g4')
const deviceSlot = pick('d0', 'd1', 'd2', 'd3')
const anything = fc.oneof(container, group, deviceSlot)

type Usual = Readonly<Record<string, Place>>
const USUAL: Usual = { g0: 'edu0', g1: 'edu1', g2: 'mtty0', g3: 'solo', g4: 'chipset' }
/** Opening and closing an e1000e takes the kernel a tenth of a second: they come seldom. */
const WITH_CARDS: Usual = { ...USUAL, g3: 'card0' }

const placeOf = (usual: Usual, slot: string): fc.Arbitrary<Place> =>
  mostly(fc.constant(usual[slot] ?? 'edu0'), pick(...Object.values(usual), 'testdev', 'mtty1'))

const openGroup = (usual: Usual) =>
  group.chain((into) => placeOf(usual, into).map((place): Op => open(into, place)))
const openContainer = container.map((into): Op => open(into, 'container'))
const close = anything.map((fd): Op => ({ op: 'close', fd }))
const dup = fc
  .record({ fd: anything, index: fc.integer({ min: 0, max: 3 }) })
  .map(({ fd, index }): Op => ({ op: 'dup', fd, into: `${fd[0]}${index}` }))

const setContainer = placed(
  fc
    .record({
      fd: mostly(group, anything),
      to: mostly(container, pick('none', 'shut', 'e0', 'g1', 'd0')),
    })
    .map(
      ({ fd, to }): IoctlOp => ({ op: 'ioctl', fd, call: 'SET_CONTAINER', in: { fd: `@${to}` } }),
    ),
  4,
)
const unsetContainer = mostly(group, anything).map((fd): Op => ioctl(fd, 'UNSET_CONTAINER'))
const setIommu = fc
  .record({
    fd: mostly(container, anything),
    value: mostly(pick(3, 3, 1), fc.integer({ min: -1, max: 11 })),
  })
  .map(({ fd, value }): Op => ({ op: 'value', fd, call: 'SET_IOMMU', value }))
const extension = fc
  .record({ fd: container, value: fc.integer({ min: 0, max: 11 }) })
  .map(({ fd, value }): Op => ({ op: 'value', fd, call: 'CHECK_EXTENSION', value }))
const status = placed(
  fc
    .record({ fd: mostly(group, anything), argsz: argsz(8), flags: pick(0, 7) })
    .map(({ fd, ...fields }): IoctlOp => ({ op: 'ioctl', fd, call: 'STATUS', in: fields })),
  8,
)
const openDevice = (usual: Usual) =>
  fc
    .record({
      g: group,
      into: deviceSlot,
      suffix: mostly(pick(''), pick(' ', 'x', ' vf_token=1', ' x')),
    })
    .chain(({ g, into, suffix }) =>
      placeOf(usual, g).map((place): Op => ({ op: 'device', fd: g, place, into, suffix })),
    )
const badName = fc
  .record({ fd: group, at: pick('null', 'bad') })
  .map(({ fd, at }): Op => ioctl(fd, 'DEVICE_FD', { at }))

const info = container.map((fd): Op => ioctl(fd, 'INFO', { in: { argsz: CALLS.INFO.size } }))
const version = anything.map((fd): Op => ioctl(fd, 'API_VERSION'))
const map = fc.record({ fd: container, page: fc.integer({ min: 0, max: 7 }) }).map(
  ({ fd, page }): Op =>
    ioctl(fd, 'MAP', {
      in: { flags: 3, vaddr: 'ram+0', iova: `0x${(page * 4096).toString(16)}`, size: '0x1000' },
    }),
)
const unmap = fc
  .record({ fd: container, size: pick('0x1000', '0x4000', '0x8000') })
  .map(({ fd, size }): Op => ioctl(fd, 'UNMAP', { in: { iova: '0x0', size } }))
const deviceInfo = mostly(deviceSlot, anything).map((fd): Op => ioctl(fd, 'DEVICE_INFO'))
const hotReset = fc
  .record({ fd: deviceSlot, argsz: pick(12, 20, 28, 36, 11, 64), flags: pick(0, 0, 1) })
  .map(({ fd, ...fields }): Op => ioctl(fd, 'HOT_RESET_INFO', { in: fields }))
const hotResetNow = placed(
  fc
    .record({
      fd: deviceSlot,
      fds: fc.array(
        mostly(
          group.map((g) => `@${g}`),
          pick('@none', '@shut', '@c0', '@e0'),
        ),
        {
          maxLength: 3,
        },
      ),
      flags: mostly(pick(0), pick(1, 2)),
      more: mostly(pick(0), pick(1, -1)),
    })
    .map(
      ({ fd, fds, flags, more }): IoctlOp => ({
        op: 'ioctl',
        fd,
        call: 'HOT_RESET',
        in: { flags, count: Math.max(fds.length + more, 0) },
        fds,
      }),
    ),
  16,
)
const cross = fc
  .record({ fd: anything, call: pick('GFX_PLANE', 'RESET', 'MAP', 'STATUS', 'DETACH', 'PRECOPY') })
  .map(({ fd, call }): Op => ioctl(fd, call))
const exit = fc.nat({ max: 1000 }).map((order): Op => ({ op: 'exit', order }))

const opOf = (usual: Usual) =>
  oneOf(
    [8, openContainer],
    [14, openGroup(usual)],
    [8, close],
    [4, dup],
    [14, setContainer],
    [5, unsetContainer],
    [10, setIommu],
    [3, extension],
    [8, status],
    [12, openDevice(usual)],
    [1, badName],
    [2, info],
    [1, version],
    [3, map],
    [2, unmap],
    [3, deviceInfo],
    [2, hotReset],
    [3, hotResetNow],
    [2, cross],
    [1, fc.constant<Op>({ op: 'locked' })],
    [1, exit],
  )

const starts: readonly (readonly Op[])[] = [
  [],
  [open('c0', 'container'), ...join('g0', 'edu0', 'c0', 3), device('g0', 'edu0', 'd0')],
  [
    open('c0', 'container'),
    ...join('g0', 'edu0', 'c0', 3),
    ...join('g1', 'edu1', 'c0'),
    open('c1', 'container'),
    ...join('g2', 'mtty0', 'c1', 3),
  ],
]

const SLOTS = ['c0', 'c1', 'c2', 'g0', 'g1', 'g2', 'g3', 'd0', 'd1', 'd2'] as const

const OFTEN = 15

export const groups: Area = {
  name: 'group',
  sequence: fc.oneof(
    { weight: OFTEN, arbitrary: sequencesOf(starts, opOf(USUAL), SLOTS) },
    { weight: 1, arbitrary: sequenceOf([cardScene('g3')], opOf(WITH_CARDS)) },
  ),
}
