/** Interrupts: every index, action and kind of data, on edu, an e1000e and mtty, and what arrives. */

import fc from 'fast-check'
import type { IoctlOp, Op, Value } from '../operation.ts'
import {
  type Area,
  argsz,
  device,
  ioctl,
  mostly,
  oneOf,
  pick,
  placed,
  type Step,
  sequenceOf,
} from './area.ts'
import { cardScene, eduScene, mttyScene, writeBar } from './scene.ts'

const dev = pick('d0', 'd0', 'd0', 'd1')
const event = pick('e0', 'e1', 'e2', 'e3')

const NONE = 1
const BOOL = 2
const EVENTFD = 4
const MASK = 8
const UNMASK = 0x10
const TRIGGER = 0x20

const index = mostly(pick(0, 1, 1, 2, 3, 4), pick(5, 9, 0xffff_ffff))
const start = mostly(pick(0, 0, 0, 1), pick(2, 4, 5, 0xffff_ffff))
const action = fc.oneof(
  { weight: 6, arbitrary: fc.constant(TRIGGER) },
  { weight: 4, arbitrary: pick(MASK, UNMASK) },
  { weight: 1, arbitrary: pick(0, MASK | UNMASK, TRIGGER | MASK, 0x40, 0x60, 0x100) },
)
const odd = pick('@none', '@none', '@shut', '@c0')
const vector = mostly(pick('@e0', '@e1', '@e2'), odd)
/** Never one that is a trigger as well: unmasking whenever it fires is an endless storm. */
const unmaskVector = mostly(pick('@e3'), odd)

const onEventfds = fc
  .record({ fd: dev, index, start, action, lie: mostly(pick(0), pick(1, -1)) })
  .chain(({ fd, action: act, lie, ...fields }) => {
    const which = (act & UNMASK) === 0 ? vector : unmaskVector
    return mostly(
      fc.array(which, { minLength: 1, maxLength: 1 }),
      fc.array(which, { maxLength: 5 }),
    ).map(
      (fds): IoctlOp => ({
        op: 'ioctl',
        fd,
        call: 'SET_IRQS',
        in: { ...fields, flags: EVENTFD | act, count: Math.max(fds.length + lie, 0) },
        fds,
      }),
    )
  })
const onBytes = fc
  .record({
    fd: dev,
    index,
    start,
    action,
    bytes: mostly(
      fc.array(pick(0, 1, 1), { minLength: 1, maxLength: 1 }),
      fc.array(pick(0, 1, 255), { maxLength: 5 }),
    ),
  })
  .map(
    ({ fd, action: act, bytes, ...fields }): IoctlOp => ({
      op: 'ioctl',
      fd,
      call: 'SET_IRQS',
      in: { ...fields, flags: BOOL | act, count: bytes.length },
      bytes,
    }),
  )
const onNothing = fc
  .record({
    fd: dev,
    index,
    start,
    action,
    count: mostly(pick(1, 1, 0), pick(2, 5, 6, 0x7fff_ffff, 0xffff_ffff)),
    argsz: argsz(20),
    data: mostly(pick(NONE), pick(0, 3, 5, 7)),
  })
  .map(
    ({ fd, action: act, data, ...fields }): IoctlOp => ({
      op: 'ioctl',
      fd,
      call: 'SET_IRQS',
      in: { ...fields, flags: data | act },
    }),
  )

/**
 * The emulator's IOAPIC forgets a line that rises while nobody has set it up, which hardware does
 * not: so no interrupt is pending while an index is enabled or disabled.
 */
const quietly = (op: Op): Step =>
  op.op === 'ioctl' && op.fd === 'd0' && (Number(op.in?.flags) & TRIGGER) !== 0
    ? [writeBar('d0', 0x64, 'ffffffff'), op]
    : op

const info = placed(
  fc
    .record({ fd: dev, argsz: argsz(16), index: mostly(fc.integer({ min: 0, max: 5 }), pick(9)) })
    .map(({ fd, ...fields }): IoctlOp => ({ op: 'ioctl', fd, call: 'IRQ_INFO', in: fields })),
  16,
)
const count = event.map((fd): Op => ({ op: 'count', fd }))
const signal = event.map((fd): Op => ({ op: 'signal', fd }))

/** Registers of edu that nothing follows from, and places that are none. */
const registerAt = mostly(
  pick('0x4', '0x4', '0x80', '0x88'),
  pick(
    '0x0',
    '0x5',
    '0x81',
    '0xffffc',
    '0xffffd',
    '0x10000000000',
    '0x70000000000',
    '0x90000000000',
  ),
)
const ioeventfd = placed(
  fc
    .record({
      argsz: argsz(32),
      flags: mostly(pick(4, 4, 8), pick(0, 1, 2, 3, 16, 20)),
      offset: registerAt,
      data: pick('0x1', '0x2', '0x1122334455667788'),
      fd: mostly<Value>(pick('@e0', '@e1', '@e3', '@none'), pick<Value>('@shut', '@c0', -2)),
    })
    .map((fields): IoctlOp => ({ op: 'ioctl', fd: 'd0', call: 'IOEVENTFD', in: fields })),
  28,
)
const written = pick([4, 4], [0x80, 8], [0x88, 8]).map(
  ([at, length]): Op => ({ op: 'pread', fd: 'd0', region: 0, at, length }),
)

const little = fc.integer({ min: 1, max: 3 }).map((bits) => `0${bits}000000`)
const raise = little.map((bits): Op => writeBar('d0', 0x60, bits))
const acknowledge = mostly(pick('ffffffff'), little).map((bits): Op => writeBar('d0', 0x64, bits))
const status: Op = { op: 'pread', fd: 'd0', region: 0, at: 0x24, length: 4 }
/** UART registers of mtty that cause interrupts; on edu these addresses are nothing. */
const uart = fc
  .record({ at: pick(0, 1, 1, 2, 4), hex: pick('00', '01', '02', '03', '0f', '0b', '5a') })
  .map(({ at, hex }): Op => writeBar('d1', at, hex))
/** Decoding memory, mastering the bus, and INTx off or on. */
const command = pick('0001', '0200', '0600', '0604', '0700').map(
  (hex): Op => ({ op: 'pwrite', fd: 'd0', region: 7, at: 4, hex }),
)
const readCommand: Op = { op: 'pread', fd: 'd0', region: 7, at: 4, length: 2 }
const readMsi: Op = { op: 'pread', fd: 'd0', region: 7, at: 0x42, length: 2 }

const reset = dev.map((fd): Op => ioctl(fd, 'RESET'))
const close = dev.map((fd): Op => ({ op: 'close', fd }))

const opOf = (d0: 'edu0' | 'card0', d1: 'mtty0' | 'card1'): fc.Arbitrary<Step> =>
  oneOf(
    [24, placed(onEventfds, 24).map(quietly)],
    [6, placed(onBytes, 21).map(quietly)],
    [14, placed(onNothing, 20).map(quietly)],
    [4, info],
    [14, count],
    [5, signal],
    ...(d0 === 'edu0'
      ? ([
          [10, raise],
          [6, acknowledge],
          [2, fc.constant(status)],
          [8, ioeventfd],
          [3, written],
          [3, command],
          [1, fc.constant(readCommand)],
          [1, fc.constant(readMsi)],
        ] satisfies [number, fc.Arbitrary<Op>][])
      : []),
    ...(d1 === 'mtty0' ? ([[8, uart]] satisfies [number, fc.Arbitrary<Op>][]) : []),
    [1, reset],
    [1, close],
    [2, pick(device('g0', d0, 'd0'), device(d1 === 'mtty0' ? 'g1' : 'g0', d1, 'd1'))],
  )

const OFTEN = 8

export const irqs: Area = {
  name: 'irq',
  sequence: fc.oneof(
    {
      weight: OFTEN,
      arbitrary: sequenceOf(
        [[...eduScene, ...mttyScene(1, 'mtty0', 2, false)]],
        opOf('edu0', 'mtty0'),
      ),
    },
    // Opening and closing these takes the kernel a tenth of a second.
    { weight: 1, arbitrary: sequenceOf([cardScene('g0')], opOf('card0', 'card1')) },
  ),
}
