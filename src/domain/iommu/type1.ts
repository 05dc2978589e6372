/** An address space as a type1 v2 container of vfio (vfio.h: VFIO_TYPE1v2_IOMMU). */

import type { ContainerFd } from '../../base/units.ts'
import {
  canUpdateVaddr,
  invalidateVaddr,
  mapRegionDma,
  updateVaddr,
} from '../../kernel/container-calls.ts'
import {
  type BitmapSpace,
  readDirty,
  startTracking,
  stopTracking,
  TRACKED_PAGES_MAX,
  unmapReadingDirty,
} from '../../kernel/dirty-calls.ts'
import type { Kernel } from '../../kernel/port.ts'
import type { DirtyBits, IommuBackend, Limits, Offer, RegionMaps, Remap } from './backend.ts'
import { HostContainer } from './container.ts'
import { unlessLost } from './lost.ts'

const NO_UPDATE_VADDR: Offer<Remap> = {
  missing: 'the container does not offer VFIO_UPDATE_VADDR',
}

/** With the last group the kernel drops every mapping. */
export class Type1Backend extends HostContainer implements IommuBackend {
  readonly kind = 'type1'
  readonly limitedBy = 'group'
  readonly regions: Offer<RegionMaps> = {
    offered: {
      map: (range, to) => this.unlessLost(mapRegionDma(this.kernel, this.fd, range, to)),
    },
  }
  remap: Offer<Remap> = NO_UPDATE_VADDR
  readonly dirty: Offer<DirtyBits> = { offered: dirtyBits(this.kernel, this.fd) }

  override async limits(): Promise<Limits | undefined> {
    const limits = await super.limits()
    const canRemap = limits !== undefined && (await canUpdateVaddr(this.kernel, this.fd))
    this.remap = canRemap ? { offered: remap(this.kernel, this.fd) } : NO_UPDATE_VADDR
    return limits
  }
}

const remap = (kernel: Kernel, fd: ContainerFd): Remap => ({
  invalidate: (range) => unlessLost(kernel, fd, invalidateVaddr(kernel, fd, range)),
  update: (range, vaddr) => unlessLost(kernel, fd, updateVaddr(kernel, fd, range, vaddr)),
})

const dirtyBits = (kernel: Kernel, fd: ContainerFd): DirtyBits => ({
  mappingPagesMax: TRACKED_PAGES_MAX,
  start: () => unlessLost(kernel, fd, startTracking(kernel, fd)),
  stop: () => unlessLost(kernel, fd, stopTracking(kernel, fd)),
  read: (range, into: BitmapSpace) => unlessLost(kernel, fd, readDirty(kernel, fd, range, into)),
  readAndUnmap: (range, into) => unlessLost(kernel, fd, unmapReadingDirty(kernel, fd, range, into)),
})
