/**
 * A hwpt: a page table of the hardware. A paging one is filled from its ioas; a nested one belongs
 * to a guest and translates through a paging one, its parent.
 */

import type { Translation } from '../iommu/iommu-group.ts'
import type { IommuSpec } from '../spec/machine-spec.ts'
import { PagingDomain } from './domain.ts'
import type { FaultQueue } from './fault-queue.ts'
import type { Ioas, IoasTable } from './ioas.ts'
import { IommufdObject } from './objects.ts'

export abstract class Hwpt extends IommufdObject {
  /** The table that is filled from an ioas: itself, or the parent. */
  abstract readonly paging: HwptPaging
  /** What devices reach through it. */
  abstract readonly translation: Translation
  /** Where faults of the devices go. */
  fault: FaultQueue | undefined

  /** Whether the IOMMU of a device can use the table. */
  isCompatible(iommu: IommuSpec): boolean {
    const { domain } = this.paging
    const isSame =
      domain.iommu.pageSizes === iommu.pageSizes &&
      domain.iommu.aperture.start === iommu.aperture.start &&
      domain.iommu.aperture.last === iommu.aperture.last
    return isSame && (!domain.tracksDirty || iommu.model?.dirtyTracking !== undefined)
  }

  override destroy(): void {
    if (this.fault) this.fault.users -= 1
  }
}

export class HwptPaging extends Hwpt implements IoasTable {
  readonly ioas: Ioas
  readonly domain: PagingDomain
  readonly isNestParent: boolean
  isAuto = false

  /** It is not filled before `populate`. */
  constructor(
    ioas: Ioas,
    iommu: IommuSpec,
    kind: { readonly tracksDirty: boolean; readonly isNestParent: boolean },
  ) {
    super()
    this.ioas = ioas
    this.domain = new PagingDomain(iommu, ioas.iopt.areas, kind.tracksDirty)
    this.isNestParent = kind.isNestParent
    ioas.users += 1
  }

  override get paging(): HwptPaging {
    return this
  }

  override get translation(): Translation {
    return this.domain
  }

  get enforcesCoherency(): boolean {
    return this.domain.iommu.isCacheCoherent
  }

  /** Everything that is mapped comes into it, or nothing. */
  populate(): number {
    const added = this.ioas.iopt.addDomain(this.domain)
    if (added === 0) this.ioas.hwpts.add(this)
    return added
  }

  override destroy(): void {
    if (this.ioas.hwpts.delete(this)) this.ioas.iopt.removeDomain(this.domain)
    this.ioas.users -= 1
    super.destroy()
  }
}

/** No guest writes the first stage of a simulated machine, so nothing comes through it. */
const NO_GRANT: Translation = { reach: () => undefined }

export class HwptNested extends Hwpt {
  readonly parent: HwptPaging

  constructor(parent: HwptPaging) {
    super()
    this.parent = parent
    parent.users += 1
  }

  override get paging(): HwptPaging {
    return this.parent
  }

  override get translation(): Translation {
    return NO_GRANT
  }

  override destroy(): void {
    this.parent.users -= 1
    super.destroy()
  }
}
