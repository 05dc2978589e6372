/**
 * The kernel that this process runs on, with calls made at once and on this thread: inside the
 * emulated machine a thread switch costs more than the call.
 */

import { linuxKernel } from '../../src/backends/linux/kernel.ts'
import { bind, call } from '../../src/os/async-call.ts'
import { sys } from '../../src/os/libc.ts'
import { type LinuxSecond, lockedPages, type Nursery } from './linux-second.ts'
import type { Memory } from './memory.ts'
import type { Place } from './operation.ts'
import type { FirstSide, Location } from './side.ts'
import { locate } from './sim-side.ts'

const pwrite = bind('pwrite64', 'long', ['int', 'void *', 'size_t', 'int64_t'])
const setrlimit = bind('setrlimit', 'int', ['int', 'void *'])
const capget = bind('capget', 'int', ['void *', 'void *'])
const capset = bind('capset', 'int', ['void *', 'void *'])

const RLIMIT_MEMLOCK = 8
const CAP_IPC_LOCK = 14
const CAPABILITY_VERSION_3 = 0x2008_0522
const RLIM_INFINITY = 0xffff_ffff_ffff_ffffn
const PAGE = 4096n

/** Takes CAP_IPC_LOCK out of what counts on this thread, or back in; it stays permitted. */
const useIpcLock = (isOn: boolean): void => {
  const header = new Uint8Array(new Uint32Array([CAPABILITY_VERSION_3, 0]).buffer)
  const data = new Uint32Array(6)
  const bytes = new Uint8Array(data.buffer)
  call(capget, header, bytes)
  const effective = data[0] ?? 0
  data[0] = isOn ? effective | (1 << CAP_IPC_LOCK) : effective & ~(1 << CAP_IPC_LOCK)
  if (call(capset, header, bytes) < 0) throw new Error('Cannot change capabilities')
}

export class LinuxSide implements FirstSide {
  readonly memory: Memory
  readonly #locations: ReadonlyMap<Place, Location>
  #lockedBefore = 0
  #lockPages: number | null = null
  readonly #nursery: Nursery

  private constructor(memory: Memory, nursery: Nursery, locations: ReadonlyMap<Place, Location>) {
    this.memory = memory
    this.#nursery = nursery
    this.#locations = locations
  }

  static async make(memory: Memory, nursery: Nursery): Promise<LinuxSide> {
    return new LinuxSide(memory, nursery, await locate(linuxKernel()))
  }

  location(place: Place): Location {
    const found = this.#locations.get(place)
    if (!found) throw new Error(`no place ${place}`)
    return found
  }

  begin(lockPages: number | null): void {
    this.memory.reset()
    this.#lockedBefore = lockedPages('self')
    if (lockPages === this.#lockPages) return
    const bytes = lockPages === null ? RLIM_INFINITY : BigInt(lockPages) * PAGE
    const limit = new Uint8Array(new BigUint64Array([bytes, RLIM_INFINITY]).buffer)
    if (call(setrlimit, RLIMIT_MEMLOCK, limit) < 0) throw new Error('Cannot set RLIMIT_MEMLOCK')
    useIpcLock(lockPages === null)
    this.#lockPages = lockPages
  }

  get secondMemory(): Memory {
    return this.#nursery.memory
  }

  spawn(): LinuxSecond {
    return this.#nursery.fork(this.#lockPages, (place) => this.location(place))
  }

  open(path: string): number {
    return sys.openSync(path, 2)
  }

  close(fd: number): number {
    return sys.closeSync(fd)
  }

  dup(fd: number): number {
    return sys.dup(fd)
  }

  ioctl(fd: number, request: number, arg: number | Uint8Array | undefined): number {
    return sys.ioctlSync(fd, request, arg)
  }

  pread(fd: number, into: Uint8Array, offset: bigint): number {
    return sys.preadSync(fd, into, offset)
  }

  pwrite(fd: number, from: Uint8Array, offset: bigint): number {
    return call(pwrite, fd, from, from.length, offset)
  }

  read(fd: number, into: Uint8Array): number {
    return sys.readSync(fd, into)
  }

  write(fd: number, from: Uint8Array): number {
    return sys.writeSync(fd, from)
  }

  rest(): void {}

  locked(): number {
    return lockedPages('self') - this.#lockedBefore
  }

  end(fds: readonly number[]): void {
    for (const fd of fds) sys.closeSync(fd)
  }
}
