/**
 * A process that makes system calls: its memory map, which pinned pages are charged to, and its
 * table of fds. Every simulated fd takes a number that is really open in this process, so that it
 * never equals the number of an eventfd or memfd in a struct.
 */

import { closeSync, openSync } from 'node:fs'
import { ERRNO } from '../../base/errno.ts'
import type { Mm } from './mm.ts'
import type { Caller, OpenFile } from './open-file.ts'

export class Process implements Caller {
  readonly mm: Mm
  readonly mayRaiseLimits: boolean
  readonly #files = new Map<number, OpenFile>()

  constructor(mm: Mm, { mayRaiseLimits = true }: { readonly mayRaiseLimits?: boolean } = {}) {
    this.mm = mm
    this.mayRaiseLimits = mayRaiseLimits
  }

  install(file: OpenFile): number {
    const fd = openSync('/dev/null', 'r')
    this.#files.set(fd, file)
    return fd
  }

  /** As if the fd had been sent to another process: a reference of its own to the same file. */
  receive(file: OpenFile): number {
    return this.install(file.get())
  }

  fileOf(fd: number): OpenFile | undefined {
    return this.#files.get(fd)
  }

  close(fd: number): number {
    const file = this.#files.get(fd)
    if (file === undefined) return -ERRNO.EBADF
    this.#files.delete(fd)
    closeSync(fd)
    file.put()
    return 0
  }

  /** exit(2). */
  closeAll(): void {
    for (const fd of [...this.#files.keys()]) this.close(fd)
    this.mm.isAlive = false
  }
}
