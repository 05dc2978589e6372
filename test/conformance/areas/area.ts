/** An area of the interface: which sequences are made up for it. */

import fc from 'fast-check'
import type { CallName } from '../calls.ts'
import type { IoctlOp, Op, Place, Sequence, Slot } from '../operation.ts'

export interface Area {
  readonly name: string
  readonly sequence: fc.Arbitrary<Sequence>
}

export const pick = <const T>(...values: readonly T[]): fc.Arbitrary<T> =>
  fc.constantFrom(...values)

/** Mostly the first, now and then the second. */
export const mostly = <T>(usual: fc.Arbitrary<T>, rare: fc.Arbitrary<T>): fc.Arbitrary<T> =>
  fc.oneof({ weight: 9, arbitrary: usual }, { weight: 1, arbitrary: rare })

/** An operation, or a few that only make sense together. */
export type Step = Op | readonly Op[]

/** Arbitraries of steps, each as often as its number says. */
export const oneOf = (...choices: readonly [number, fc.Arbitrary<Step>][]): fc.Arbitrary<Step> =>
  fc.oneof(...choices.map(([weight, arbitrary]) => ({ weight, arbitrary })))

export const hex = (value: bigint | number): string => `0x${value.toString(16)}`

export const OPS_PER_SEQUENCE = 60

/** A start, then whatever comes. */
export const sequenceOf = (
  starts: readonly (readonly Op[])[],
  step: fc.Arbitrary<Step>,
  lockPages: fc.Arbitrary<number | null> = fc.constant(null),
): fc.Arbitrary<Sequence> =>
  fc
    .record({
      start: fc.constantFrom(...starts),
      ops: fc.array(step, { minLength: 1, maxLength: OPS_PER_SEQUENCE, size: 'max' }),
      lockPages,
    })
    .map(({ start, ops, lockPages: pages }) => ({
      start: start.length,
      ops: [...start, ...ops.flat()],
      lockPages: pages,
    }))

export const ioctl = (fd: Slot, call: CallName, more: Partial<IoctlOp> = {}): Op => ({
  op: 'ioctl',
  fd,
  call,
  ...more,
})

export const open = (into: Slot, place: Place): Op => ({ op: 'open', into, place })

export const setContainer = (group: Slot, container: Slot): Op =>
  ioctl(group, 'SET_CONTAINER', { in: { fd: `@${container}` } })

export const setIommu = (fd: Slot, value: number): Op => ({
  op: 'value',
  fd,
  call: 'SET_IOMMU',
  value,
})

/** A group in a container; the first of a container needs the model as well. */
export const join = (group: Slot, place: Place, container: Slot, model?: 1 | 3): readonly Op[] => [
  open(group, place),
  setContainer(group, container),
  ...(model === undefined ? [] : [setIommu(container, model)]),
]

export const device = (fd: Slot, place: Place, into: Slot): Op => ({
  op: 'device',
  fd,
  place,
  into,
})

/** Where an argument lies when it is not simply there: seldom. */
export const placed = (op: fc.Arbitrary<IoctlOp>, size: number): fc.Arbitrary<Op> =>
  fc.oneof(
    { weight: 30, arbitrary: op },
    { weight: 1, arbitrary: op.map((it) => ({ ...it, at: 'null' as const })) },
    { weight: 1, arbitrary: op.map((it) => ({ ...it, at: 'bad' as const })) },
    {
      weight: 2,
      arbitrary: fc
        .record({ it: op, less: pick(0, 1, 4, 8) })
        .map(({ it, less }) => ({ ...it, at: 'edge' as const, room: Math.max(size - less, 1) })),
    },
  )

/** argsz as it should be, or beside that. */
export const argsz = (size: number): fc.Arbitrary<number> =>
  fc.oneof(
    { weight: 30, arbitrary: fc.constant(size) },
    { weight: 3, arbitrary: pick(size - 1, size + 1, size - 4, size + 8) },
    { weight: 1, arbitrary: pick(0, 4, 8, 16, 4096, 0xffff_ffff) },
  )

/** What the second process does. */
export const bySecond = (op: Op): Op => ({ ...op, by: 'second' })

export const spawn = (...fds: readonly Slot[]): Op => ({ op: 'spawn', fds })
export const kill: Op = { op: 'kill' }

/** Steps of both processes, fds that they pass to each other, and the end of the second. */
const byBoth = (step: fc.Arbitrary<Step>, slots: readonly Slot[]): fc.Arbitrary<Step> => {
  const slot = fc.constantFrom(...slots)
  const passed = fc
    .record({ fd: slot, into: fc.option(slot, { nil: undefined }), isBack: fc.boolean() })
    .map(({ fd, into = fd, isBack }): Op => {
      const op: Op = { op: 'send', fd, into }
      return isBack ? bySecond(op) : op
    })
  return oneOf(
    [20, step],
    [14, step.map((it): Step => [it].flat().map(bySecond))],
    [3, passed],
    [1, fc.constant(kill)],
    [2, fc.subarray([...slots]).map((fds) => spawn(...fds))],
  )
}

/** As sequenceOf, and now and then with a second process, which has every fd of the start. */
export const sequencesOf = (
  starts: readonly (readonly Op[])[],
  step: fc.Arbitrary<Step>,
  slots: readonly Slot[],
  lockPages: fc.Arbitrary<number | null> = fc.constant(null),
): fc.Arbitrary<Sequence> =>
  fc.oneof(
    { weight: 2, arbitrary: sequenceOf(starts, step, lockPages) },
    {
      weight: 1,
      arbitrary: sequenceOf(
        starts.map((start) => [...start, spawn(...slots)]),
        byBoth(step, slots),
        lockPages,
      ),
    },
  )
