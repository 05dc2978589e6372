/**
 * A process that makes system calls: its memory map, which pinned pages are charged to, and its
 * table of fds. Every simulated fd takes a number that is really open in this process, so that it
 * never equals the number of an eventfd or memfd in a struct.
 */

import { closeSync, openSync } from 'node:fs'
import { ERRNO } from '../../../base/errno.ts'
import { type Segment, unmapSegment } from '../../../os/memory.ts'
import type { DeviceMemory, Mm } from '../core/mm.ts'
import type { Answer, Caller, OpenFile } from './open-file.ts'

export class Process implements Caller {
  readonly mm: Mm
  readonly pid: number
  /** What /proc/PID/comm says. */
  readonly command: string
  readonly mayRaiseLimits: boolean
  readonly #files = new Map<number, OpenFile>()
  readonly #mapped = new Map<Segment, { readonly memory: DeviceMemory; readonly file: OpenFile }>()

  constructor(
    mm: Mm,
    who: { readonly pid: number; readonly command: string; readonly mayRaiseLimits?: boolean },
  ) {
    const { pid, command, mayRaiseLimits = true } = who
    this.mm = mm
    this.pid = pid
    this.command = command
    this.mayRaiseLimits = mayRaiseLimits
  }

  install(file: OpenFile): number {
    const fd = openSync('/dev/null', 'r')
    this.#files.set(fd, file)
    return fd
  }

  /** As if the fd had been sent to another process: another reference to the same file. */
  receive(file: OpenFile): number {
    return this.install(file.get())
  }

  /** Its open files, by fd. */
  get files(): ReadonlyMap<number, OpenFile> {
    return this.#files
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

  /** From here on the file is open for as long as the memory is mapped. */
  addMapping(memory: DeviceMemory, file: OpenFile): void {
    this.#mapped.set(memory.segment, { memory, file: file.get() })
    this.mm.deviceMemory.add(memory)
  }

  /** munmap(2) of a segment that was mapped through the port. */
  unmap(segment: Segment): Answer {
    const mapped = this.#mapped.get(segment)
    if (mapped === undefined) return -ERRNO.EINVAL
    this.#mapped.delete(segment)
    this.mm.deviceMemory.delete(mapped.memory)
    const unmapped = unmapSegment(segment)
    mapped.file.put()
    return unmapped
  }

  /** exit(2): the memory goes before the files. */
  closeAll(): void {
    for (const segment of [...this.#mapped.keys()]) void this.unmap(segment)
    this.mm.isAlive = false
    for (const fd of [...this.#files.keys()].sort((a, b) => a - b)) this.close(fd)
  }
}
