/**
 * One sequence on two kernels at the same time, call by call, up to the first difference. The
 * simulator goes first: what would end the real machine is seen there, and stops the sequence.
 */

import type { Actor } from './actor.ts'
import type { Op, Sequence } from './operation.ts'

export interface Difference {
  readonly at: number
  readonly op: Op
  readonly sim: string
  readonly linux: string
}

export interface Result {
  /** What each operation came to, as far as the sequence went. */
  readonly outcomes: readonly string[]
  /** Operations on something that was there. */
  readonly live: number
  readonly difference: Difference | undefined
}

/**
 * Kept out by name: mtty in a kernel without a fix follows a null pointer when it leaves RESUMING
 * without a session, which happens to a device that was closed in between; the simulator says -EIO.
 */
export const endsTheMachine = (op: Op, sim: string): boolean =>
  op.op === 'ioctl' && op.call === 'MIG_STATE' && sim.startsWith('-EIO')

/** What no generator may produce, because the kernel or the emulator has no answer to it. */
export const assertHarmless = (op: Op): void => {
  // The kernel takes the lowest set bit of a page size, and 0 has none.
  if (op.op === 'ioctl' && ['DIRTY_GET', 'UNMAP_DIRTY'].includes(op.call)) {
    const pgsize = op.in?.['bitmap.pgsize'] ?? op.in?.pgsize ?? 0
    if (BigInt(pgsize) === 0n && op.at === undefined)
      throw new Error('a bitmap without a page size')
  }
  // QEMU 7.2 ends with an error when edu is to fill its buffer to the last byte.
  if (op.op === 'dma' && op.offset + op.length >= 4096)
    throw new Error('a DMA of all of the buffer')
}

export class Duel {
  readonly sim: Actor
  readonly linux: Actor

  constructor(sim: Actor, linux: Actor) {
    this.sim = sim
    this.linux = linux
  }

  async run({ ops, lockPages }: Sequence): Promise<Result> {
    const outcomes: string[] = []
    let live = 0
    let difference: Difference | undefined
    this.sim.begin(lockPages)
    this.linux.begin(lockPages)
    for (const [at, op] of ops.entries()) {
      assertHarmless(op)
      if (this.sim.isLive(op)) live += 1
      const sim = await this.sim.act(op)
      if (endsTheMachine(op, sim)) break
      const linux = await this.linux.act(op, sim)
      outcomes.push(linux)
      if (sim === linux) continue
      difference = { at, op, sim, linux }
      break
    }
    this.sim.end()
    this.linux.end()
    return { outcomes, live, difference }
  }
}
