/** What the IOMMUs and groups of a container leave to map into: GET_INFO's IOVA_RANGE capability. */

import { U64_MAX } from '../../../base/units.ts'
import { overlaps, type Range } from '../../../rules/range-map.ts'
import type { ReservedRegion } from '../spec/machine-spec.ts'

/** Ascending and disjoint. Regions that the client may map over are not cut out. */
export const iovaRanges = (
  apertures: readonly Range<bigint>[],
  reserved: readonly ReservedRegion[],
): readonly Range<bigint>[] => {
  let start = 0n
  let last = U64_MAX
  for (const aperture of apertures) {
    if (aperture.start > start) start = aperture.start
    if (aperture.last < last) last = aperture.last
  }
  return reserved
    .filter(({ kind }) => kind !== 'direct-relaxable')
    .reduce<readonly Range<bigint>[]>(
      (left, region) => left.flatMap((range) => cut(range, region)),
      [{ start, last }],
    )
}

const cut = (range: Range<bigint>, hole: Range<bigint>): Range<bigint>[] => {
  if (!overlaps(range, hole)) return [range]
  return [
    ...(range.start < hole.start ? [{ start: range.start, last: hole.start - 1n }] : []),
    ...(hole.last < range.last ? [{ start: hole.last + 1n, last: range.last }] : []),
  ]
}
