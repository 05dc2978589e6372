/**
 * The port: how vfiod speaks to a kernel, whichever it is. It is the system call, in bytes.
 *
 * Terms. An *fd* is a number that the port returned from `open` or from an ioctl that makes one;
 * it stays valid until `close`. A *request* is an ioctl number (abi). A *path* is absolute.
 *
 * Every call answers `>= 0` or `-errno` and never throws for what a kernel says. Nothing here
 * blocks the event loop: a call that sleeps does so on another thread, and calls that are under
 * way at the same time may finish in any order. A caller that needs an order awaits (see base/lane).
 *
 * Memory is real. A pointer inside a struct is an address of this process, from os/memory; the
 * simulator follows it to the same bytes that the kernel would. The caller keeps the memory of a
 * pointer in place until the call has answered, and of a mapping until it is unmapped.
 *
 * Fds in structs (eventfds, memfds) are real fds of this process in both backends.
 */

import type { Segment, SegmentAccess } from '../os/memory.ts'
import type { HostLooks } from './host-looks.ts'

/** The third argument of an ioctl: an integer by value, a pointer to bytes (in and out), or none. */
export type IoctlArg = number | Uint8Array | undefined

/** Where and how a file is mapped. */
export interface MapRequest {
  /** Bytes, both whole pages: -EINVAL otherwise. */
  readonly offset: bigint
  readonly length: bigint
  readonly access: SegmentAccess
}

export interface Kernel {
  /** openat(2) on a device node. `flags` as O_RDWR (2) and friends; O_CLOEXEC is always added. */
  open(path: string, flags: number): Promise<number>
  /** close(2). Releasing the last reference of a group or device may take long: it unpins memory. */
  close(fd: number): Promise<number>
  ioctl(fd: number, request: number, arg: IoctlArg): Promise<number>
  /** pread(2) into all of `into`; answers the number of bytes read. */
  pread(fd: number, into: Uint8Array, offset: bigint): Promise<number>
  pwrite(fd: number, from: Uint8Array, offset: bigint): Promise<number>
  /** read(2) on a stream fd such as a migration data_fd: may be short; 0 is what read(2) calls it. */
  read(fd: number, into: Uint8Array): Promise<number>
  write(fd: number, from: Uint8Array): Promise<number>
  /** mmap(2), shared: the bytes of a region of a device, which it says are mappable. Touching them
   * while the device has its memory space disabled is a SIGBUS on a real kernel. The mapping keeps
   * the file open, and with it the device, its group and what they are attached to. */
  mmap(fd: number, request: MapRequest): Promise<Segment | number>
  /** munmap(2) of what mmap answered, whole. Its bytes are not looked at again. */
  munmap(segment: Segment): Promise<number>
  /** An fd of this process that refers to the same open file and can be passed to another process;
   * -EOPNOTSUPP where the open file has no existence outside the backend. The caller owns it. */
  exportFd(fd: number): Promise<number>

  /** The bytes of a small file (sysfs, procfs), or -errno. */
  readFile(path: string): Promise<Uint8Array | number>
  /** One write(2) of `data` to an existing file; the answer of that write is the verdict in sysfs. */
  writeFile(path: string, data: string): Promise<number>
  /** The names in a directory, in no order, or -errno. */
  readDir(path: string): Promise<string[] | number>
  /** What a symbolic link says, uninterpreted, or -errno. */
  readLink(path: string): Promise<string | number>

  /** Who makes looks at the whole host, where another process does: undefined where they are made
   * through the calls above. */
  readonly hostLooks?: HostLooks | undefined
}
