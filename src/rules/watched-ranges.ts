/**
 * What dirty bits are asked for at once: windows over mappings for a container, ranges and slices of
 * them for the log of a device. Bits of one page must never be split between two questions, for the
 * first answer clears them.
 */

import { type IovaRange, iova } from '../base/units.ts'

/** Pages of one question, which one mapping may exceed: a bitmap of 1 MiB. */
export const WINDOW_PAGES = 1n << 23n

/** Pages that one 64-bit word of a bitmap stands for. */
const WORD_PAGES = 64n

/**
 * Groups mappings, ascending, so that one VFIO_IOMMU_DIRTY_PAGES can ask for each group: whole
 * mappings only, and each at the start of a word of the bitmap. The kernel shifts the bits of other
 * mappings in place and leaves some of them behind, past the last page of the mapping.
 */
export function* windowsOf<Mapping extends IovaRange>(
  mappings: Iterable<Mapping>,
  pageSize: bigint,
): Generator<[Mapping, ...Mapping[]], void> {
  let window: [Mapping, ...Mapping[]] | undefined
  for (const mapping of mappings) {
    const start = window?.[0].start
    const isNext =
      start !== undefined &&
      (mapping.start - start) % (WORD_PAGES * pageSize) === 0n &&
      mapping.last - start < WINDOW_PAGES * pageSize
    if (isNext) window?.push(mapping)
    else {
      if (window !== undefined) yield window
      window = [mapping]
    }
  }
  if (window !== undefined) yield window
}

/** The ranges, each widened to whole pages of that size, and those that meet then joined. */
export function widened(ranges: readonly IovaRange[], pageSize: bigint): IovaRange[] {
  const wide = ranges
    .map(({ start, last }) => ({ start: start & -pageSize, last: last | (pageSize - 1n) }))
    .sort((a, b) => (a.start < b.start ? -1 : 1))
  const joined: { start: bigint; last: bigint }[] = []
  for (const range of wide) {
    const before = joined.at(-1)
    if (before === undefined || range.start > before.last + 1n) joined.push(range)
    else if (range.last > before.last) before.last = range.last
  }
  return joined.map(({ start, last }) => ({ start: iova(start), last: iova(last) }))
}

/** At most so many ranges that have all of these inside; the smallest gaps are given up first. */
export function covered(ranges: readonly IovaRange[], max: number): IovaRange[] {
  if (ranges.length <= max) return [...ranges]
  const gaps = ranges.slice(1).map(({ start }, n) => ({
    before: n + 1,
    length: start - (ranges[n] as IovaRange).last,
  }))
  const kept = gaps.sort((a, b) => (a.length > b.length ? -1 : 1)).slice(0, max - 1)
  const firsts = [0, ...kept.map(({ before }) => before).sort((a, b) => a - b)]
  return firsts.map((first, n) => {
    const end = firsts[n + 1] ?? ranges.length
    return { start: (ranges[first] as IovaRange).start, last: (ranges[end - 1] as IovaRange).last }
  })
}

/** The parts of a range that are asked for one by one; a page of the log is in one of them only. */
export function* slicesOf({ start, last }: IovaRange, step: bigint): Generator<IovaRange, void> {
  for (let from = start as bigint; from <= last; ) {
    const end = (from & -step) + step - 1n
    yield { start: iova(from), last: iova(end < last ? end : last) }
    from = end + 1n
  }
}

/** The parts of a range that none of the others cover; those ascend and do not overlap. */
export function* uncovered(
  { start, last }: IovaRange,
  others: readonly IovaRange[],
): Generator<IovaRange, void> {
  let from: bigint = start
  for (const other of others) {
    if (other.last < from) continue
    if (other.start > last) break
    if (other.start > from) yield { start: iova(from), last: iova(other.start - 1n) }
    from = other.last + 1n
  }
  if (from <= last) yield { start: iova(from), last }
}
