/** A reference to a client's eventfd, as eventfd_ctx_fdget() takes one: it outlives the fd. */

import { readlinkSync } from 'node:fs'
import { ERRNO } from '../../base/errno.ts'
import { eventfdRead, eventfdSignal } from '../../os/eventfd.ts'
import { sys } from '../../os/libc.ts'

export class Eventfd {
  readonly #fd: number

  private constructor(fd: number) {
    this.#fd = fd
  }

  /** -EBADF for a number that is not open, -EINVAL for a file of another kind. */
  static of(fd: number): Eventfd | number {
    let kind: string
    try {
      kind = readlinkSync(`/proc/self/fd/${fd}`)
    } catch {
      return -ERRNO.EBADF
    }
    if (kind !== 'anon_inode:[eventfd]') return -ERRNO.EINVAL
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

  put(): void {
    sys.closeSync(this.#fd)
  }
}
