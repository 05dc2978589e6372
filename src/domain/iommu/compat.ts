/**
 * An address space on a host whose /dev/vfio/vfio belongs to iommufd (CONFIG_IOMMUFD_VFIO_CONTAINER):
 * the requests of type1 act on an IOAS. Its rules differ from those of type1 in five places: a device
 * is attached as it is opened, and only then are apertures known; vaddrs cannot be updated; there are
 * no dirty bits; mappings outlive the last group. Regions of devices cannot be mapped.
 */

import type { DirtyBits, IommuBackend, Limits, Offer, RegionMaps, Remap } from './backend.ts'
import { HostContainer } from './container.ts'

/** What it says of the mappings that can still be made: there is no limit. */
const UNLIMITED = 0xffff_ffff

export class CompatBackend extends HostContainer implements IommuBackend {
  readonly kind = 'iommufd-compat'
  readonly limitedBy = 'device'
  readonly regions: Offer<RegionMaps> = {
    missing:
      'the container of this host is the one of iommufd, which maps memory only (regions need dma-buf)',
  }
  readonly remap: Offer<Remap> = {
    missing: 'the container of this host is the one of iommufd, which has no VFIO_UPDATE_VADDR',
  }
  readonly dirty: Offer<DirtyBits> = {
    missing:
      'the container of this host is the one of iommufd, which has no VFIO_IOMMU_DIRTY_PAGES',
  }

  override async detach(group: number): Promise<void> {
    await super.detach(group)
    if (this.isEmpty) await this.unmap('all')
  }

  override async takeLost(): Promise<number[]> {
    const lost = await super.takeLost()
    if (lost.length > 0 && this.isEmpty) await this.unmap('all')
    return lost
  }

  override async limits(): Promise<Limits | undefined> {
    const limits = await super.limits()
    return limits?.mappingsAvailable === UNLIMITED
      ? { ...limits, mappingsAvailable: undefined }
      : limits
  }
}
