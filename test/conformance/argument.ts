/** The bytes of an ioctl's argument, and what of them a call has changed. */

import { dataView } from '../../src/abi/layout.ts'
import { type Call, callOf, sizeOf } from './calls.ts'
import type { IoctlOp, Value } from './operation.ts'
import type { Side } from './side.ts'

/** What the caller leaves behind its struct; whatever the kernel puts there differs from it. */
const SENTINEL = 0xa5
const BEHIND = 160
const ROOM = 4096 + 256

export type Resolve = (value: Value) => number | bigint

export interface Argument {
  /** What the call is given. */
  readonly passed: number | Uint8Array
  readonly call: Call
  /** What changed: `offset:hex` for each run. Addresses and fds that differ by side are hidden. */
  changes(): string
  /** The fd that the kernel put in, if it did. */
  fd(): number | undefined
}

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

/** `offset:hex` for every run of bytes that differ, joined when they are close. */
export const difference = (before: Uint8Array, after: Uint8Array): string => {
  if (Buffer.compare(before, after) === 0) return ''
  const runs: string[] = []
  for (let at = 0; at < after.length; at++) {
    if (after[at] === before[at]) continue
    let end = at + 1
    for (let look = end; look < after.length && look < end + 4; look++)
      if (after[look] !== before[look]) end = look + 1
    runs.push(`${at}:${hexOf(after.subarray(at, end))}`)
    at = end
  }
  return runs.join(' ')
}

export class ArgumentMaker {
  readonly #side: Side
  readonly #resolve: Resolve
  readonly #buffer = new Uint8Array(ROOM)

  constructor(side: Side, resolve: Resolve) {
    this.#side = side
    this.#resolve = resolve
  }

  make(op: IoctlOp): Argument {
    const call = callOf(op.call)
    const tail = (op.bytes?.length ?? 0) + 4 * (op.fds?.length ?? 0)
    const length = Math.min(ROOM, call.size + tail + BEHIND)
    const bytes = this.#buffer.subarray(0, length)
    bytes.fill(SENTINEL)
    bytes.fill(0, 0, call.size + tail)
    const hidden = this.#fill(op, call, bytes)

    if (op.at === 'null') return unseen(call, 0)
    if (op.at === 'bad') return unseen(call, Number(this.#side.memory.address('hole')))
    if (op.at !== 'edge') return seen(call, this.#buffer, bytes, hidden)
    const room = Math.min(op.room ?? call.size + tail, length)
    const at = this.#side.memory.edge(room)
    const there = this.#side.memory.bytes(`edge+${4096 - room}`, room)
    there.set(bytes.subarray(0, room))
    return seen(call, at, there, hidden)
  }

  /** Where the bytes differ between the sides: pairs of offset and length. */
  #fill(op: IoctlOp, call: Call, bytes: Uint8Array): [number, number][] {
    const view = dataView(bytes)
    const hidden: [number, number][] = []
    const put = (value: Value, offset: number, size: number): void => {
      const number = BigInt(this.#resolve(value))
      if (size === 8) view.setBigUint64(offset, BigInt.asUintN(64, number), true)
      else if (size === 4) view.setUint32(offset, Number(BigInt.asUintN(32, number)), true)
      else view.setUint8(offset, Number(number & 0xffn))
      if (typeof value === 'string' && !value.startsWith('0x')) hidden.push([offset, size])
    }
    const tail = (op.bytes?.length ?? 0) + 4 * (op.fds?.length ?? 0)
    if (call.sizeAt !== undefined) put(call.size + tail, call.sizeAt, 4)
    for (const [name, value] of Object.entries(op.in ?? {})) {
      const field = call.fields[name]
      if (!field) throw new Error(`${op.call} has no field ${name}`)
      put(value, field.offset, sizeOf(field.type))
    }
    for (const [index, byte] of (op.bytes ?? []).entries()) bytes[call.size + index] = byte
    for (const [index, fd] of (op.fds ?? []).entries()) put(fd, call.size + index * 4, 4)
    return hidden
  }
}

const unseen = (call: Call, passed: number): Argument => ({
  passed,
  call,
  changes: () => '',
  fd: () => undefined,
})

const seen = (
  call: Call,
  passed: number | Uint8Array,
  bytes: Uint8Array,
  hidden: readonly [number, number][],
): Argument => {
  const before = bytes.slice()
  return {
    passed,
    call,
    fd: () => {
      const { fdAt } = call
      if (fdAt === undefined || fdAt + 4 > bytes.length) return undefined
      const was = dataView(before).getInt32(fdAt, true)
      const is = dataView(bytes).getInt32(fdAt, true)
      if (is < 0 || is === was) return undefined
      // From here on it is the same on both sides.
      bytes.fill(0xfd, fdAt, fdAt + 4)
      return is
    },
    changes: () => {
      for (const [offset, size] of hidden) {
        if (offset + size > bytes.length) continue
        const was = before.slice(offset, offset + size)
        const changed = Buffer.compare(was, bytes.subarray(offset, offset + size)) !== 0
        before.fill(0, offset, offset + size)
        bytes.fill(changed ? 0xee : 0, offset, offset + size)
      }
      const { groupsAt } = call
      if (groupsAt !== undefined)
        for (let at = groupsAt; at + 8 <= bytes.length; at += 8)
          if (Buffer.compare(before.subarray(at, at + 8), bytes.subarray(at, at + 8)) !== 0)
            bytes.fill(0xee, at, at + 4)
      return difference(before, bytes)
    },
  }
}
