/**
 * Takes dirty bits from the kernel, which clears the bits that it returns. So every bit in a bitmap is
 * kept, even if the call failed. Only bits of mapped pages that devices may write are used: the kernel
 * leaves bits of former reports in the gaps.
 */

import { setImmediate } from 'node:timers/promises'
import { type IovaRange, iova } from '../../base/units.ts'
import { type BitmapSpace, bitmapBytes } from '../../kernel/dirty-calls.ts'
import { readLog } from '../../kernel/dma-log-calls.ts'
import type { Kernel } from '../../kernel/port.ts'
import { allocPages, freeSegment, type Segment } from '../../os/memory.ts'
import type { DirtyPages } from '../../rules/dirty-pages.ts'
import { overlaps } from '../../rules/range-map.ts'
import { slicesOf, uncovered, WINDOW_PAGES, windowsOf } from '../../rules/watched-ranges.ts'
import type { AddressSpace } from '../space/space.ts'
import { isOfMemory, type MappingRecord } from '../state/records.ts'
import type { State } from '../state/state.ts'
import { requireDirtyBits } from './request.ts'
import { type DeviceDmaLog, EVERYWHERE, type Tracking } from './tracking.ts'

/** Bytes of a bitmap that are zeroed by hand; longer ones are new memory, which the kernel zeroes as it is used. */
const ZEROED_MAX = 1 << 20

/** Memory for the bitmaps of the kernel. */
export class Scratch {
  readonly #pageSize: bigint
  #segment: Segment | undefined

  constructor(pageSize: bigint) {
    this.#pageSize = pageSize
  }

  /** Zeros for the bits of a range. */
  for({ start, last }: IovaRange): BitmapSpace {
    const length = bitmapBytes((last - start + 1n) / this.#pageSize)
    const known = this.#segment
    if (known !== undefined && known.length >= length && length <= ZEROED_MAX) {
      known.view(0, length).fill(0)
      return { pageSize: this.#pageSize, segment: known }
    }
    this.free()
    this.#segment = allocPages(length)
    return { pageSize: this.#pageSize, segment: this.#segment }
  }

  free(): void {
    if (this.#segment !== undefined) freeSegment(this.#segment)
    this.#segment = undefined
  }
}

/** Pages whose bits are handled without a pause: a millisecond of work in the worst case. */
const PIECE_PAGES = 1n << 20n

/** The parts that a sync works with. */
export interface SyncContext {
  readonly kernel: Kernel
  readonly state: State
  readonly space: AddressSpace
  readonly tracking: Tracking
  readonly scratch: Scratch
}

const rangeOf = (window: readonly [MappingRecord, ...MappingRecord[]]): IovaRange => ({
  start: window[0].start,
  last: (window.at(-1) as MappingRecord).last,
})

const shared = (a: IovaRange, b: IovaRange): IovaRange => ({
  start: a.start > b.start ? a.start : b.start,
  last: a.last < b.last ? a.last : b.last,
})

/**
 * Take the dirty bits of the container for the first mappings in the range, as many as one call can
 * cover. Answers the rest of the range, or undefined at the end. Runs in the lane of the space.
 */
export async function syncContainer(
  context: SyncContext,
  range: IovaRange,
): Promise<IovaRange | undefined> {
  const { space, tracking, scratch } = context
  const window = windowsOf(space.mappings.overlapping(range), tracking.pageSize).next().value
  if (window === undefined) return undefined
  const asked = rangeOf(window)
  const bitmap = scratch.for(asked)
  try {
    await requireDirtyBits(space).read(asked, bitmap)
  } finally {
    await collect(tracking.pending, window, { of: asked, bitmap })
  }
  return asked.last < range.last ? { start: iova(asked.last + 1n), last: range.last } : undefined
}

/**
 * The pieces in which a log is read for a range, where memory is mapped: no page of the log is in two
 * of them.
 */
export function* logSlices(
  { tracking, space }: Pick<SyncContext, 'space' | 'tracking'>,
  { ranges, pageSize }: DeviceDmaLog,
  range: IovaRange,
): Generator<IovaRange, void> {
  const window = WINDOW_PAGES * tracking.pageSize
  const step = pageSize > window ? pageSize : window
  const wide = { start: iova(range.start & -pageSize), last: iova(range.last | (pageSize - 1n)) }
  for (const watched of ranges.filter((each) => overlaps(each, wide))) {
    for (let rest = shared(watched, wide); rest.start <= rest.last; ) {
      const mapping = space.mappings.conflict(rest)
      if (mapping === undefined) break
      const start = iova(shared(mapping, rest).start & -pageSize)
      const slice = shared(rest, { start, last: iova((start & -step) + step - 1n) })
      yield slice
      rest = { start: iova(slice.last + 1n), last: rest.last }
    }
  }
}

/** Take the dirty bits of a log for one slice. Runs in the lane of the device. */
export async function syncLog(
  { kernel, space, tracking, scratch }: SyncContext,
  log: DeviceDmaLog,
  slice: IovaRange,
): Promise<void> {
  const bitmap = scratch.for(slice)
  try {
    await readLog(kernel, log.device.fd, slice, bitmap)
  } finally {
    await collect(tracking.pending, space.mappings.overlapping(slice), { of: slice, bitmap })
  }
}

/** Mark the mapped pages of a range that a log does not watch: they may have been written. */
export function markUnwatched(
  { space, tracking }: Pick<SyncContext, 'space' | 'tracking'>,
  range: IovaRange,
): void {
  for (const { ranges } of tracking.logs.values()) {
    for (const gap of uncovered(range, ranges)) markWritable({ space, tracking }, gap)
  }
}

/** Mark all pages of a range that devices may write. */
function markWritable(
  { space, tracking }: Pick<SyncContext, 'space' | 'tracking'>,
  range: IovaRange,
): void {
  for (const mapping of writable(space.mappings.overlapping(range))) {
    tracking.pending.mark(shared(mapping, range))
  }
}

/**
 * The device, and with it its log, is about to be closed: take its dirty bits. Runs in the lane of the
 * device.
 */
export async function syncBeforeClose(
  at: Omit<SyncContext, 'scratch'>,
  log: DeviceDmaLog,
): Promise<void> {
  const { tracking } = at
  if (tracking.logs.get(log.device) !== log) return
  const context = { ...at, scratch: new Scratch(tracking.pageSize) }
  for (const slice of logSlices(context, log, EVERYWHERE)) await syncLogAtLeast(context, log, slice)
  markUnwatched(context, EVERYWHERE)
  tracking.logs.delete(log.device)
  context.scratch.free()
}

/**
 * Unmap mappings and collect the pages written until then: a container reports them in the same call; a
 * log is read afterwards, because its device can no longer write there. The pages go into `pages`, even
 * if it fails. Answers the bytes unmapped. Runs in the lane of the space.
 */
export async function unmapSyncing(
  context: SyncContext,
  found: readonly MappingRecord[],
  pages: DirtyPages,
): Promise<bigint> {
  const { state, space, tracking } = context
  let bytes = 0n
  for (const window of windowsOf(found, tracking.pageSize)) {
    bytes += await unmapWindow(context, window)
    try {
      for (const log of tracking.logs.values()) {
        for (const slice of logSlices(context, log, rangeOf(window))) {
          await log.device.lane.run(() => syncLogAtLeast(context, log, slice))
        }
      }
      markUnwatched(context, rangeOf(window))
    } finally {
      for (const mapping of window) pages.merge(tracking.pending.take(mapping))
      state.apply({ kind: 'unmapped', spaceId: space.id, mappings: window })
    }
  }
  return bytes
}

async function unmapWindow(
  { space, tracking, scratch }: SyncContext,
  window: readonly [MappingRecord, ...MappingRecord[]],
): Promise<bigint> {
  const asked = rangeOf(window)
  if (!tracking.isIommu) return space.iommu.unmap(asked)
  const bitmap = scratch.for(asked)
  const bytes = await requireDirtyBits(space).readAndUnmap(asked, bitmap)
  await collect(tracking.pending, window, { of: asked, bitmap })
  return bytes
}

/** Take the dirty bits of a log for one slice, or mark all mapped pages there if it cannot be read. */
async function syncLogAtLeast(
  context: SyncContext,
  log: DeviceDmaLog,
  slice: IovaRange,
): Promise<void> {
  try {
    await syncLog(context, log, slice)
  } catch {
    markWritable(context, slice)
  }
}

/** Add the bits of mappings to a set, a piece at a time, so that other calls run in between. */
async function collect(
  into: DirtyPages,
  mappings: Iterable<MappingRecord>,
  from: { readonly of: IovaRange; readonly bitmap: BitmapSpace },
): Promise<void> {
  const { pageSize, segment } = from.bitmap
  const bits = { iova: from.of.start, bytes: segment.bytes }
  const step = PIECE_PAGES * pageSize
  for (const mapping of [...writable(mappings)]) {
    for (const part of slicesOf(shared(mapping, from.of), step)) {
      into.add(part, bits)
      if (part.last !== mapping.last) await setImmediate()
    }
  }
}

/** The mappings of memory that devices may write: a region of a device is not copied. */
function* writable(mappings: Iterable<MappingRecord>): Generator<MappingRecord, void> {
  for (const mapping of mappings)
    if (mapping.access !== 'read' && isOfMemory(mapping)) yield mapping
}
