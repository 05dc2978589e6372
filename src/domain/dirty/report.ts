/** How dirty pages are put into messages: as bitmaps or as ranges, each message of a bounded size. */

import { LIMITS } from '../../base/limits.ts'
import type { IovaRange } from '../../base/units.ts'
import type { CountedBitmap } from '../../rules/dirty-pages.ts'
import type { Delivery } from './tracking.ts'

/** How pages are reported. */
export type Form = 'bitmaps' | 'ranges'

export type PagesEvent =
  | {
      readonly kind: 'bitmaps'
      readonly pageSize: bigint
      readonly bitmaps: readonly CountedBitmap[]
    }
  | { readonly kind: 'ranges'; readonly ranges: readonly IovaRange[] }

/** Pages that a message reports; each message counts its own, so that no pass counts all at once. */
export function countOf(event: PagesEvent, pageSize: bigint): number {
  if (event.kind === 'bitmaps') return event.bitmaps.reduce((sum, { count }) => sum + count, 0)
  const bytes = event.ranges.reduce((sum, { start, last }) => sum + (last - start + 1n), 0n)
  return Number(bytes / pageSize)
}

/** Messages of a bounded size, for as many pages as there are. */
export function* eventsOf({ pages }: Delivery, form: Form): Generator<PagesEvent, void> {
  const { pageSize } = pages
  if (form === 'ranges') {
    for (const ranges of grouped(pages.ranges(), LIMITS.dirtyRanges, () => 1)) {
      yield { kind: 'ranges', ranges }
    }
    return
  }
  const weight = ({ bytes }: CountedBitmap) => bytes.length
  for (const bitmaps of grouped(pages.bitmaps(), LIMITS.dirtyBytes, weight)) {
    yield { kind: 'bitmaps', pageSize, bitmaps }
  }
}

/** Groups that end once they weigh enough. */
function* grouped<Item>(
  items: Iterable<Item>,
  enough: number,
  weightOf: (item: Item) => number,
): Generator<Item[], void> {
  let group: Item[] = []
  let weight = 0
  for (const item of items) {
    group.push(item)
    weight += weightOf(item)
    if (weight < enough) continue
    yield group
    group = []
    weight = 0
  }
  if (group.length > 0) yield group
}
