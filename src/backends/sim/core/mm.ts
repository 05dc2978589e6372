/** An mm_struct: the memory map of a process, which pinned pages are charged to. */

import { accessAt, type Segment } from '../../../os/memory.ts'
import { isThere, type MemoryPiece } from '../../../os/pieces.ts'

/** All processes of one user: iommufd charges them together. */
export class User {
  lockedPages = 0n
}

/** Part of a device that is mapped into a process: VM_PFNMAP, which no page stands behind. */
export interface DeviceMemory {
  readonly segment: Segment
  /** Whether the device decodes it now. */
  isDecoded(): boolean
  /** What the DMA of a peer reaches there: registers, where plain memory would not do. */
  piece?(offset: number, length: number): MemoryPiece
}

export class Mm {
  /** VmLck, in pages. Invariant: the sum over the charged mappings it owns. */
  lockedPages = 0n
  /** RLIMIT_MEMLOCK; null with CAP_IPC_LOCK, when no limit counts. */
  readonly memlockBytes: bigint | null
  /** VmPin, in pages: its pages that iommufd has pinned, even if another process is charged. */
  pinnedPages = 0n
  readonly user: User
  /** What it has of the memory of the real process; undefined for all of it. */
  readonly #segments: readonly Segment[] | undefined
  /** Whether the process still runs. */
  isAlive = true

  /** What of devices is mapped. */
  readonly deviceMemory = new Set<DeviceMemory>()

  constructor(
    memlockBytes: bigint | null,
    user = new User(),
    segments: readonly Segment[] | undefined = undefined,
  ) {
    this.memlockBytes = memlockBytes
    this.user = user
    this.#segments = segments
  }

  /** Whether this memory can be pinned: it lies wholly in one segment, is still
   * there, and may be written if it must. */
  isPinnable(address: bigint, length: bigint, isWritten: boolean): boolean {
    const access = accessAt(address, Number(length))
    if (access === undefined || (isWritten && access === 'read')) return false
    const ofDevice = this.deviceMemoryAt(address)
    if (ofDevice) return ofDevice.isDecoded()
    if (!isThere(address, Number(length))) return false
    const has = ({ address: start, length: size }: Segment): boolean =>
      start <= address && address < start + BigInt(size)
    return this.#segments?.some(has) ?? true
  }

  /** The device memory that an address lies in. */
  deviceMemoryAt(address: bigint): DeviceMemory | undefined {
    for (const memory of this.deviceMemory) {
      const { segment } = memory
      if (address >= segment.address && address < segment.address + BigInt(segment.length))
        return memory
    }
    return undefined
  }
}
