/** Tracking by the device itself: which pages it wrote, within the ranges it was told to watch. */

import { ERRNO } from '../../../../base/errno.ts'
import { PAGE_SIZE } from '../../../../base/units.ts'
import type { Range } from '../../../../rules/range-map.ts'
import { IovaBitmap } from '../../iommufd/iova-bitmap.ts'
import type { DmaLoggingOps } from '../../vfio/dma-logging.ts'

export class DmaLog implements DmaLoggingOps {
  readonly #startedAgain: number
  #ranges: readonly Range<bigint>[] | undefined
  /** The pages that were written, by number. */
  readonly #written = new Set<bigint>()
  #pageSize = PAGE_SIZE

  constructor(startedAgain: number) {
    this.#startedAgain = startedAgain
  }

  start(ranges: readonly Range<bigint>[], pageSize: bigint): bigint {
    if (this.#ranges !== undefined) return BigInt(this.#startedAgain)
    // The device tracks powers of two, and nothing finer than a page.
    if ((pageSize & (pageSize - 1n)) !== 0n) return BigInt(-ERRNO.EINVAL)
    this.#ranges = ranges
    this.#pageSize = pageSize < PAGE_SIZE ? PAGE_SIZE : pageSize
    return this.#pageSize
  }

  stop(): number {
    this.#ranges = undefined
    this.#written.clear()
    return 0
  }

  report(range: Range<bigint>, pageSize: bigint, bitmap: bigint): number {
    const isWatched = this.#ranges?.some(
      ({ start, last }) => start <= range.start && range.last <= last,
    )
    if (!isWatched) return -ERRNO.EINVAL
    const bits = new IovaBitmap(bitmap, range.start, pageSize)
    for (const page of this.#written) {
      const start = page * this.#pageSize
      const last = start + this.#pageSize - 1n
      if (last < range.start || start > range.last) continue
      const from = start < range.start ? range.start : start
      bits.set({ start: from, last: last > range.last ? range.last : last })
      this.#written.delete(page)
    }
    return 0
  }

  /** The device wrote there. */
  note(iova: bigint, length: number): void {
    const ranges = this.#ranges
    if (ranges === undefined || length === 0) return
    const last = (iova + BigInt(length) - 1n) / this.#pageSize
    for (let page = iova / this.#pageSize; page <= last; page++) {
      const start = page * this.#pageSize
      const isWatched = ranges.some(
        (r) => r.start <= start + this.#pageSize - 1n && start <= r.last,
      )
      if (isWatched) this.#written.add(page)
    }
  }
}
