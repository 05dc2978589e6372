/**
 * An address space on a host whose /dev/vfio/vfio belongs to iommufd (CONFIG_IOMMUFD_VFIO_CONTAINER):
 * the requests of type1 act on an IOAS. Its rules differ from those of type1 in four places: a device
 * is attached as it is opened, and only then are apertures known; vaddrs cannot be updated; there are
 * no dirty bits; mappings outlive the last group.
 */

import type { Access, ContainerFd, DeviceFd, IovaRange, Vaddr } from '../../base/units.ts'
import type { Kernel } from '../../kernel/port.ts'
import type { DirtyBits, IommuBackend, Limits, Offer, Remap } from './backend.ts'
import { HostContainer } from './container.ts'

/** What it says of the mappings that can still be made: there is no limit. */
const UNLIMITED = 0xffff_ffff

export class CompatBackend implements IommuBackend {
  readonly kind = 'iommufd-compat'
  readonly limitedBy = 'device'
  readonly remap: Offer<Remap> = {
    missing: 'the container of this host is the one of iommufd, which has no VFIO_UPDATE_VADDR',
  }
  readonly dirty: Offer<DirtyBits> = {
    missing:
      'the container of this host is the one of iommufd, which has no VFIO_IOMMU_DIRTY_PAGES',
  }
  readonly #container: HostContainer

  constructor(kernel: Kernel, fd: ContainerFd) {
    this.#container = new HostContainer(kernel, fd)
  }

  attach(group: number): Promise<void> {
    return this.#container.attach(group)
  }

  async detach(group: number): Promise<void> {
    await this.#container.detach(group)
    if (this.#container.isEmpty) await this.#container.unmap('all')
  }

  async limits(): Promise<Limits | undefined> {
    const limits = await this.#container.limits()
    return limits?.mappingsAvailable === UNLIMITED
      ? { ...limits, mappingsAvailable: undefined }
      : limits
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
