/**
 * The port of an address space to the IOMMU API of the host: what every such API must be able to do,
 * whether it is a type1 container, iommufd's stand-in for one, or an IOAS.
 *
 * Terms. A *member* is a group that was attached and not detached since. A *range* is whole pages of
 * the smallest page size. A *vaddr* is an address of this process; the memory there stays mapped for
 * as long as the range is.
 *
 * Every call is made in the lane of the address space, one at a time. Each does all of its work, or
 * throws the refusal and leaves everything as it was, except where its comment says otherwise. The
 * caller has checked its arguments against its own records; a backend adds no policy.
 */

import type { Access, DeviceFd, GroupFd, IovaRange, Vaddr } from '../../base/units.ts'
import type { BitmapSpace } from '../../kernel/dirty-calls.ts'

/** As the kernel selftests name their modes. */
export type BackendKind = 'type1' | 'iommufd-compat'

export interface Limits {
  /** Every page size that can be mapped, one bit each. */
  readonly pageSizes: bigint
  /** Where mappings may lie; undefined where nothing limits them. */
  readonly apertures: readonly IovaRange[] | undefined
  /** Mappings that can still be made; undefined where there is no limit or the kernel does not say. */
  readonly mappingsAvailable: number | undefined
}

/** A device of a member: a PCI address or an mdev UUID. */
export interface DeviceToOpen {
  readonly name: string
  /** The VF token, a secret; undefined for none. */
  readonly vfToken?: string | undefined
}

/** New vaddrs for mapped ranges, while devices go on with DMA. */
export interface Remap {
  /** Answers the bytes of the ranges whose vaddr is invalid from now on. */
  invalidate(range: IovaRange | 'all'): Promise<bigint>
  /** The range is exactly one mapping, whose vaddr is invalid. */
  update(range: IovaRange, vaddr: Vaddr): Promise<void>
}

/** The dirty bits of the IOMMU, one per page of the smallest page size. */
export interface DirtyBits {
  /** Pages of the largest mapping there may be while tracking is on. */
  readonly mappingPagesMax: bigint
  start(): Promise<void>
  stop(): Promise<void>
  /** Read and clear the bits of whole mappings. A failed call may have read and cleared some. */
  read(range: IovaRange, into: BitmapSpace): Promise<void>
  /** Unmap whole mappings and read the bits they had by then; answers the bytes unmapped. */
  readAndUnmap(range: IovaRange, into: BitmapSpace): Promise<bigint>
}

/** Parts of devices as the target of the DMA of their peers. */
export interface RegionMaps {
  /** Map all of the range or nothing. The caller unmaps it before the device decodes no more. */
  map(range: IovaRange, to: { readonly vaddr: Vaddr; readonly access: Access }): Promise<void>
}

/** A capability, or why this backend does not have it: a clause that follows "it cannot:". */
export type Offer<T> = { readonly offered: T } | { readonly missing: string }

export interface IommuBackend {
  readonly kind: BackendKind
  /** When apertures may become narrower: as a group is attached, or as a device is opened. */
  readonly limitedBy: 'group' | 'device'
  /** Open the group and make it a member. The first member gives the backend its IOMMU. */
  attach(group: number): Promise<void>
  /** End the membership of a group without open devices; with the last member every mapping goes. */
  detach(group: number): Promise<void>
  /**
   * Members that the kernel has taken out meanwhile: their last device left its VFIO driver, or is gone.
   * They are members no more, and with the last one every mapping is gone.
   */
  takeLost(): Promise<number[]>
  /** The open file of a member, by which the kernel sees who owns its devices. */
  groupFd(group: number): GroupFd
  /** Undefined while there is no member. Asked again after each change of members. */
  limits(): Promise<Limits | undefined>
  /** Open a device of a member; the caller closes it. */
  openDevice(group: number, device: DeviceToOpen): Promise<DeviceFd>
  /** Map all of the range or nothing. */
  map(range: IovaRange, to: { readonly vaddr: Vaddr; readonly access: Access }): Promise<void>
  /** Unmap the mappings inside the range, or all there are; answers the bytes unmapped. */
  unmap(range: IovaRange | 'all'): Promise<bigint>
  readonly regions: Offer<RegionMaps>
  /** As of the last `limits()`. */
  readonly remap: Offer<Remap>
  readonly dirty: Offer<DirtyBits>
  /** Detach every member and give up the rest; devices are closed by then. Never throws. */
  close(): Promise<void>
}
