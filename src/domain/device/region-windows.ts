/**
 * The mmaps of the regions of one open device, one for each area that can be mapped: they give
 * mappings for the DMA of peers their vaddr. Each keeps the file of the device open, so they go before
 * the device is closed.
 */

import { type DeviceFd, type Vaddr, vaddr } from '../../base/units.ts'
import { mapArea, type Region, type RegionArea } from '../../kernel/device-calls.ts'
import type { Kernel } from '../../kernel/port.ts'
import type { Segment } from '../../os/memory.ts'

export class RegionWindows {
  readonly #kernel: Kernel
  readonly #fd: DeviceFd
  readonly #segments = new Map<string, Segment>()
  #holders = 0

  constructor(kernel: Kernel, fd: DeviceFd) {
    this.#kernel = kernel
    this.#fd = fd
  }

  /** Whether a region of the device is mapped for its peers, or about to be. */
  get isInUse(): boolean {
    return this.#holders > 0
  }

  hold(): this {
    this.#holders += 1
    return this
  }

  drop(): void {
    this.#holders -= 1
  }

  /** Where a byte of an area is mapped here. Runs in the lane of the device. */
  async vaddrIn(region: Region, area: RegionArea, offset: bigint): Promise<Vaddr> {
    const key = `${region.index} ${area.offset}`
    const segment =
      this.#segments.get(key) ?? (await mapArea(this.#kernel, this.#fd, { region, area }))
    this.#segments.set(key, segment)
    return vaddr(segment.address + offset - area.offset)
  }

  /** Nothing leads to them any more. Runs in the lane of the device. */
  async close(): Promise<void> {
    for (const segment of this.#segments.values()) await this.#kernel.munmap(segment)
    this.#segments.clear()
  }
}
