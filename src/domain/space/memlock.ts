/**
 * RLIMIT_MEMLOCK, looked at before the kernel is asked to pin: it would pin page after page up to the
 * limit, give all of them back, and say ENOMEM without a number.
 */
import { VfiodError } from '../../base/error.ts'
import { hex } from '../../base/units.ts'
import { memlockOf } from '../../kernel/own-limits.ts'
import type { Kernel } from '../../kernel/port.ts'

export class MemlockCheck {
  readonly #kernel: Kernel
  /** False once it is known that nothing limits the daemon: capabilities do not come or go. */
  #isLimited = true

  constructor(kernel: Kernel) {
    this.#kernel = kernel
  }

  /** Throw MEMLOCK_EXCEEDED when so many bytes more would exceed the limit. */
  async requireAvailable(needed: bigint): Promise<void> {
    if (!this.#isLimited) return
    const memlock = await memlockOf(this.#kernel)
    this.#isLimited = memlock !== undefined && memlock !== 'none'
    if (memlock === undefined || memlock === 'none') return
    const { limit: max, locked: current } = memlock
    if (current + needed <= max) return
    throw new VfiodError(
      'MEMLOCK_EXCEEDED',
      `Cannot map ${hex(needed)} bytes: RLIMIT_MEMLOCK of the daemon is ${hex(max)} bytes and ${hex(current)} are pinned; raise LimitMEMLOCK of the unit, give it CAP_IPC_LOCK, or map less`,
      { quota: { limit: 'RLIMIT_MEMLOCK of the daemon', max, current, needed } },
    )
  }
}
