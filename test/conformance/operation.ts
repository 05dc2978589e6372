/**
 * The language that sequences are written in: one operation is one system call, or a few that
 * belong together, as plain JSON. Nothing in it depends on a machine: fds are *slots* with names,
 * devices are *places*, and addresses are offsets into memory that each side has of its own.
 */

import type { CallName } from './calls.ts'

/** `c0` container, `g0` group, `d0` device, `f0` data_fd, `e0` eventfd, `i0` iommufd. */
export type Slot = string

/** What can be opened; each has one name on every machine. */
export const PLACES = [
  'container',
  'iommufd',
  'edu0',
  'edu1',
  'card0',
  'card1',
  'chipset',
  'testdev',
  'mtty0',
  'mtty1',
  'solo',
] as const
export type Place = (typeof PLACES)[number]

/**
 * A number, or text: `0x1000` for 64 bits, `ram+0x1000` for an address, `@c0` for the fd in a slot,
 * `@none` for -1 and `@shut` for a number that is not open.
 */
export type Value = number | string

export interface IoctlOp {
  readonly op: 'ioctl'
  readonly fd: Slot
  readonly call: CallName
  /** Fields by name; argsz is the size of the struct unless it is here, the others are 0. */
  readonly in?: Readonly<Record<string, Value>>
  /** What follows the struct: u8 each, or s32 each. */
  readonly bytes?: readonly number[]
  readonly fds?: readonly Value[]
  /** Where the argument lies: null, an address without memory, or so that only `room` is there. */
  readonly at?: 'null' | 'bad' | 'edge'
  readonly room?: number
  /** Where an fd in the answer goes. */
  readonly into?: Slot
  /** Memory that is written before, as hex, and memory whose change is part of the answer. */
  readonly poke?: readonly [at: string, hex: string]
  readonly look?: readonly [at: string, length: number]
}

type Act =
  | { readonly op: 'open'; readonly into: Slot; readonly place: Place; readonly cdev?: true }
  | { readonly op: 'close'; readonly fd: Slot }
  | { readonly op: 'dup'; readonly fd: Slot; readonly into: Slot }
  | IoctlOp
  /** An ioctl whose argument is a number. */
  | { readonly op: 'value'; readonly fd: Slot; readonly call: CallName; readonly value: number }
  /** VFIO_GROUP_GET_DEVICE_FD; `suffix` goes behind the name of the place. */
  | {
      readonly op: 'device'
      readonly fd: Slot
      readonly into: Slot
      readonly place: Place
      readonly suffix?: string
    }
  | {
      readonly op: 'pread'
      readonly fd: Slot
      readonly region: number
      readonly at: number
      readonly length: number
    }
  | {
      readonly op: 'pwrite'
      readonly fd: Slot
      readonly region: number
      readonly at: number
      readonly hex: string
    }
  | { readonly op: 'read'; readonly fd: Slot; readonly length: number }
  | { readonly op: 'write'; readonly fd: Slot; readonly hex: string }
  /** Reads from one data_fd and writes what came to another. */
  | { readonly op: 'pipe'; readonly fd: Slot; readonly to: Slot; readonly length: number }
  /** The count of an eventfd, once what was under way has arrived. */
  | { readonly op: 'count'; readonly fd: Slot }
  | { readonly op: 'signal'; readonly fd: Slot }
  /** A transfer of edu's between its buffer and memory, and the memory afterwards. */
  | {
      readonly op: 'dma'
      readonly fd: Slot
      readonly toMemory: boolean
      readonly iova: string
      readonly offset: number
      readonly length: number
    }
  | { readonly op: 'fill'; readonly at: string; readonly length: number; readonly byte: number }
  /** VmLck, against what it was when the sequence began. */
  | { readonly op: 'locked' }
  /** The process ends: everything closes, in an order of its own. */
  | { readonly op: 'exit'; readonly order: number }
  /** The second process begins, with an fd of its own for each of these, in slots of that name. */
  | { readonly op: 'spawn'; readonly fds: readonly Slot[] }
  /** SIGKILL for the second process, which is waited for. */
  | { readonly op: 'kill' }
  /** An fd passed to the other process, by SCM_RIGHTS. */
  | { readonly op: 'send'; readonly fd: Slot; readonly into: Slot }

/** What a process does: the first, unless the second is named. Each has slots of its own. */
export type Op = Act & { readonly by?: 'second' }

/** What one process does by itself. */
export type CallOp = Exclude<Op, { readonly op: 'spawn' | 'kill' | 'send' }>

export interface Sequence {
  /** How many operations only set the scene: they are compared, but not counted. */
  readonly start: number
  readonly ops: readonly Op[]
  /** RLIMIT_MEMLOCK in pages; null with CAP_IPC_LOCK, when it does not count. */
  readonly lockPages: number | null
}
