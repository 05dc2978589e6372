/**
 * Dirty tracking of one address space: its sources, and which pages the client has been given. The
 * kernel clears the bits that it reports, so they are kept here until a client has all of them:
 *
 *     kernel --sync--> pending --delivery--> last reported --next delivery finishes--> forgotten
 *                         ^-----aborted-----/
 *
 * Invariant: a written page is dirty in the kernel, pending, or in a delivery, until a delivery that
 * reported it has finished. Nothing here asks the kernel; sync.ts does.
 */

import { VfiodError } from '../../base/error.ts'
import type { Lane } from '../../base/lane.ts'
import { type DeviceFd, type IovaRange, iova, U64_MAX } from '../../base/units.ts'
import { DirtyPages } from '../../rules/dirty-pages.ts'
import type { Piece } from '../space/ranges.ts'

/** Every iova there is. */
export const EVERYWHERE: IovaRange = { start: iova(0n), last: iova(U64_MAX) }

/** The arguments of StartTracking; the same request may be repeated. */
export interface TrackingRequest {
  readonly iommu: boolean
  /** Names of devices. */
  readonly devices: readonly string[]
  /** The ranges that devices watch; when empty, the ranges mapped at the start. */
  readonly ranges: readonly Piece[]
  /** The unit in which devices track, in bytes; the smallest when zero. */
  readonly pageSize: bigint
}

/** The owner of a log: an open device. */
export interface LogHolder {
  readonly name: string
  readonly hooks: Set<{ readonly onClosing?: () => Promise<void> }>
  readonly fd: DeviceFd
  readonly lane: Lane
}

/** The log of one device. */
export interface DeviceDmaLog {
  readonly device: LogHolder
  /** Invariant: ascending, apart from each other, aligned to `pageSize`. */
  readonly ranges: readonly IovaRange[]
  /** In which units the device logs, in bytes. */
  readonly pageSize: bigint
}

/** Pages that are being sent to a client. */
export interface Delivery {
  pages: DirtyPages
  readonly isPeek: boolean
}

export class Tracking {
  readonly asked: TrackingRequest
  /** Bytes that one bit stands for: the smallest page size of the address space. */
  readonly pageSize: bigint
  /** Whether the container tracks. */
  readonly isIommu: boolean
  readonly logs = new Map<LogHolder, DeviceDmaLog>()
  /** Pages of the next report, besides those the kernel still has. */
  readonly pending: DirtyPages
  /** Deliveries that reached their end. */
  reads = 0
  lastReadPages = 0
  readonly #started = performance.now()
  #lastReported: DirtyPages
  #delivery: Delivery | undefined

  constructor(
    asked: TrackingRequest,
    found: { readonly pageSize: bigint; readonly isIommu: boolean },
  ) {
    this.asked = asked
    this.pageSize = found.pageSize
    this.isIommu = found.isIommu
    this.pending = new DirtyPages(found.pageSize)
    this.#lastReported = new DirtyPages(found.pageSize)
  }

  get trackingMs(): number {
    return Math.round(performance.now() - this.#started)
  }

  /** Begin the only delivery; SESSION_BUSY while there is another. */
  start({ isPeek, spaceId }: { readonly isPeek: boolean; readonly spaceId: string }): Delivery {
    if (this.#delivery !== undefined) {
      throw new VfiodError(
        'SESSION_BUSY',
        `Cannot read dirty pages of "${spaceId}": another call is reading them; wait for it or cancel it`,
        { resource: { type: 'address space', name: spaceId } },
      )
    }
    this.#delivery = { pages: new DirtyPages(this.pageSize), isPeek }
    return this.#delivery
  }

  /** Whether the delivery may continue: it was neither aborted nor ended by a handover. */
  isUnderWay(delivery: Delivery): boolean {
    return this.#delivery === delivery
  }

  /** Fill a delivery with the pending pages of a range; `again` adds those of the last one. */
  fill(delivery: Delivery, range: IovaRange, { again }: { readonly again: boolean }): void {
    if (again) this.pending.merge(this.#lastReported)
    delivery.pages = this.pending.take(range)
  }

  /** The client has received all of it: `count` pages. */
  finish(delivery: Delivery, count: number): void {
    if (!this.isUnderWay(delivery)) return
    this.#delivery = undefined
    this.reads += 1
    this.lastReadPages = count
    if (delivery.isPeek) this.pending.merge(delivery.pages)
    else this.#lastReported = delivery.pages
    delivery.pages = new DirtyPages(this.pageSize)
  }

  /**
   * The client may have received only a part, so the next delivery gets everything. After `finish` this
   * does nothing. A sync may still add pages to an aborted delivery, so it is called once more then.
   */
  abort(delivery: Delivery): void {
    if (this.isUnderWay(delivery)) this.#delivery = undefined
    this.pending.merge(delivery.pages.take(EVERYWHERE))
  }

  /** The address space has a new owner, which reads the pages instead of the former one. */
  handOn(): void {
    if (this.#delivery !== undefined) this.abort(this.#delivery)
  }

  /** A mapping was removed, so its pages are no longer reported. */
  forget(mapping: IovaRange): void {
    this.pending.take(mapping)
  }
}
