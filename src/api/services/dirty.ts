/** DirtyService: which pages devices wrote. */
import type { Dirty, DirtyEvent, Precision, TrackingView } from '../../domain/dirty/dirty.ts'
import type { Domain } from '../../domain/domain.ts'
import type { DirtyPrecision } from '../../proto/vfiod/v1/DirtyPrecision.ts'
import type { DirtyServiceHandlers } from '../../proto/vfiod/v1/DirtyService.ts'
import type { ReadAndUnmapResponse } from '../../proto/vfiod/v1/ReadAndUnmapResponse.ts'
import type { Tracking } from '../../proto/vfiod/v1/Tracking.ts'
import type { Handlers } from '../call/call.ts'
import { enumName, rangeToProto, u64 } from './convert.ts'
import { itemsOrAll, pieceOf, resultsOf } from './space-convert.ts'

const PRECISION = {
  DIRTY_PRECISION_TRACKED_WRITES: 'tracked-writes',
  DIRTY_PRECISION_PINNED_PAGES: 'pinned-pages',
} as const satisfies Partial<Record<DirtyPrecision, Precision>>

const precisionToProto = (precision: Precision): DirtyPrecision =>
  enumName<keyof typeof PRECISION, Precision>(PRECISION, precision)

const viewToProto = ({ space, tracking, sources, untracked }: TrackingView): Tracking => ({
  spaceId: space.id,
  sources: sources.map(({ log, precision, pageSize }) => ({
    name: log?.device.name ?? '',
    precision: precisionToProto(precision),
    pageSize: String(pageSize),
    ranges: (log?.ranges ?? []).map(rangeToProto),
  })),
  untrackedDevices: [...untracked],
  pageSize: String(tracking.pageSize),
  trackingMs: String(tracking.trackingMs),
  reads: String(tracking.reads),
  lastReadPages: String(tracking.lastReadPages),
  keptPages: String(tracking.pending.count),
})

/** The messages of both kinds of read: the results come with the end of one that unmapped. */
async function* messagesOf(
  events: AsyncIterable<DirtyEvent>,
): AsyncGenerator<ReadAndUnmapResponse, void> {
  for await (const event of events) {
    switch (event.kind) {
      case 'bitmaps': {
        const pageSize = String(event.pageSize)
        yield {
          bitmaps: event.bitmaps.map(({ iova, bytes }) => ({
            iova: String(iova),
            pageSize,
            bitmap: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length),
          })),
        }
        break
      }
      case 'ranges':
        yield {
          ranges: event.ranges.map(({ start, last }) => ({
            iova: String(start),
            length: String(last - start + 1n),
          })),
        }
        break
      case 'end': {
        const { pages, precision, result } = event
        const end = { pages: String(pages), precision: precisionToProto(precision) }
        if (result === undefined) yield { end }
        else yield { end, results: resultsOf(result), unmappedBytes: String(result.bytes) }
      }
    }
  }
}

const formOf = ({ asRanges }: { readonly asRanges: boolean }) => (asRanges ? 'ranges' : 'bitmaps')

const resized = async (
  dirty: Dirty,
  verb: 'demote' | 'promote',
  {
    client,
    spaceId,
    iova,
    length,
  }: { readonly client: Parameters<Dirty['resize']>[0] } & {
    readonly spaceId: string
    readonly iova: string
    readonly length: string
  },
): Promise<never> =>
  dirty.resize(client, spaceId, { iova: u64('iova', iova), length: u64('length', length) }, verb)

export const dirtyHandlers = ({ dirty }: Domain): Handlers<DirtyServiceHandlers> => ({
  StartTracking: async ({ spaceId, iommu, devices, ranges, pageSize }, { client }) => {
    const asked = {
      iommu,
      devices,
      ranges: ranges.map(pieceOf),
      pageSize: u64('page_size', pageSize),
    }
    return { tracking: viewToProto(await dirty.start(client, spaceId, asked)) }
  },

  StopTracking: async ({ spaceId }, { client }) => {
    await dirty.stop(client, spaceId)
    return {}
  },

  GetTracking: async ({ spaceId }, { client }) => {
    const view = dirty.view(client, spaceId)
    return { tracking: view === undefined ? null : viewToProto(view) }
  },

  ReadDirty: (request, { client, signal }) => {
    const { spaceId, iova, length, peek: isPeek, again } = request
    const piece = { iova: u64('iova', iova), length: u64('length', length) }
    const wanted = { spaceId, piece, isPeek, again, form: formOf(request) } as const
    return messagesOf(dirty.read(client, wanted, signal))
  },

  ReadAndUnmap: (request, { client, signal }) => {
    const items = itemsOrAll(request, pieceOf)
    const wanted = { spaceId: request.spaceId, items, form: formOf(request) } as const
    return messagesOf(dirty.readAndUnmap(client, wanted, signal))
  },

  DemotePages: (request, { client }) => resized(dirty, 'demote', { client, ...request }),

  PromotePages: (request, { client }) => resized(dirty, 'promote', { client, ...request }),
})
