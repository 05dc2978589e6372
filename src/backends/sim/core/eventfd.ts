/** A reference to a client's eventfd, as eventfd_ctx_fdget() takes one: it outlives the fd. */

import { readFileSync, readlinkSync } from 'node:fs'
import { ERRNO } from '../../../base/errno.ts'
import { eventfdRead, eventfdSignal } from '../../../os/eventfd.ts'
import { sys } from '../../../os/libc.ts'

export class Eventfd {
  readonly #fd: number

  private constructor(fd: number) {
    this.#fd = fd
  }

  /** -EBADF for a number that is not open, -EINVAL for a file of another kind, or 0. */
  static check(fd: number): number {
    let kind: string
    try {
      kind = readlinkSync(`/proc/self/fd/${fd}`)
    } catch {
      return -ERRNO.EBADF
    }
    return kind === 'anon_inode:[eventfd]' ? 0 : -ERRNO.EINVAL
  }

  /** A new reference, or the answer of check(). */
  static of(fd: number): Eventfd | number {
    const checked = Eventfd.check(fd)
    if (checked < 0) return checked
    const own = sys.dup(fd)
    return own < 0 ? own : new Eventfd(own)
  }

  signal(): void {
    eventfdSignal(this.#fd)
  }

  /** Whether it was signalled since the last time; takes the count. */
  take(): boolean {
    return typeof eventfdRead(this.#fd) === 'bigint'
  }

  /** Which eventfd it is, whatever the fd, and its count without taking it. */
  peek(): { readonly id: string; readonly count: bigint } {
    const info = readFileSync(`/proc/self/fdinfo/${this.#fd}`, 'utf8')
    // Before Linux 5.2 only the count is shown, and every fd counts as a separate eventfd.
    const id = /^eventfd-id: *(\S+)$/m.exec(info)?.[1] ?? `fd ${this.#fd}`
    const count = /^eventfd-count: *(\S+)$/m.exec(info)?.[1] ?? '0'
    return { id, count: BigInt(`0x${count}`) }
  }

  put(): void {
    sys.closeSync(this.#fd)
  }
}
