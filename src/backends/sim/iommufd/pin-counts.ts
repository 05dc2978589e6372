/** How many times each page of a run is pinned. A page is charged for the first time only. */

import { type Range, RangeMap } from '../../../rules/range-map.ts'

type Pages = Range<bigint>
type Counts = RangeMap<number, bigint>

const length = ({ start, last }: Pages): bigint => last - start + 1n

export class PinCounts {
  /** The pages, if each is pinned once: most are pinned and unpinned for one area, as a whole. */
  #once: Pages | undefined
  /** The count of each page, once `#once` cannot express it. Invariant: never both. */
  #counts: Counts | undefined

  /** Pins once more; answers how many pages were not pinned before. */
  add(range: Pages): bigint {
    if (this.#counts === undefined && this.#once === undefined) {
      this.#once = range
      return length(range)
    }
    const counts = this.#spread()
    let fresh = 0n
    for (const piece of pieces(counts, range)) {
      if (piece.count === 0) fresh += length(piece)
      else counts.remove(piece.start)
      counts.insert(piece, piece.count + 1)
    }
    return fresh
  }

  /** Unpins once; answers how many pages are not pinned any more. */
  remove(range: Pages): bigint {
    if (this.#once?.start === range.start && this.#once.last === range.last) {
      this.#once = undefined
      return length(range)
    }
    const counts = this.#spread()
    let freed = 0n
    for (const piece of pieces(counts, range)) {
      if (piece.count === 0) throw new Error('Cannot unpin a page that is not pinned')
      counts.remove(piece.start)
      if (piece.count === 1) freed += length(piece)
      else counts.insert(piece, piece.count - 1)
    }
    return freed
  }

  /** How many pages of the range are not pinned. */
  missing(range: Pages): bigint {
    if (this.#counts === undefined && this.#once === undefined) return length(range)
    let pinned = 0n
    for (const { start, last } of this.#spread().overlapping(range)) {
      const from = start > range.start ? start : range.start
      pinned += (last < range.last ? last : range.last) - from + 1n
    }
    return length(range) - pinned
  }

  #spread(): Counts {
    this.#counts ??= new RangeMap()
    if (this.#once) this.#counts.insert(this.#once, 1)
    this.#once = undefined
    return this.#counts
  }
}

/** The range in pieces of one count each; entries that reach out of it are cut at its ends. */
const pieces = (counts: Counts, range: Pages): (Pages & { readonly count: number })[] => {
  cut(counts, range.start)
  cut(counts, range.last + 1n)
  const found: (Pages & { readonly count: number })[] = []
  let at = range.start
  for (const { start, last, value } of counts.overlapping(range)) {
    if (start > at) found.push({ start: at, last: start - 1n, count: 0 })
    found.push({ start, last, count: value })
    at = last + 1n
  }
  if (at <= range.last) found.push({ start: at, last: range.last, count: 0 })
  return found
}

const cut = (counts: Counts, at: bigint): void => {
  const entry = counts.find(at)
  if (entry === undefined || entry.start === at) return
  counts.remove(entry.start)
  counts.insert({ start: entry.start, last: at - 1n }, entry.value)
  counts.insert({ start: at, last: entry.last }, entry.value)
}
