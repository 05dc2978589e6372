/**
 * How an iova is chosen: the lowest hole that is neither mapped nor reserved, never in the first
 * page, as aligned as the length and the memory let large pages be used.
 */

import { ERRNO } from '../../../base/errno.ts'
import { PAGE_SIZE, U64_MAX } from '../../../base/units.ts'
import { overlaps, type Range } from '../../../rules/range-map.ts'
import { clipped, merged } from './spans.ts'

/** A large page of the CPU (THP): aligning to more would not help. */
const ALIGNMENT_MAX = 0x20_0000n

const EVERYTHING: Range<bigint> = { start: PAGE_SIZE, last: U64_MAX - PAGE_SIZE }

export interface Wanted {
  /** Where the memory is; 0 for any. */
  readonly address: bigint
  readonly length: bigint
}

export interface Taken {
  /** What may be chosen from; empty for everything. */
  readonly allowed: readonly Range<bigint>[]
  readonly reserved: readonly Range<bigint>[]
  /** The mappings in a range, ascending. */
  mapped(range: Range<bigint>): Iterable<Range<bigint>>
  /** Iovas and lengths are multiples of it. */
  readonly alignment: bigint
  /** Invariant: everything below it, from the second page on, is taken. Only a hint: may be low. */
  packedUpTo: bigint
}

const roundUpToPowerOfTwo = (value: bigint): bigint =>
  value <= 1n ? 1n : 1n << BigInt((value - 1n).toString(2).length)

const alignmentFor = ({ address, length }: Wanted): bigint => {
  const ofLength = roundUpToPowerOfTwo(length)
  const ofAddress = address & -address
  const both = address === 0n || ofLength < ofAddress ? ofLength : ofAddress
  return both < ALIGNMENT_MAX ? both : ALIGNMENT_MAX
}

/** The iova, or -errno as a negative number. */
export const chooseIova = (wanted: Wanted, taken: Taken): bigint => {
  if (wanted.length === 0n || wanted.length >= U64_MAX / 2n) return BigInt(-ERRNO.EOVERFLOW)
  const alignment = alignmentFor(wanted)
  if (alignment < taken.alignment) return BigInt(-ERRNO.EINVAL)
  const offset = wanted.address % PAGE_SIZE

  /** The first address of the range where it fits, or undefined. */
  const fit = ({ start, last }: Range<bigint>): bigint | undefined => {
    const rounded = start + alignment - 1n
    if (rounded > U64_MAX) return undefined
    const at = (rounded & -alignment) | offset
    return at >= last || last - at < wanted.length - 1n ? undefined : at
  }

  const spans =
    taken.allowed.length === 0
      ? [EVERYTHING]
      : merged(taken.allowed).flatMap((range) => clipped(range, EVERYTHING) ?? [])
  for (const span of spans) {
    const first = fit(span)
    if (first === undefined) continue
    for (const hole of holesFrom({ start: first, last: span.last }, taken)) {
      const at = fit(hole)
      if (at !== undefined) return at
    }
  }
  return BigInt(-ERRNO.ENOSPC)
}

/** What is free of a range, ascending. Whatever is full at the bottom is walked over only once. */
function* holesFrom(range: Range<bigint>, taken: Taken): Generator<Range<bigint>> {
  const isWhole = taken.allowed.length === 0
  const start = isWhole && taken.packedUpTo > range.start ? taken.packedUpTo : range.start
  const reserved = merged(taken.reserved)
  let at = start
  let isPacked = isWhole && start === taken.packedUpTo
  const useUpTo = (last: bigint): void => {
    if (last + 1n > at) at = last + 1n
    if (isPacked) taken.packedUpTo = at
  }
  if (start > range.last) return
  for (const area of taken.mapped({ start, last: range.last })) {
    for (const { start: from, last: to } of reserved.filter((one) =>
      overlaps(one, { start: at, last: area.start }),
    )) {
      if (from > at) {
        isPacked = false
        yield { start: at, last: from - 1n }
      }
      useUpTo(to)
    }
    if (area.start > at) {
      isPacked = false
      yield { start: at, last: area.start - 1n }
    }
    useUpTo(area.last)
  }
  for (const { start: from, last: to } of reserved) {
    if (to < at || from > range.last) continue
    if (from > at) yield { start: at, last: from - 1n }
    if (to + 1n > at) at = to + 1n
  }
  if (at <= range.last) yield { start: at, last: range.last }
}
