/** Dirty tracking: start, stop, read, and read while unmapping. */

import { VfiodError } from '../../base/error.ts'
import { hex, type IovaRange, lengthOf } from '../../base/units.ts'
import { hasDmaLogging, LOG_RANGES_MAX, startLog, stopLog } from '../../kernel/dma-log-calls.ts'
import type { Kernel } from '../../kernel/port.ts'
import { covered, widened } from '../../rules/watched-ranges.ts'
import { notOpen, type OpenDevice } from '../device/device.ts'
import type { Devices } from '../device/devices.ts'
import type { Client } from '../identity/clients.ts'
import type { Charge, Quotas } from '../identity/quotas.ts'
import { type BatchResult, inTurn, requireBatch } from '../space/batch.ts'
import { insideOf } from '../space/mapping.ts'
import { type Piece, requireRange } from '../space/ranges.ts'
import type { AddressSpace } from '../space/space.ts'
import type { Spaces } from '../space/spaces.ts'
import { requireOwner } from '../state/owner.ts'
import type { State } from '../state/state.ts'
import { countOf, eventsOf, type Form, type PagesEvent } from './report.ts'
import {
  noLog,
  requireDirtyBits,
  requireRanges,
  requireSame,
  requireTrackable,
  requireWatchable,
} from './request.ts'
import {
  logSlices,
  markUnwatched,
  Scratch,
  type SyncContext,
  syncContainer,
  syncLog,
  unmapSyncing,
} from './sync.ts'
import {
  type Delivery,
  type DeviceDmaLog,
  EVERYWHERE,
  Tracking,
  type TrackingRequest,
} from './tracking.ts'
import { Trackings } from './trackings.ts'

/** Whether a source reports written pages only, or all mapped pages that devices may write. */
export type Precision = 'tracked-writes' | 'pinned-pages'

export interface Source {
  /** The log of a device; undefined is the container. */
  readonly log: DeviceDmaLog | undefined
  readonly precision: Precision
  readonly pageSize: bigint
}

export interface TrackingView {
  readonly space: AddressSpace
  readonly tracking: Tracking
  readonly sources: readonly Source[]
  /** Open devices whose writes no source sees. */
  readonly untracked: readonly string[]
}

export type DirtyEvent =
  | PagesEvent
  | {
      readonly kind: 'end'
      readonly pages: number
      readonly precision: Precision
      /** Of a batch that was unmapped. */
      readonly result: BatchResult | undefined
    }

export interface DirtyReadRequest {
  readonly spaceId: string
  /** The range to read; the whole space when both are zero. */
  readonly piece: Piece
  readonly isPeek: boolean
  /** Report the pages of the last delivery again. */
  readonly again: boolean
  readonly form: Form
}

export class Dirty {
  readonly #kernel: Kernel
  readonly #spaces: Spaces
  readonly #devices: Devices
  readonly #quotas: Quotas
  readonly #state: State
  readonly #trackings: Trackings

  constructor(parts: {
    readonly kernel: Kernel
    readonly spaces: Spaces
    readonly devices: Devices
    readonly quotas: Quotas
    readonly state: State
  }) {
    this.#kernel = parts.kernel
    this.#spaces = parts.spaces
    this.#devices = parts.devices
    this.#quotas = parts.quotas
    this.#state = parts.state
    this.#trackings = new Trackings(parts.kernel, parts.state)
  }

  /** Start every source or none; the same request again answers with the present tracking. */
  async start(client: Client, id: string, asked: TrackingRequest): Promise<TrackingView> {
    return this.#spaces.inLane(client, id, async (space) => {
      const watched = requireWatchable(space, asked)
      const present = this.#trackings.get(space)
      if (present !== undefined) {
        requireSame(space, present, asked)
        return this.#viewOf(space, present)
      }
      await space.requireReady('track writes in')
      const { isIommu, devices } = await this.#sourcesOf(space, asked)
      if (isIommu)
        for (const mapping of space.mappings.all())
          requireTrackable('keep', space, { iova: mapping.start, length: lengthOf(mapping) })
      const ranges = devices.length === 0 ? [] : requireRanges(space, watched)
      const tracking = new Tracking(asked, { pageSize: space.alignment, isIommu })
      const pageSize = asked.pageSize || space.alignment
      try {
        if (isIommu) await requireDirtyBits(space).start()
        for (const device of devices) {
          tracking.logs.set(device, await this.#startLog(device, { ranges, pageSize }))
        }
      } catch (error) {
        await this.#stop(space, tracking).catch(() => undefined)
        throw error
      }
      this.#trackings.attach(space, tracking)
      return this.#viewOf(space, tracking)
    })
  }

  /** Stop every source and discard unread pages; does nothing when tracking is off. */
  async stop(client: Client, id: string): Promise<void> {
    return this.#spaces.inLane(client, id, async (space) => {
      const tracking = this.#trackings.detach(space)
      if (tracking !== undefined) await this.#stop(space, tracking)
    })
  }

  /** The tracking of an address space; undefined when it is off. */
  view(client: Client, id: string): TrackingView | undefined {
    const space = this.#spaces.owned(client, id)
    const tracking = this.#trackings.get(space)
    return tracking && this.#viewOf(space, tracking)
  }

  /** The written pages, by iova. They count as reported once the consumer asks for more after the end. */
  async *read(
    client: Client,
    { spaceId, piece, isPeek, again, form }: DirtyReadRequest,
    signal: AbortSignal,
  ): AsyncGenerator<DirtyEvent, void> {
    const space = this.#spaces.owned(client, spaceId)
    const isAll = piece.iova === 0n && piece.length === 0n
    const range = isAll ? EVERYWHERE : requireRange('read', piece, space.alignment)
    yield* this.#deliver(client, space, { isPeek, form, signal }, async (context, delivery) => {
      await this.#sync(client, context, range)
      context.tracking.fill(delivery, range, { again })
      return undefined
    })
  }

  /** Unmap pieces, or everything, and report the pages written there up to that moment. */
  async *readAndUnmap(
    client: Client,
    request: {
      readonly spaceId: string
      readonly items: readonly Piece[] | 'all'
      readonly form: Form
    },
    signal: AbortSignal,
  ): AsyncGenerator<DirtyEvent, void> {
    const { items, spaceId, form } = request
    const space = this.#spaces.owned(client, spaceId)
    if (items !== 'all') requireBatch('unmap', items)
    yield* this.#deliver(client, space, { isPeek: false, form, signal }, (context, delivery) =>
      this.#spaces.inLane(client, spaceId, async () => {
        this.#trackings.require(space, context.tracking)
        return inTurn<Piece | 'all'>(items === 'all' ? [items] : items, (item) => {
          const found = item === 'all' ? space.mappings.all() : insideOf(space, item, 'unmap')
          return unmapSyncing(context, found, delivery.pages)
        })
      }),
    )
  }

  /** Change the size of the page table entries of a range: type1 has no such request. */
  async resize(
    client: Client,
    id: string,
    piece: Piece,
    verb: 'demote' | 'promote',
  ): Promise<never> {
    const space = this.#spaces.owned(client, id)
    requireRange(verb, piece, space.alignment)
    throw new VfiodError(
      'UNSUPPORTED',
      `Cannot ${verb} the page table entries of ${hex(piece.length)} bytes at iova ${hex(piece.iova)}: "${id}" is a type1 container, which chooses their sizes itself; this needs iommufd, and the logs of devices do without it`,
    )
  }

  /** One delivery from its first page to its end; if it breaks off, its pages stay pending. */
  async *#deliver(
    client: Client,
    space: AddressSpace,
    how: { readonly isPeek: boolean; readonly form: Form; readonly signal: AbortSignal },
    load: (context: SyncContext, delivery: Delivery) => Promise<BatchResult | undefined>,
  ): AsyncGenerator<DirtyEvent, void> {
    const tracking = this.#trackings.require(space)
    const delivery = tracking.start({ isPeek: how.isPeek, spaceId: space.id })
    const scratch = new Scratch(tracking.pageSize)
    let charge: Charge | undefined
    try {
      charge = this.#quotas.charge(client, { streams: 1n })
      const result = await load(
        { kernel: this.#kernel, state: this.#state, space, tracking, scratch },
        delivery,
      )
      scratch.free()
      let pages = 0
      for (const event of eventsOf(delivery, how.form)) {
        if (how.signal.aborted) return
        this.#requireUnderWay(client, space, { tracking, delivery })
        pages += countOf(event, tracking.pageSize)
        yield event
      }
      this.#requireUnderWay(client, space, { tracking, delivery })
      const precision = precisionOf(space, tracking)
      yield { kind: 'end', pages, precision, result }
      tracking.finish(delivery, pages)
    } finally {
      tracking.abort(delivery)
      scratch.free()
      charge?.release()
    }
  }

  #requireUnderWay(
    client: Client,
    space: AddressSpace,
    { tracking, delivery }: { readonly tracking: Tracking; readonly delivery: Delivery },
  ): void {
    requireOwner(client, space.owner, { type: 'address space', name: space.id })
    this.#trackings.require(space, tracking)
    // It may have been handed over, and back.
    if (!tracking.isUnderWay(delivery)) throw takenAway(space)
  }

  /** Take all dirty bits of a range from the kernel, a bounded number of pages at a time. */
  async #sync(client: Client, context: SyncContext, range: IovaRange): Promise<void> {
    const { space, tracking } = context
    for (let rest: IovaRange | undefined = tracking.isIommu ? range : undefined; rest; ) {
      const from = rest
      rest = await this.#spaces.inLane(client, space.id, async () => {
        this.#trackings.require(space, tracking)
        return syncContainer(context, from)
      })
    }
    for (const log of [...tracking.logs.values()]) {
      for (const slice of logSlices(context, log, range)) {
        await log.device.lane.run(async () => {
          requireOwner(client, space.owner, { type: 'address space', name: space.id })
          this.#trackings.require(space, tracking)
          // If it was closed meanwhile, its pages were kept then.
          if (tracking.logs.has(log.device)) await syncLog(context, log, slice)
        })
      }
    }
    markUnwatched(context, range)
  }

  async #sourcesOf(
    space: AddressSpace,
    { iommu, devices: names }: TrackingRequest,
  ): Promise<{ isIommu: boolean; devices: OpenDevice[] }> {
    const open = this.#devices.of(space)
    if (names.length === 0 && !iommu) {
      const logs = await Promise.all(open.map((device) => this.#canLog(device)))
      const devices = logs.every(Boolean) ? open : []
      return { isIommu: devices.length === 0, devices }
    }
    const devices = [...new Set(names)].map((name) => {
      const device = open.find((each) => each.name === name)
      if (device === undefined) throw notOpen(name)
      return device
    })
    for (const device of devices) if (!(await this.#canLog(device))) throw noLog(device)
    return { isIommu: iommu, devices }
  }

  #canLog(device: OpenDevice): Promise<boolean> {
    return device.lane.run(() => hasDmaLogging(this.#kernel, device.fd))
  }

  /** A log that chose coarser units than requested is started again with ranges of whole units. */
  #startLog(
    device: OpenDevice,
    wanted: { readonly ranges: readonly IovaRange[]; readonly pageSize: bigint },
  ): Promise<DeviceDmaLog> {
    return device.lane.run(async () => {
      const fine = widened(wanted.ranges, wanted.pageSize)
      const ranges = covered(fine, LOG_RANGES_MAX)
      const pageSize = await startLog(this.#kernel, device.fd, { ...wanted, ranges })
      const coarse = covered(widened(fine, pageSize), LOG_RANGES_MAX)
      if (pageSize <= wanted.pageSize) return { device, ranges, pageSize }
      await stopLog(this.#kernel, device.fd)
      await startLog(this.#kernel, device.fd, { ranges: coarse, pageSize })
      return { device, ranges: coarse, pageSize }
    })
  }

  /** Stop every source; throws the error of the first that did not stop. */
  async #stop(space: AddressSpace, { logs, isIommu }: Tracking): Promise<void> {
    const stops = [...logs.keys()].map(({ lane, fd }) => lane.run(() => stopLog(this.#kernel, fd)))
    if (isIommu) stops.push(requireDirtyBits(space).stop())
    const ended = await Promise.allSettled(stops)
    for (const stop of ended) if (stop.status === 'rejected') throw stop.reason
  }

  #viewOf(space: AddressSpace, tracking: Tracking): TrackingView {
    const sources: Source[] = [...tracking.logs.values()].map((log) => ({
      log,
      precision: 'tracked-writes',
      pageSize: log.pageSize,
    }))
    if (tracking.isIommu) {
      const precision = precisionOf(space, tracking)
      sources.unshift({ log: undefined, precision, pageSize: tracking.pageSize })
    }
    const untracked = this.#devices
      .of(space)
      .filter((device) => !tracking.isIommu && !tracking.logs.has(device))
    return { space, tracking, sources, untracked: untracked.map(({ name }) => name) }
  }
}

const takenAway = (space: AddressSpace): VfiodError =>
  new VfiodError(
    'CANCELLED',
    `Cannot continue reading dirty pages of "${space.id}": the address space was handed over; read again`,
  )

/** A container knows the written pages only without an IOMMU: the drivers of mdevs report them. */
const precisionOf = (space: AddressSpace, { isIommu }: Tracking): Precision =>
  isIommu && space.pins ? 'pinned-pages' : 'tracked-writes'
