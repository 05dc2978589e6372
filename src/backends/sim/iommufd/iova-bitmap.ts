/**
 * The bitmap of IOMMU_HWPT_GET_DIRTY_BITMAP in the caller's memory: bit 0 is the first page. Bits
 * are only ever set, and what cannot be reached is left out without a word.
 */

import { PAGE_SIZE } from '../../../base/units.ts'
import type { Range } from '../../../rules/range-map.ts'
import { userBytes } from '../core/user-memory.ts'

export class IovaBitmap {
  readonly #address: bigint
  readonly #base: bigint
  /** The lowest set bit of the page size, which is the page size itself for a power of two. */
  readonly #pageSize: bigint

  constructor(address: bigint, base: bigint, pageSize: bigint) {
    this.#address = address
    this.#base = base
    this.#pageSize = pageSize & -pageSize
  }

  set({ start, last }: Range<bigint>): void {
    let bit = (start - this.#base) / this.#pageSize
    const lastBit = (last - this.#base) / this.#pageSize
    while (bit <= lastBit) {
      const at = this.#address + bit / 8n
      // A page at a time, as far as they can be pinned.
      const pageEnd = (at & -PAGE_SIZE) + PAGE_SIZE
      const lastHere = (pageEnd - this.#address) * 8n - 1n
      const until = lastHere < lastBit ? lastHere : lastBit
      const bytes = userBytes(at, Number(until / 8n - bit / 8n) + 1)
      if (bytes === undefined) return
      setBits(bytes, Number(bit % 8n), Number(until - bit) + 1)
      bit = until + 1n
    }
  }
}

const setBits = (bytes: Uint8Array, first: number, count: number): void => {
  for (let bit = first; bit < first + count; ) {
    const index = bit >> 3
    if (bit % 8 === 0 && first + count - bit >= 8) {
      bytes[index] = 0xff
      bit += 8
    } else {
      bytes[index] = (bytes[index] ?? 0) | (1 << (bit % 8))
      bit += 1
    }
  }
}
