/**
 * One sequence on two kernels at the same time, call by call, up to the first difference. The
 * simulator goes first: what would end the real machine is seen there, and stops the sequence.
 */

import type { Op, Sequence } from './operation.ts'
import type { Processes } from './processes.ts'

export interface Difference {
  readonly op: Op
  readonly sim: string
  readonly linux: string
}

export interface Result {
  /** What each operation came to, as far as the sequence went. */
  readonly trace: readonly (readonly [Op, string])[]
  /** Operations after the start, on something that was there. */
  readonly live: number
  readonly difference: Difference | undefined
}

/**
 * Kept out by name: mtty in a kernel without a fix follows a null pointer when it leaves RESUMING
 * without a session, which happens to a device that was closed in between; the simulator says -EIO.
 */
export const endsTheMachine = (op: Op, sim: string): boolean =>
  op.op === 'ioctl' && op.call === 'MIG_STATE' && sim.startsWith('-EIO')

const TOP = 1n << 64n

/**
 * Kept out by name: before 6.18 a mapping of the last page hides others from searches, and which
 * ones depends on the shape of a tree. The contract suite has the part that does not.
 */
const endsAtTop = (op: Op): boolean =>
  op.op === 'ioctl' &&
  op.call === 'MAP' &&
  BigInt(String(op.in?.iova ?? 0)) + BigInt(String(op.in?.size ?? 0)) === TOP

/**
 * mtty answers a read of an empty receiver with whatever was on the kernel's stack; the simulator
 * leaves the caller's byte alone.
 */
const isLeftAlone = (op: Op, sim: string, linux: string): boolean =>
  op.op === 'pread' && op.length === 1 && sim === '1' && linux.startsWith('1 0:')

/**
 * The port of the emulator does not bring its link up again in the time that the kernel waits: the
 * reset has happened, and Linux reports that it cannot see the device.
 */
const isSlowLink = (op: Op, sim: string, linux: string): boolean =>
  op.op === 'ioctl' && op.call === 'HOT_RESET' && sim === '0' && linux === '-ENOTTY'

const isDeliberate = (op: Op, sim: string, linux: string): boolean =>
  isLeftAlone(op, sim, linux) || isSlowLink(op, sim, linux)

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

const TRIGGER = 0x20
const EVENTFD = 4

/**
 * Whether edu's interrupts go anywhere. Kept out by name: the IOAPIC of the emulator forgets a line
 * that rises before anybody has set it up.
 */
class Listening {
  #isOn = false

  note(op: Op, outcome: string): void {
    if (op.by === 'second') return
    if (op.op === 'exit' || ('fd' in op && op.fd === 'd0')) {
      if (op.op === 'exit' || op.op === 'close' || op.op === 'device') this.#isOn = false
      if (op.op !== 'ioctl' || op.call !== 'SET_IRQS' || outcome !== '0') return
      const flags = Number(op.in?.flags ?? 0)
      if ((flags & TRIGGER) === 0 || Number(op.in?.index) > 1) return
      this.#isOn = (flags & EVENTFD) !== 0 || (this.#isOn && Number(op.in?.count) > 0)
    }
  }

  forbids(op: Op): boolean {
    return op.op === 'pwrite' && op.fd === 'd0' && op.at === 0x60 && op.region === 0 && !this.#isOn
  }
}

export class Duel {
  readonly sim: Processes
  readonly linux: Processes

  constructor(sim: Processes, linux: Processes) {
    this.sim = sim
    this.linux = linux
  }

  async run({ start, ops, lockPages }: Sequence): Promise<Result> {
    const trace: [Op, string][] = []
    const listening = new Listening()
    let live = 0
    let difference: Difference | undefined
    this.sim.begin(lockPages)
    this.linux.begin(lockPages)
    for (const [at, op] of ops.entries()) {
      assertHarmless(op)
      if (endsAtTop(op) || listening.forbids(op)) continue
      if (at >= start && this.sim.isLive(op)) live += 1
      const sim = await this.sim.act(op)
      if (endsTheMachine(op, sim)) break
      const linux = await this.linux.act(op, this.sim)
      listening.note(op, sim)
      trace.push([op, isDeliberate(op, sim, linux) ? sim : linux])
      if (sim === linux || isDeliberate(op, sim, linux)) continue
      difference = { op, sim, linux }
      break
    }
    this.sim.end()
    this.linux.end()
    return { trace, live, difference }
  }
}
