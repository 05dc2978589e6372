/** One of the two kernels that a sequence runs on, and what the harness must know about it. */

import type { IoctlArg } from '../../src/kernel/port.ts'
import type { Memory } from './memory.ts'
import type { Place } from './operation.ts'

export type Answer = number | Promise<number>

/** Where a place is found on one machine. */
export interface Location {
  /** The node of the group, or of the place itself. */
  readonly path: string
  readonly cdev: string
  /** What VFIO_GROUP_GET_DEVICE_FD is asked for. */
  readonly name: string
}

/** A process on one of them: its memory, and the calls it makes. */
export interface Side {
  readonly memory: Memory
  location(place: Place): Location
  open(path: string): Answer
  close(fd: number): Answer
  dup(fd: number): Answer
  ioctl(fd: number, request: number, arg: IoctlArg): Answer
  pread(fd: number, into: Uint8Array, offset: bigint): Answer
  pwrite(fd: number, from: Uint8Array, offset: bigint): Answer
  read(fd: number, into: Uint8Array): Answer
  write(fd: number, from: Uint8Array): Answer
  /** Lets devices go on: the simulated ones until they rest. */
  rest(): void
  /** VmLck in pages. */
  locked(): number
}

/** The process that every sequence has. */
export interface FirstSide extends Side {
  /** What every second process has. */
  readonly secondMemory: Memory
  /** Everything is as after boot, as far as a process can have it so. */
  begin(lockPages: number | null): void
  /** Another process, with the same limit, memory of its own and no fds. */
  spawn(): SecondSide
  /** The sequence is over: what is still open closes. */
  end(fds: readonly number[]): void
}

/** A process that may be killed. */
export interface SecondSide extends Side {
  /** The fd that it has for a file of the first process, as SCM_RIGHTS gives one. */
  receive(fd: number): number
  /** The fd that the first process has for a file of this one. */
  send(fd: number): number
  /** SIGKILL: done when nothing is left of it. */
  kill(): void
}
