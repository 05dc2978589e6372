/** The runtime of one memory: its fd and the windows through which mappings are made. */

import { hex } from '../../base/units.ts'
import { explained } from '../../kernel/diagnosis.ts'
import { memoryFacts, processFacts } from '../../kernel/memory-facts.ts'
import { refusal } from '../../kernel/refusal.ts'
import { sys } from '../../os/libc.ts'
import { mapFd, type Segment } from '../../os/memory.ts'
import { judgeMemory, judgeProcess } from '../../rules/causes/judge-memory.ts'
import type { Charge } from '../identity/quotas.ts'
import type { MemoryRecord } from '../state/records.ts'
import type { Amounts } from '../state/usage.ts'
import { Window } from './window.ts'

/** A call that is mapping a memory: it holds the window, and the memory is not released meanwhile. */
export interface MemoryUse {
  readonly window: Window
  drop(): void
}

/** The runtime of a memory: its fd and its windows. What is true of it is in its record. */
export class Memory {
  readonly id: string
  readonly fd: number
  readonly length: bigint
  readonly file: MemoryRecord['file']
  /** Calls that are mapping it at this moment. */
  #users = 0
  readonly #windows = new Map<number, Window>()
  #current: Window
  #windowsMade = 0
  /** One for each window beyond the first, which the record pays. */
  readonly #charges = new Set<Charge>()

  constructor(fd: number, record: MemoryRecord, segment: Segment) {
    this.id = record.id
    this.fd = fd
    this.length = record.length
    this.file = record.file
    this.#current = this.#newWindow(segment)
  }

  /** Through which new mappings are made. */
  get window(): Window {
    return this.#current
  }

  get isInUse(): boolean {
    return this.#users > 0
  }

  /** Hold the current window and keep the memory from being released, until `drop` is called. */
  use(): MemoryUse {
    const window = this.#current.hold()
    this.#users += 1
    return {
      window,
      drop: () => {
        this.#users -= 1
        window.drop()
      },
    }
  }

  /** A window that a mapping holds. */
  windowOf(id: number): Window {
    const window = this.#windows.get(id)
    if (window === undefined) throw new Error(`memory "${this.id}" has no window ${id}`)
    return window
  }

  get windows(): number {
    return this.#windows.size
  }

  /** What its windows cost beyond what the record does. */
  get windowsPrice(): Amounts {
    return { memory_bytes: this.length * BigInt(this.#charges.size) }
  }

  /** Map it once more, at another address; the caller holds the window. The charge is held while there are as many. */
  async mapAgain(charge: Charge): Promise<Window> {
    const { fd, length } = this
    this.#charges.add(charge)
    try {
      return this.#newWindow(await mapWhole({ id: this.id, fd, length }))
    } catch (error) {
      this.#releaseOne()
      throw error
    }
  }

  /** It has another owner, who pays for its windows from now on. */
  handOn(account: string): void {
    for (const charge of this.#charges) charge.moveTo(account)
  }

  /** New mappings go through this window from now on. */
  replaceWindow(window: Window): void {
    const old = this.#current
    this.#current = window.hold()
    old.drop()
  }

  /** Unmap it here and close its fd: no mapping refers to it. */
  close(): void {
    this.#current.drop()
    sys.closeSync(this.fd)
  }

  /** They are of one amount and of one account. */
  #releaseOne(): void {
    const [charge] = this.#charges
    if (charge === undefined) return
    this.#charges.delete(charge)
    charge.release()
  }

  #newWindow(segment: Segment): Window {
    this.#windowsMade += 1
    const id = this.#windowsMade
    const window = new Window(id, segment, () => {
      this.#windows.delete(id)
      this.#releaseOne()
    })
    this.#windows.set(id, window)
    return window.hold()
  }
}

/** Page sizes of IOMMUs and of page tables: a vaddr must be whole pages of the IOMMU (64 KiB where the
 * host has such pages), and one that is whole large pages can be mapped with large entries. */
const alignmentFor = (length: bigint): number => (length < 2n << 20n ? 64 << 10 : 2 << 20)

/** Map all of a memory, or say why it cannot be done. */
export function mapWhole(memory: {
  readonly id: string
  readonly fd: number
  readonly length: bigint
}): Promise<Segment> {
  const { id, fd, length } = memory
  const map = async (): Promise<Segment> => {
    const segment = await mapFd(fd, {
      offset: 0n,
      length,
      access: 'read-write',
      alignment: alignmentFor(length),
    })
    if (typeof segment !== 'number') return segment
    throw refusal('mmap of a memory', segment, `map ${hex(length)} bytes of memory "${id}"`)
  }
  return explained(map(), async () => [
    ...judgeMemory(memoryFacts({ id, fd, offset: 0n, length, isMapped: false })),
    ...judgeProcess(processFacts(), length),
  ])
}
