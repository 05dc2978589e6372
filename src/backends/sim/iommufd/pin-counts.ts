/** How many times each page of a run is pinned. A page is charged for the first time only. */

import { type Range, RangeMap } from '../../../rules/range-map.ts'

type Pages = Range<bigint>

const length = ({ start, last }: Pages): bigint => last - start + 1n

export class PinCounts {
  readonly #counts = new RangeMap<number, bigint>()

  /** Pins once more; answers how many pages were not pinned before. */
  add(range: Pages): bigint {
    let fresh = 0n
    for (const piece of this.#pieces(range)) {
      if (piece.count === 0) fresh += length(piece)
      else this.#counts.remove(piece.start)
      this.#counts.insert(piece, piece.count + 1)
    }
    return fresh
  }

  /** Unpins once; answers how many pages are not pinned any more. */
  remove(range: Pages): bigint {
    let freed = 0n
    for (const piece of this.#pieces(range)) {
      if (piece.count === 0) throw new Error('Cannot unpin a page that is not pinned')
      this.#counts.remove(piece.start)
      if (piece.count === 1) freed += length(piece)
      else this.#counts.insert(piece, piece.count - 1)
    }
    return freed
  }

  /** How many pages of the range are not pinned. */
  missing(range: Pages): bigint {
    let pinned = 0n
    for (const { start, last } of this.#counts.overlapping(range)) {
      const from = start > range.start ? start : range.start
      pinned += (last < range.last ? last : range.last) - from + 1n
    }
    return length(range) - pinned
  }

  /** The range in pieces of one count each; entries that reach out of it are cut at its ends. */
  #pieces(range: Pages): (Pages & { readonly count: number })[] {
    this.#cut(range.start)
    this.#cut(range.last + 1n)
    const pieces: (Pages & { readonly count: number })[] = []
    let at = range.start
    for (const { start, last, value } of this.#counts.overlapping(range)) {
      if (start > at) pieces.push({ start: at, last: start - 1n, count: 0 })
      pieces.push({ start, last, count: value })
      at = last + 1n
    }
    if (at <= range.last) pieces.push({ start: at, last: range.last, count: 0 })
    return pieces
  }

  #cut(at: bigint): void {
    const entry = this.#counts.find(at)
    if (entry === undefined || entry.start === at) return
    this.#counts.remove(entry.start)
    this.#counts.insert({ start: entry.start, last: at - 1n }, entry.value)
    this.#counts.insert({ start: at, last: entry.last }, entry.value)
  }
}
