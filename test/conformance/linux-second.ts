/**
 * A second process on the kernel of this machine. Its memory lies in files that this process has
 * mapped as well, so that the harness fills and watches it here; the addresses are its own.
 */

import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { sys } from '../../src/os/libc.ts'
import { mapFd, memfdCreate, type Segment } from '../../src/os/memory.ts'
import { AREA_PAGES, type AreaName, LARGE_PAGE, Memory, PAGE } from './memory.ts'
import type { Place } from './operation.ts'
import type { Location, SecondSide } from './side.ts'
import { Meeting, type SyscallServer } from './syscall-server.ts'

/** What run.mjs compiles second.c to, beside everything else that it compiles. */
const PROGRAM = fileURLToPath(new URL('../../second', import.meta.url))

/** Numbers of x86-64, the test machine's. */
const SYS = {
  read: 0,
  write: 1,
  close: 3,
  mmap: 9,
  ioctl: 16,
  pread: 17,
  pwrite: 18,
  fcntl: 72,
  capget: 125,
  capset: 126,
  setrlimit: 160,
  openat: 257,
} as const

const AT_FDCWD = -100
const O_RDWR_CLOEXEC = 0o2000002
const F_DUPFD_CLOEXEC = 1030
const RLIMIT_MEMLOCK = 8
const RLIM_INFINITY = 0xffff_ffff_ffff_ffffn
const CAP_IPC_LOCK = 14
const CAPABILITY_VERSION_3 = 0x2008_0522
const PROT_NONE = 0
const PROT_READ = 1
const PROT_READ_WRITE = 3
const PRIVATE_ANONYMOUS = 0x22
const SHARED_FIXED = 0x11

/** VmLck of a process. */
export const lockedPages = (pid: number | 'self'): number => {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1')
  return Number(/^VmLck:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) / 4
}

/** Part of a file, at an address of the server's and at one of ours. */
const shared = async (server: SyscallServer, area: AreaName, at: number): Promise<Segment> => {
  const length = AREA_PAGES[area] * PAGE
  const fd = memfdCreate(area, BigInt(length))
  const ours = await mapFd(fd, { offset: 0n, length: BigInt(length), access: 'read-write' })
  if (typeof ours === 'number') throw new Error(`Cannot map a memfd: errno ${-ours}`)
  const theirs = server.receive(fd)
  const access = area === 'ro' ? PROT_READ : PROT_READ_WRITE
  const mapped = server.call(SYS.mmap, [at, length, access, SHARED_FIXED, theirs, 0])
  if (mapped !== at) throw new Error(`Cannot map memory of the second process: errno ${-mapped}`)
  server.call(SYS.close, [theirs])
  sys.closeSync(fd)
  const { bytes } = ours
  return {
    ...{ length, access: area === 'ro' ? 'read' : 'read-write', bytes },
    address: BigInt(at) as Segment['address'],
    view: (offset, size) => ours.view(offset, size),
  }
}

/** Where second processes come from: one that has their memory, and forks for each sequence. */
export class Nursery {
  readonly memory: Memory
  readonly #meeting: Meeting
  readonly #parent: SyscallServer

  private constructor(memory: Memory, meeting: Meeting, parent: SyscallServer) {
    this.memory = memory
    this.#meeting = meeting
    this.#parent = parent
  }

  static async make(): Promise<Nursery> {
    const meeting = new Meeting(`vfiod-conformance-${process.pid}`)
    const child = spawn(PROGRAM, [meeting.name], { stdio: 'inherit' })
    child.unref()
    const parent = meeting.arrival()
    const areas = Object.keys(AREA_PAGES) as AreaName[]
    const length = (areas.length + 3) * LARGE_PAGE
    const room = parent.call(SYS.mmap, [0, length, PROT_NONE, PRIVATE_ANONYMOUS, -1, 0])
    if (room < 0) throw new Error(`Cannot reserve addresses: errno ${-room}`)
    const first = Math.ceil(room / LARGE_PAGE + 1) * LARGE_PAGE
    const segments = new Map<AreaName, Segment>()
    for (const [index, area] of areas.entries())
      segments.set(area, await shared(parent, area, first + index * LARGE_PAGE))
    return new Nursery(Memory.over(segments, first + areas.length * LARGE_PAGE), meeting, parent)
  }

  fork(lockPages: number | null, location: (place: Place) => Location): LinuxSecond {
    const pid = this.#parent.fork()
    if (pid < 0) throw new Error(`Cannot fork: errno ${-pid}`)
    const server = this.#meeting.arrival()
    limit(server, lockPages)
    this.memory.reset()
    const end = (): void => {
      this.#parent.end(pid)
      server.hangUp()
    }
    return new LinuxSecond(this.memory, server, { pid, location, end })
  }
}

/** RLIMIT_MEMLOCK in pages, without CAP_IPC_LOCK; null for no limit. */
const limit = (server: SyscallServer, lockPages: number | null): void => {
  const bytes = lockPages === null ? RLIM_INFINITY : BigInt(lockPages * PAGE)
  const limits = new Uint8Array(new BigUint64Array([bytes, RLIM_INFINITY]).buffer)
  if (server.call(SYS.setrlimit, [RLIMIT_MEMLOCK, server.buffer], limits) < 0)
    throw new Error('Cannot set RLIMIT_MEMLOCK of the second process')
  if (lockPages === null) return
  // struct __user_cap_header_struct, and two of struct __user_cap_data_struct.
  const words = new Uint32Array([CAPABILITY_VERSION_3, 0, 0, 0, 0, 0, 0, 0])
  const capabilities = new Uint8Array(words.buffer)
  const where = [server.buffer, server.buffer + 8n]
  server.call(SYS.capget, where, capabilities)
  words[2] = (words[2] ?? 0) & ~(1 << CAP_IPC_LOCK)
  if (server.call(SYS.capset, where, capabilities) < 0)
    throw new Error('Cannot change capabilities of the second process')
}

export class LinuxSecond implements SecondSide {
  readonly memory: Memory
  readonly location: (place: Place) => Location
  readonly kill: () => void
  readonly #server: SyscallServer
  readonly #pid: number

  constructor(
    memory: Memory,
    server: SyscallServer,
    {
      pid,
      location,
      end,
    }: {
      readonly pid: number
      readonly location: (place: Place) => Location
      readonly end: () => void
    },
  ) {
    this.memory = memory
    this.#server = server
    this.#pid = pid
    this.location = location
    this.kill = end
  }

  open(path: string): number {
    const name = new TextEncoder().encode(`${path}\0`)
    return this.#server.call(SYS.openat, [AT_FDCWD, this.#server.buffer, O_RDWR_CLOEXEC], name)
  }

  close(fd: number): number {
    return this.#server.call(SYS.close, [fd])
  }

  dup(fd: number): number {
    return this.#server.call(SYS.fcntl, [fd, F_DUPFD_CLOEXEC, 0])
  }

  ioctl(fd: number, request: number, arg: number | Uint8Array | undefined): number {
    if (!(arg instanceof Uint8Array)) return this.#server.call(SYS.ioctl, [fd, request, arg ?? 0])
    return this.#server.call(SYS.ioctl, [fd, request, this.#server.buffer], arg)
  }

  pread(fd: number, into: Uint8Array, offset: bigint): number {
    return this.#onBytes(SYS.pread, fd, into, offset)
  }

  pwrite(fd: number, from: Uint8Array, offset: bigint): number {
    return this.#onBytes(SYS.pwrite, fd, from, offset)
  }

  read(fd: number, into: Uint8Array): number {
    return this.#onBytes(SYS.read, fd, into)
  }

  write(fd: number, from: Uint8Array): number {
    return this.#onBytes(SYS.write, fd, from)
  }

  rest(): void {}

  locked(): number {
    return lockedPages(this.#pid)
  }

  receive(fd: number): number {
    return this.#server.receive(fd)
  }

  send(fd: number): number {
    return this.#server.send(fd)
  }

  #onBytes(number: number, fd: number, bytes: Uint8Array, offset = 0n): number {
    return this.#server.call(number, [fd, this.#server.buffer, bytes.length, offset], bytes)
  }
}
