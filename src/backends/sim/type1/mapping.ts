/** One mapping of a container: struct vfio_dma of the kernel. */

import { VFIO_DMA_MAP_FLAG_WRITE } from '../../../abi/container.ts'
import { ERRNO } from '../../../base/errno.ts'
import { PAGE_SIZE } from '../../../base/units.ts'
import { type MemoryPiece, pieceAt } from '../../../os/pieces.ts'
import { type Pin, pinPages } from '../../../os/pin.ts'
import type { DeviceMemory, Mm } from '../core/mm.ts'
import { DirtyBitmap } from './dirty-bitmap.ts'
import { PageCounts } from './page-counts.ts'

/** INT_MAX: the most bits one bitmap of the kernel has. */
const DIRTY_PAGES_MAX = 2n ** 31n - 1n

export class Mapping {
  readonly iova: bigint
  readonly size: bigint
  /** The MAP flags: what the device may do. */
  readonly access: number
  vaddr: bigint
  owner: Mm
  /** While it is set the device goes on, but nothing new can be pinned. */
  isVaddrInvalid = false
  /** Whether it is in the IOMMU's page table. */
  isIommuMapped = false
  /** Pages that are charged to `owner`: those that drivers have while it is in no page table. */
  lockedPages = 0n
  dirty: DirtyBitmap | undefined
  /** What drivers of mediated devices have pinned, beside the IOMMU. */
  readonly external = new PageCounts()
  /** The pages themselves, once the vaddr may lead elsewhere. */
  #pin: Pin | undefined
  /** The part of a device that the page table leads to, also once it is mapped nowhere else. */
  #peer: { readonly memory: DeviceMemory; readonly offset: number } | undefined

  constructor(
    at: { readonly iova: bigint; readonly size: bigint; readonly vaddr: bigint },
    access: number,
    owner: Mm,
  ) {
    this.iova = at.iova
    this.size = at.size
    this.vaddr = at.vaddr
    this.access = access
    this.owner = owner
  }

  get last(): bigint {
    return this.iova + this.size - 1n
  }

  get pages(): bigint {
    return this.size / PAGE_SIZE
  }

  get mayWrite(): boolean {
    return (this.access & VFIO_DMA_MAP_FLAG_WRITE) !== 0
  }

  /** What is charged once it is in the page table: nothing for a device's memory, which has no pages. */
  pagesToLock(mm: Mm): bigint {
    return mm.deviceMemoryAt(this.vaddr) ? 0n : this.pages
  }

  /** What is charged while only drivers have pinned some of it. */
  get externalToLock(): bigint {
    return this.pagesToLock(this.owner) === 0n ? 0n : BigInt(this.external.size)
  }

  /** How many pages a process can pin at the vaddr before the first that is not there. */
  pinnablePages(mm: Mm): bigint {
    const isPinnable = (pages: bigint): boolean =>
      mm.isPinnable(this.vaddr, pages * PAGE_SIZE, this.mayWrite)
    if (isPinnable(this.pages)) return this.pages
    let there = 0n
    for (let missing = this.pages; missing - there > 1n; ) {
      const middle = (there + missing) / 2n
      if (isPinnable(middle)) there = middle
      else missing = middle
    }
    return there
  }

  /** It is in the page table: what it leads to is decided. */
  resolve(mm: Mm): void {
    const memory = mm.deviceMemoryAt(this.vaddr)
    if (memory) this.#peer = { memory, offset: Number(this.vaddr - memory.segment.address) }
  }

  /** From here on the vaddr may be unmapped; the pages stay what they are. */
  holdPages(): void {
    this.#pin ??= pinPages(this.vaddr, Number(this.size))
  }

  /** The memory that the device reaches at an offset of the mapping. */
  piece(offset: bigint, length: number): MemoryPiece | undefined {
    const peer = this.#peer?.memory.piece?.(this.#peer.offset + Number(offset), length)
    if (peer) return peer
    if (this.#pin) return this.#pin.piece(Number(offset), length)
    return pieceAt(this.vaddr + offset, length)
  }

  /**
   * -EINVAL where one bitmap of the kernel cannot hold a bit per page, -ENOMEM where there is no memory for
   * a bit of more pages than `room`.
   */
  startTracking(room: bigint): number {
    if (this.pages > DIRTY_PAGES_MAX) return -ERRNO.EINVAL
    if (this.pages > room) return -ERRNO.ENOMEM
    this.dirty = new DirtyBitmap(Number(this.pages))
    this.markPinned()
    return 0
  }

  /** Pinned pages may be written at any time. */
  markPinned(): void {
    for (const page of this.external.pages) this.dirty?.set(page, page)
  }

  /** It is gone from the container. */
  release(): void {
    this.#pin?.release()
    this.#pin = undefined
  }
}
