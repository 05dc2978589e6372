/** An address space as a type1 v2 container of vfio (vfio.h: VFIO_TYPE1v2_IOMMU). */

import type { Access, ContainerFd, DeviceFd, IovaRange, Vaddr } from '../../base/units.ts'
import { canUpdateVaddr, invalidateVaddr, updateVaddr } from '../../kernel/container-calls.ts'
import {
  type BitmapSpace,
  readDirty,
  startTracking,
  stopTracking,
  TRACKED_PAGES_MAX,
  unmapReadingDirty,
} from '../../kernel/dirty-calls.ts'
import type { Kernel } from '../../kernel/port.ts'
import type { DirtyBits, IommuBackend, Limits, Offer, Remap } from './backend.ts'
import { HostContainer } from './container.ts'

const NO_UPDATE_VADDR: Offer<Remap> = {
  missing: 'the container does not offer VFIO_UPDATE_VADDR',
}

export class Type1Backend implements IommuBackend {
  readonly kind = 'type1'
  readonly limitedBy = 'group'
  remap: Offer<Remap> = NO_UPDATE_VADDR
  readonly dirty: Offer<DirtyBits>
  readonly #container: HostContainer

  constructor(kernel: Kernel, fd: ContainerFd) {
    this.#container = new HostContainer(kernel, fd)
    this.dirty = { offered: dirtyBits(kernel, fd) }
  }

  attach(group: number): Promise<void> {
    return this.#container.attach(group)
  }

  /** With the last group the kernel drops every mapping. */
  detach(group: number): Promise<void> {
    return this.#container.detach(group)
  }

  async limits(): Promise<Limits | undefined> {
    const { kernel, fd } = this.#container
    const limits = await this.#container.limits()
    const canRemap = limits !== undefined && (await canUpdateVaddr(kernel, fd))
    this.remap = canRemap ? { offered: remap(kernel, fd) } : NO_UPDATE_VADDR
    return limits
  }

  openDevice(group: number, name: string): Promise<DeviceFd> {
    return this.#container.openDevice(group, name)
  }

  map(range: IovaRange, to: { readonly vaddr: Vaddr; readonly access: Access }): Promise<void> {
    return this.#container.map(range, to)
  }

  unmap(range: IovaRange | 'all'): Promise<bigint> {
    return this.#container.unmap(range)
  }

  close(): Promise<void> {
    return this.#container.close()
  }
}

const remap = (kernel: Kernel, fd: ContainerFd): Remap => ({
  invalidate: (range) => invalidateVaddr(kernel, fd, range),
  update: (range, vaddr) => updateVaddr(kernel, fd, range, vaddr),
})

const dirtyBits = (kernel: Kernel, fd: ContainerFd): DirtyBits => ({
  mappingPagesMax: TRACKED_PAGES_MAX,
  start: () => startTracking(kernel, fd),
  stop: () => stopTracking(kernel, fd),
  read: (range, into: BitmapSpace) => readDirty(kernel, fd, range, into),
  readAndUnmap: (range, into) => unmapReadingDirty(kernel, fd, range, into),
})
