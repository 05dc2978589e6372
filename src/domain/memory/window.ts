/**
 * A window is one mmap of a whole memory. A memory holds its current window, through which new
 * mappings are made; each mapping holds the window that it was made through. A remap makes a new
 * window, and the old one is unmapped when nothing holds it.
 */

import { type Vaddr, vaddr } from '../../base/units.ts'
import { freeSegment, type Segment } from '../../os/memory.ts'

export class Window {
  readonly id: number
  readonly #segment: Segment
  readonly #onFreed: () => void
  #holders = 0

  constructor(id: number, segment: Segment, onFreed: () => void) {
    this.id = id
    this.#segment = segment
    this.#onFreed = onFreed
  }

  at(offset: bigint): Vaddr {
    return vaddr(this.#segment.address + offset)
  }

  hold(): this {
    this.#holders += 1
    return this
  }

  /** The last holder unmaps it. */
  drop(): void {
    this.#holders -= 1
    if (this.#holders > 0) return
    freeSegment(this.#segment)
    this.#onFreed()
  }
}
