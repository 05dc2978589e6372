/** Ranges that may overlap, seen as what they cover together and what they leave. */

import { U64_MAX } from '../../../base/units.ts'
import type { Range } from '../../../rules/range-map.ts'

type Span = Range<bigint>

/** Ascending, disjoint, and with a gap between any two. */
export const merged = (ranges: Iterable<Span>): Span[] => {
  const sorted = [...ranges].sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0))
  const spans: Span[] = []
  for (const range of sorted) {
    const before = spans.at(-1)
    if (before === undefined || range.start > before.last + 1n) spans.push(range)
    else if (range.last > before.last)
      spans[spans.length - 1] = { start: before.start, last: range.last }
  }
  return spans
}

/** What ranges leave of the address space. */
export const holesIn = (ranges: Iterable<Span>): Span[] => {
  const holes: Span[] = []
  let at = 0n
  for (const { start, last } of merged(ranges)) {
    if (start > at) holes.push({ start: at, last: start - 1n })
    at = last + 1n
  }
  if (at <= U64_MAX) holes.push({ start: at, last: U64_MAX })
  return holes
}

/** The part of a range inside another, or undefined. */
export const clipped = (range: Span, to: Span): Span | undefined => {
  const start = range.start > to.start ? range.start : to.start
  const last = range.last < to.last ? range.last : to.last
  return start <= last ? { start, last } : undefined
}
