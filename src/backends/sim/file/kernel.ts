/**
 * The port over a simulated machine, as one process sees it: an fd leads to an open file, and the
 * open file answers. Every call goes through one place, where a fault can be put in its way.
 */

import { ERRNO } from '../../../base/errno.ts'
import { PAGE_SIZE } from '../../../base/units.ts'
import type { IoctlArg, Kernel, MapRequest } from '../../../kernel/port.ts'
import type { Segment } from '../../../os/memory.ts'
import type { OpenFile } from './open-file.ts'
import type { Process } from './process.ts'
import type { Vfs } from './vfs.ts'

/** A system call that is about to be made. */
export interface Call {
  readonly name: keyof Kernel
  readonly path?: string
  readonly file?: OpenFile
  /** The number of an ioctl. */
  readonly request?: number
}

/** -errno for a call that is to fail without being made, how short it is to be, or nothing. */
export type FaultAnswer = number | { readonly atMost: number } | undefined

/** What is to become of a call; a promise holds it back. */
export type Fault = (call: Call) => FaultAnswer | Promise<FaultAnswer>

export class SimKernel implements Kernel {
  readonly #vfs: Vfs
  readonly #process: Process
  readonly #fault: Fault

  constructor(vfs: Vfs, process: Process, fault: Fault) {
    this.#vfs = vfs
    this.#process = process
    this.#fault = fault
  }

  open(path: string, _flags: number): Promise<number> {
    return this.#call({ name: 'open', path }, () => {
      const file = this.#vfs.open(path, this.#process)
      return typeof file === 'number' ? file : this.#process.install(file)
    })
  }

  close(fd: number): Promise<number> {
    return this.#onFile(fd, { name: 'close' }, () => this.#process.close(fd))
  }

  ioctl(fd: number, request: number, arg: IoctlArg): Promise<number> {
    return this.#onFile(fd, { name: 'ioctl', request }, (file) =>
      file.ioctl(this.#process, request, arg),
    )
  }

  pread(fd: number, into: Uint8Array, offset: bigint): Promise<number> {
    return this.#onFile(fd, { name: 'pread' }, (file, atMost) =>
      offset < 0n ? -ERRNO.EINVAL : file.pread(into.subarray(0, atMost), offset),
    )
  }

  pwrite(fd: number, from: Uint8Array, offset: bigint): Promise<number> {
    return this.#onFile(fd, { name: 'pwrite' }, (file, atMost) =>
      offset < 0n ? -ERRNO.EINVAL : file.pwrite(from.subarray(0, atMost), offset),
    )
  }

  read(fd: number, into: Uint8Array): Promise<number> {
    return this.#onFile(fd, { name: 'read' }, (file, atMost) => file.read(into.subarray(0, atMost)))
  }

  write(fd: number, from: Uint8Array): Promise<number> {
    return this.#onFile(fd, { name: 'write' }, (file, atMost) =>
      file.write(from.subarray(0, atMost)),
    )
  }

  mmap(fd: number, request: MapRequest): Promise<Segment | number> {
    return this.#onFile(fd, { name: 'mmap' }, async (file) => {
      if (request.length <= 0n || (request.offset | request.length) % PAGE_SIZE !== 0n)
        return -ERRNO.EINVAL
      const memory = await file.mmap(request)
      if (typeof memory === 'number') return memory
      this.#process.addMapping(memory, file)
      return memory.segment
    })
  }

  munmap(segment: Segment): Promise<number> {
    return this.#call({ name: 'munmap' }, () => this.#process.unmap(segment))
  }

  /** A simulated file is nothing that another process could hold. */
  exportFd(fd: number): Promise<number> {
    return this.#onFile(fd, { name: 'exportFd' }, () => -ERRNO.EOPNOTSUPP)
  }

  readFile(path: string): Promise<Uint8Array | number> {
    return this.#call({ name: 'readFile', path }, () => this.#vfs.readFile(path))
  }

  writeFile(path: string, data: string): Promise<number> {
    return this.#call({ name: 'writeFile', path }, () => this.#vfs.writeFile(path, data))
  }

  readDir(path: string): Promise<string[] | number> {
    return this.#call({ name: 'readDir', path }, () => this.#vfs.readDir(path))
  }

  readLink(path: string): Promise<string | number> {
    return this.#call({ name: 'readLink', path }, () => this.#vfs.readLink(path))
  }

  #onFile<T>(
    fd: number,
    call: Call,
    act: (file: OpenFile, atMost: number | undefined) => T | Promise<T>,
  ): Promise<T | number> {
    const file = this.#process.fileOf(fd)
    if (file === undefined) return Promise.resolve(-ERRNO.EBADF)
    // The call keeps the file open, whatever else is closed meanwhile.
    file.get()
    const done = this.#call({ ...call, file }, (atMost) => act(file, atMost))
    return done.finally(() => file.put())
  }

  async #call<T>(
    call: Call,
    act: (atMost: number | undefined) => T | Promise<T>,
  ): Promise<T | number> {
    const decided = this.#fault(call)
    // Nothing is awaited where nothing is wrong: a call is made in the moment that it is called.
    const fault = decided instanceof Promise ? await decided : decided
    return typeof fault === 'number' ? fault : await act(fault?.atMost)
  }
}
