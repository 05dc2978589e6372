/**
 * Taking dirty bits from the kernel, which clears them as it gives them: whatever it has put into a
 * bitmap is kept, also when the call failed. Only bits of pages that are mapped, and that devices may
 * write, are believed: the kernel leaves bits of former reports in the gaps.
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
import type { MappingRecord } from '../state/records.ts'
import type { State } from '../state/state.ts'
import { requireDirtyBits } from './request.ts'
import { type DeviceDmaLog, EVERYWHERE, type Tracking } from './tracking.ts'

/** Memory that the kernel writes bitmaps to, grown to the longest that is needed. */
export class Scratch {
  readonly #pageSize: bigint
  #segment: Segment | undefined

  constructor(pageSize: bigint) {
    this.#pageSize = pageSize
  }

  /** Zeros for the bits of a range. */
  for({ start, last }: IovaRange): BitmapSpace {
    const length = bitmapBytes((last - start + 1n) / this.#pageSize)
    if (this.#segment === undefined || this.#segment.length < length) {
      this.free()
      this.#segment = allocPages(length)
    }
    this.#segment.view(0, length).fill(0)
    return { pageSize: this.#pageSize, segment: this.#segment }
  }

  free(): void {
    if (this.#segment !== undefined) freeSegment(this.#segment)
    this.#segment = undefined
  }
}

/** Pages whose bits are sorted in one go: a millisecond's work where they lie badly. */
const PIECE_PAGES = 1n << 20n

/** What a harvest works with. */
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
 * Keep what the container knows of the first mappings that the range touches, as many as one call
 * can ask for. Answers where to go on, or undefined at the end. Runs in the lane of the space.
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
 * The pieces in which a log is asked about a range, where something is mapped: no page of the log is
 * in two of them.
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

/** Keep what a log knows of one slice. Runs in the lane of the device. */
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

/** Keep what is mapped in a range and not watched by a log: nobody knows, so it may be written. */
export function markUnwatched(
  { space, tracking }: Pick<SyncContext, 'space' | 'tracking'>,
  range: IovaRange,
): void {
  for (const { ranges } of tracking.logs.values()) {
    for (const gap of uncovered(range, ranges)) markWritable({ space, tracking }, gap)
  }
}

/** Keep all that devices may have written in a range. */
function markWritable(
  { space, tracking }: Pick<SyncContext, 'space' | 'tracking'>,
  range: IovaRange,
): void {
  for (const mapping of writable(space.mappings.overlapping(range))) {
    tracking.pending.mark(shared(mapping, range))
  }
}

/**
 * The device is about to be closed, and its log with it: keep what it wrote until here. Runs in the
 * lane of the device.
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
 * Unmap mappings and find what was written until then: a container tells in the same call, and a log
 * is asked afterwards, for its device reaches nothing there any more. What is found goes into `pages`,
 * also when it fails. Answers the bytes unmapped. Runs in the lane of the space.
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

/** Keep what a log knows of one slice, or all that is mapped there where it does not say. */
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

/** Add the bits of mappings to a set, a piece at a time: others want to go on as well. */
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

/** What devices may only read, they cannot have written. */
function* writable(mappings: Iterable<MappingRecord>): Generator<MappingRecord, void> {
  for (const mapping of mappings) if (mapping.access !== 'read') yield mapping
}
