/**
 * An IOMMU group: the functions that cannot be told apart by the IOMMU, and who owns their DMA.
 * Kernel drivers share the default domain; a user takes all of the group or nothing.
 */

import { ERRNO } from '../../../base/errno.ts'
import type { MemoryPiece } from '../../../os/pieces.ts'
import type { GroupSpec, IommuSpec } from '../spec/machine-spec.ts'
import { isAtLeast } from '../spec/version.ts'

/** What sysfs lists below a group: a PCI function or a mediated device. */
export interface GroupMember {
  /** The name of its link in `devices`. */
  readonly name: string
  /** Its directory in /sys/devices. */
  readonly sysfsPath: string
  /** Whether a kernel driver uses the group's default domain through it. */
  readonly usesDefaultDomain: boolean
}

export type DmaAccess = 'read' | 'write'

/** What stands between the devices of a group and memory. */
export interface Translation {
  /** The memory at an iova in order, or undefined where the access is stopped. */
  reach(iova: bigint, length: number, access: DmaAccess): MemoryPiece[] | undefined
}

/** Where the kernel refuses a group of which the firmware wants regions mapped as they are. */
export type FirmwareRefusal = 'claim' | 'attach'

/** IOMMU_RESV_DIRECT: before 6.6 VT-d alone refused such a device, when it was attached. */
export const firmwareRefusal = (
  { reserved }: GroupSpec,
  kernelVersion: string,
): FirmwareRefusal | undefined => {
  if (!reserved.some(({ kind }) => kind === 'direct')) return undefined
  return isAtLeast(kernelVersion, '6.6') ? 'claim' : 'attach'
}

export class IommuGroup {
  readonly id: number
  readonly spec: GroupSpec
  /** Undefined for a mediated device and for a no-IOMMU group: no IOMMU stands behind them. */
  readonly iommu: IommuSpec | undefined
  readonly firmwareRefusal: FirmwareRefusal | undefined
  readonly members = new Set<GroupMember>()
  /** Invariant: while a user has it, no member uses the default domain. */
  #isClaimed = false
  /** The iommufd that claims, and for how many of the devices. */
  #owner: object | undefined
  #ownedDevices = 0
  /** What the devices of an iommufd reach, while they are attached. */
  translation: Translation | undefined

  constructor(
    spec: GroupSpec,
    iommu: IommuSpec | undefined,
    refusal: FirmwareRefusal | undefined = undefined,
  ) {
    this.id = spec.id
    this.firmwareRefusal = refusal
    this.spec = spec
    this.iommu = iommu
  }

  /** Made by vfio for a function that no IOMMU is before. */
  get isNoIommu(): boolean {
    return this.spec.isNoIommu ?? false
  }

  /** Whether anyone, kernel or user, owns the DMA of the group. */
  get isDmaOwned(): boolean {
    return this.#isClaimed || [...this.members].some((member) => member.usesDefaultDomain)
  }

  get isClaimed(): boolean {
    return this.#isClaimed
  }

  claim(): number {
    if (this.isDmaOwned) return -ERRNO.EPERM
    // Its devices cannot be cut off from the regions, not for a moment (since 6.6).
    if (this.firmwareRefusal === 'claim') return -ERRNO.EINVAL
    this.#isClaimed = true
    return 0
  }

  /** For one device: -EPERM if another owner has the group. */
  claimFor(owner: object): number {
    const claimed = this.#owner === owner ? 0 : this.claim()
    if (claimed < 0) return claimed
    this.#owner = owner
    this.#ownedDevices += 1
    return 0
  }

  /** Whether other devices are still claimed for it. */
  unclaimFor(_owner: object): boolean {
    this.#ownedDevices -= 1
    if (this.#ownedDevices > 0) return true
    this.#owner = undefined
    this.unclaim()
    return false
  }

  isClaimedFor(owner: object): boolean {
    return this.#owner === owner
  }

  unclaim(): void {
    this.#isClaimed = false
  }
}
