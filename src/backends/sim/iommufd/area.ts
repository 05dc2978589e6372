/** One mapping of an ioas: a slice of pages at an iova. It is unmapped as a whole. */

import { PAGE_SIZE } from '../../../base/units.ts'
import type { MemoryPiece } from '../../../os/pieces.ts'
import type { Range } from '../../../rules/range-map.ts'
import type { Pages } from './pages.ts'

export class Area implements Range<bigint> {
  readonly start: bigint
  readonly last: bigint
  readonly pages: Pages
  /** Where it begins in the pages, in bytes. */
  readonly startByte: bigint
  /** What the device may do: the READABLE and WRITEABLE flags. */
  readonly access: number
  /** Whether domains have it. Invariant: its pages are pinned for it then. */
  isFilled = false
  /** How often accesses have pinned something of it: it cannot be unmapped or cut meanwhile. */
  accesses = 0

  constructor(
    at: { readonly iova: bigint; readonly length: bigint; readonly startByte: bigint },
    pages: Pages,
    access: number,
  ) {
    this.start = at.iova
    this.last = at.iova + at.length - 1n
    this.startByte = at.startByte
    this.pages = pages
    this.access = access
  }

  get length(): bigint {
    return this.last - this.start + 1n
  }

  get pageOffset(): bigint {
    return this.startByte % PAGE_SIZE
  }

  /** The pages that it touches, by their index. */
  get pageRange(): Range<bigint> {
    return {
      start: this.startByte / PAGE_SIZE,
      last: (this.startByte + this.length - 1n) / PAGE_SIZE,
    }
  }

  /** Where an iova of the area is in the pages. */
  byteOf(iova: bigint): bigint {
    return this.startByte + (iova - this.start)
  }

  /** Where the first byte is, physically as far as the simulator knows. */
  get physical(): bigint {
    return this.pages.source.base + this.startByte
  }

  piece(iova: bigint, length: number): MemoryPiece | undefined {
    return this.pages.source.piece(this.byteOf(iova), length)
  }
}
