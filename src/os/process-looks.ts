/**
 * Looks at processes that need the right to trace them: which address space a process runs in. This
 * process makes them itself, or asks another one that has the right. A look never waits for the
 * process that it is about.
 */

import { hasCapability } from './limits.ts'
import { type MmFinding, pinMm } from './mm.ts'
import { sameMm } from './process.ts'

/** A process by its pidfd, which stays open until the look has answered. */
export interface LookedAt {
  readonly pid: number
  readonly pidfd: number
}

export interface ProcessPin {
  /** Differs from one image of the process to the next, and is the same for every process that pins it. */
  readonly image: string
  /** Whether the process still runs in the address space that it was pinned in. */
  look(): Promise<MmFinding>
  close(): void
}

export interface ProcessLooks {
  /** Whether the looks are made with CAP_SYS_PTRACE. */
  readonly hasPtrace: boolean
  /** Pins the address space that a process runs in: -ESRCH where it has none, -EACCES where it may not
   * be looked at. */
  pin(process: LookedAt): Promise<ProcessPin | number>
  /** Whether two processes share an address space at this moment; undefined where the kernel does not tell. */
  sameMm(one: LookedAt, other: LookedAt): Promise<boolean | undefined>
}

/** The looks that this process makes itself. */
export const ownLooks: ProcessLooks = {
  get hasPtrace() {
    return hasCapability('CAP_SYS_PTRACE')
  },
  pin: async ({ pid, pidfd }) => {
    const pin = await pinMm(pid, { pidfd })
    if (typeof pin === 'number') return pin
    return { image: pin.image, look: async () => pin.look(), close: () => pin.close() }
  },
  sameMm: (one, other) => sameMm(one.pid, other.pid),
}
