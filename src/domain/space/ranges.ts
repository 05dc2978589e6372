/** Turning the (iova, length) pairs of requests into ranges, or saying what is wrong with them. */

import { VfiodError } from '../../base/error.ts'
import { hex, type IovaRange, iova, rangeText, U64_MAX } from '../../base/units.ts'
import { isOfMemory, type MappingRecord } from '../state/records.ts'

export interface Piece {
  readonly iova: bigint
  readonly length: bigint
}

/** `0x1000..0x1fff of memory "ram"`: how a mapping reads in messages. */
export const mappingText = (mapping: MappingRecord): string =>
  isOfMemory(mapping)
    ? `${rangeText(mapping)} of memory "${mapping.memoryId}"`
    : `${rangeText(mapping)} of region ${mapping.region} of ${mapping.device}`

/**
 * The range of a piece, both ends inside. Zero lengths, misalignment and running past 2^64 are
 * BAD_RANGE. So is ending exactly at 2^64: kernels before 6.18 lose track of such a mapping.
 */
export function requireRange(act: string, piece: Piece, alignment: bigint): IovaRange {
  const bad = (why: string): VfiodError =>
    new VfiodError(
      'BAD_RANGE',
      `Cannot ${act} ${hex(piece.length)} bytes at iova ${hex(piece.iova)}: ${why}`,
      {
        field: piece.length === 0n || piece.length % alignment !== 0n ? 'length' : 'iova',
      },
    )
  if (piece.length === 0n) throw bad('the length is zero; name at least one page')
  if (piece.length % alignment !== 0n || piece.iova % alignment !== 0n) {
    throw bad(`both must be a multiple of ${hex(alignment)}`)
  }
  if (piece.iova + piece.length > U64_MAX) throw bad('it does not end below 2^64')
  return { start: iova(piece.iova), last: iova(piece.iova + piece.length - 1n) }
}

/** The range must lie inside one aperture: the kernel does not bridge two. */
export function requireInside(
  act: string,
  range: IovaRange,
  apertures: readonly IovaRange[] | undefined,
): void {
  if (apertures === undefined) return
  if (apertures.some(({ start, last }) => start <= range.start && range.last <= last)) return
  throw new VfiodError(
    'IOVA_OUT_OF_APERTURE',
    `Cannot ${act} iova ${rangeText(range)}: the address space reaches ${apertures.map(rangeText).join(' and ')}; choose a range inside one of these`,
    { field: 'iova' },
  )
}
