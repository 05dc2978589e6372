/**
 * An IOMMU group whose devices are bound to one iommufd. Its devices share one hwpt: the first that
 * is attached chooses it, the last that is detached gives it back.
 */

import { ERRNO } from '../../../base/errno.ts'
import type { IommuGroup } from '../iommu/iommu-group.ts'
import type { IommuSpec } from '../spec/machine-spec.ts'
import type { Hwpt, HwptPaging } from './hwpt.ts'

export class AttachedGroup {
  readonly iommuGroup: IommuGroup
  readonly iommu: IommuSpec
  /** The devices that are attached; each keeps the group's reserved regions out of the ioas. */
  readonly #attached = new Set<object>()
  /** Invariant: undefined if and only if no device is attached. */
  #hwpt: Hwpt | undefined

  constructor(iommuGroup: IommuGroup, iommu: IommuSpec) {
    this.iommuGroup = iommuGroup
    this.iommu = iommu
  }

  attach(device: object, hwpt: Hwpt): number {
    if (this.#hwpt !== undefined && this.#hwpt !== hwpt) return -ERRNO.EINVAL
    const reserved = this.#reserve(device, hwpt.paging)
    if (reserved < 0) return reserved
    if (this.#attached.size === 0) {
      const refused = this.#refusal(hwpt)
      if (refused < 0) {
        hwpt.paging.ioas.iopt.unreserve(device)
        return refused
      }
      this.#use(hwpt)
    }
    hwpt.users += 1
    this.#attached.add(device)
    return 0
  }

  /** Moves all devices of the group at once: the old hwpt, undefined for no change, or -errno. */
  replace(device: object, hwpt: Hwpt): Hwpt | undefined | number {
    const old = this.#hwpt
    if (old === undefined || !this.#attached.has(device)) return -ERRNO.EINVAL
    if (old === hwpt) return undefined
    const [from, to] = [old.paging.ioas, hwpt.paging.ioas]
    const refused = from === to ? 0 : this.#reserveAll(hwpt.paging)
    if (refused < 0) return refused
    const incompatible = this.#refusal(hwpt)
    if (incompatible < 0) {
      if (from !== to) for (const one of this.#attached) to.iopt.unreserve(one)
      return incompatible
    }
    this.#use(hwpt)
    if (from !== to) for (const one of this.#attached) from.iopt.unreserve(one)
    hwpt.users += this.#attached.size
    old.users -= this.#attached.size
    return old
  }

  /** Answers the hwpt that the device had. */
  detach(device: object): Hwpt {
    const hwpt = this.#hwpt
    if (hwpt === undefined) throw new Error('Cannot detach a device that is not attached')
    this.#attached.delete(device)
    if (this.#attached.size === 0) this.#use(undefined)
    hwpt.paging.ioas.iopt.unreserve(device)
    hwpt.users -= 1
    return hwpt
  }

  #use(hwpt: Hwpt | undefined): void {
    this.#hwpt = hwpt
    this.iommuGroup.translation = hwpt?.translation
  }

  #refusal(hwpt: Hwpt): number {
    // None of the devices can have its faults answered by software.
    if (hwpt.fault) return -ERRNO.ENODEV
    if (this.iommuGroup.firmwareRefusal === 'attach') return -ERRNO.EPERM
    return hwpt.isCompatible(this.iommu) ? 0 : -ERRNO.EINVAL
  }

  #reserve(device: object, { ioas }: HwptPaging): number {
    for (const region of this.iommuGroup.spec.reserved) {
      if (region.kind === 'direct-relaxable') continue
      const { start, last } = region
      const reserved = ioas.iopt.reserve({ start, last }, device)
      if (reserved === 0) continue
      ioas.iopt.unreserve(device)
      return reserved
    }
    return 0
  }

  #reserveAll(paging: HwptPaging): number {
    for (const device of this.#attached) {
      const reserved = this.#reserve(device, paging)
      if (reserved === 0) continue
      for (const other of this.#attached) paging.ioas.iopt.unreserve(other)
      return reserved
    }
    return 0
  }
}
