/** System calls by name, each answering `>= 0` or `-errno`. Prototypes only: no decisions. */

import { ERRNO } from '../base/errno.ts'
import { bind, call, callAsync, callEndless } from './async-call.ts'

export const O_RDONLY = 0
export const O_WRONLY = 1
export const O_RDWR = 2
export const O_ACCMODE = 3
export const O_NONBLOCK = 0o4000
export const O_CLOEXEC = 0o2000000
export const F_SETFD = 2
export const FD_CLOEXEC = 1
export const F_GETFL = 3
export const F_DUPFD_CLOEXEC = 1030
export const F_ADD_SEALS = 1033
export const F_GET_SEALS = 1034
export const POLLIN = 0x1
export const POLLOUT = 0x4
export const POLLHUP = 0x10
/** The peer will write no more. */
export const POLLRDHUP = 0x2000

// `long` stands for ssize_t, which koffi does not know; `intptr_t` for an address, so that
// MAP_FAILED is -1 and an address is a number (user space ends below 2^53).
const open = bind('open', 'int', ['str', 'int', 'unsigned int'])
const close = bind('close', 'int', ['int'])
const ioctlBytes = bind('ioctl', 'int', ['int', 'unsigned long', 'void *'])
const ioctlNumber = bind('ioctl', 'int', ['int', 'unsigned long', 'uintptr_t'])
const pread = bind('pread64', 'long', ['int', 'void *', 'size_t', 'int64_t'])
const pwrite = bind('pwrite64', 'long', ['int', 'void *', 'size_t', 'int64_t'])
// For memory that may not be there: its address is a number.
const preadTo = bind('pread64', 'long', ['int', 'uintptr_t', 'size_t', 'int64_t'])
const pwriteFrom = bind('pwrite64', 'long', ['int', 'uintptr_t', 'size_t', 'int64_t'])
const read = bind('read', 'long', ['int', 'void *', 'size_t'])
const write = bind('write', 'long', ['int', 'void *', 'size_t'])
const preadv2 = bind('preadv2', 'long', ['int', 'void *', 'int', 'int64_t', 'int'])
const fcntl = bind('fcntl', 'int', ['int', 'int', 'intptr_t'])
const ftruncate = bind('ftruncate64', 'int', ['int', 'int64_t'])
const memfdCreate = bind('memfd_create', 'int', ['str', 'unsigned int'])
const mmap = bind('mmap', 'intptr_t', ['intptr_t', 'size_t', 'int', 'int', 'int', 'int64_t'])
const munmap = bind('munmap', 'int', ['intptr_t', 'size_t'])
const poll = bind('poll', 'int', ['void *', 'unsigned long', 'int'])
const statx = bind('statx', 'int', ['int', 'str', 'int', 'unsigned int', 'void *'])
const linkat = bind('linkat', 'int', ['int', 'str', 'int', 'str', 'int'])
const syscall4 = bind('syscall', 'long', ['long', 'long', 'long', 'long', 'long', 'long'])

/** A path with a NUL in it would reach the kernel cut short: another file than was named. */
const isPath = (path: string): boolean => !path.includes('\0')

export const sys = {
  /** open(2); O_CLOEXEC is always added. */
  open(path: string, flags: number, mode = 0): Promise<number> {
    if (!isPath(path)) return Promise.resolve(-ERRNO.EINVAL)
    return callAsync(open, path, flags | O_CLOEXEC, mode)
  },
  openSync(path: string, flags: number, mode = 0): number {
    return isPath(path) ? call(open, path, flags | O_CLOEXEC, mode) : -ERRNO.EINVAL
  },
  close: (fd: number): Promise<number> => callAsync(close, fd),
  /** close(2) on this thread: for fds of our own making whose close cannot sleep. */
  closeSync: (fd: number): number => call(close, fd),

  /** ioctl(2). A number goes by value, bytes by address (in and out), undefined as NULL. */
  ioctl(fd: number, request: number, arg: number | Uint8Array | undefined): Promise<number> {
    return arg instanceof Uint8Array
      ? callAsync(ioctlBytes, fd, request, arg)
      : callAsync(ioctlNumber, fd, request, arg ?? 0)
  },
  ioctlSync(fd: number, request: number, arg: number | Uint8Array | undefined): number {
    return arg instanceof Uint8Array
      ? call(ioctlBytes, fd, request, arg)
      : call(ioctlNumber, fd, request, arg ?? 0)
  },

  pread(fd: number, into: Uint8Array, offset: bigint): Promise<number> {
    return callAsync(pread, fd, into, into.length, offset)
  },
  preadSync(fd: number, into: Uint8Array, offset: bigint): number {
    return call(pread, fd, into, into.length, offset)
  },
  /** pread(2) from the start of a file to an address: -EFAULT, or fewer bytes, where it is not there. */
  preadTo: (fd: number, address: number, length: number): number =>
    call(preadTo, fd, address, length, 0),
  /** pwrite(2) to the start of a file from an address; the same. */
  pwriteFrom: (fd: number, address: number, length: number): number =>
    call(pwriteFrom, fd, address, length, 0),
  pwrite(fd: number, from: Uint8Array, offset: bigint): Promise<number> {
    return callAsync(pwrite, fd, from, from.length, offset)
  },
  read: (fd: number, into: Uint8Array): Promise<number> => callEndless(read, fd, into, into.length),
  readSync: (fd: number, into: Uint8Array): number => call(read, fd, into, into.length),
  write: (fd: number, from: Uint8Array): Promise<number> =>
    callEndless(write, fd, from, from.length),
  writeSync: (fd: number, from: Uint8Array): number => call(write, fd, from, from.length),

  /** A second number for the same open file, close-on-exec. */
  dup: (fd: number): number => call(fcntl, fd, F_DUPFD_CLOEXEC, 0),
  fcntl: (fd: number, command: number, arg = 0): number => call(fcntl, fd, command, arg),
  ftruncate: (fd: number, length: bigint): number => call(ftruncate, fd, length),
  memfdCreate: (name: string, flags: number): number => call(memfdCreate, name, flags),

  mmap(at: number, length: number, prot: number, flags: number, fd: number, offset: bigint) {
    return callAsync(mmap, at, length, prot, flags, fd, offset)
  },
  mmapSync(at: number, length: number, prot: number, flags: number, fd: number, offset: bigint) {
    return call(mmap, at, length, prot, flags, fd, offset)
  },
  munmap: (address: number, length: number): Promise<number> => callAsync(munmap, address, length),
  munmapSync: (address: number, length: number): number => call(munmap, address, length),

  /** A system call that libc has no name for in every version that is in use. */
  syscall: (number: number, ...args: [number?, number?, number?, number?, number?]): number =>
    call(syscall4, number, args[0] ?? 0, args[1] ?? 0, args[2] ?? 0, args[3] ?? 0, args[4] ?? 0),
  /** The same on another thread, for one that may sleep. */
  syscallAside: (number: number, one: number, two: number, three: number): Promise<number> =>
    callAsync(syscall4, number, one, two, three, 0, 0),
  poll: (pollfds: Uint8Array, timeoutMs: number): number =>
    call(poll, pollfds, pollfds.length / 8, timeoutMs),
  preadv2: (fd: number, iovec: Uint8Array, offset: bigint, flags: number): number =>
    call(preadv2, fd, iovec, iovec.length / 16, offset, flags),
  statx: (fd: number, flags: number, mask: number, into: Uint8Array): number =>
    call(statx, fd, '', flags, mask, into),
}

const AT_FDCWD = -100
const AT_SYMLINK_FOLLOW = 0x400

/** linkat(2): gives an open file another name, or its first one where O_TMPFILE made it. */
export const linkFd = (fd: number, path: string): Promise<number> =>
  isPath(path)
    ? callAsync(linkat, AT_FDCWD, `/proc/self/fd/${fd}`, AT_FDCWD, path, AT_SYMLINK_FOLLOW)
    : Promise.resolve(-ERRNO.EINVAL)

/** The events of `wanted` that are pending on `fd`, without waiting: 0 for none. */
export const pendingEvents = (fd: number, wanted: number): number => {
  const pollfd = new DataView(new ArrayBuffer(8))
  pollfd.setInt32(0, fd, true)
  pollfd.setInt16(4, wanted, true)
  const ready = sys.poll(new Uint8Array(pollfd.buffer), 0)
  return ready <= 0 ? ready : pollfd.getInt16(6, true)
}
