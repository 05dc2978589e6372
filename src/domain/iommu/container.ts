/**
 * What a type1 container and iommufd's stand-in for one have in common: the fds, the member groups,
 * mapping and unmapping. The two differ in when limits are known, in remapping, in dirty bits and in
 * what becomes of the mappings when the last group leaves.
 */

import { VfiodError } from '../../base/error.ts'
import type { Access, ContainerFd, DeviceFd, GroupFd, IovaRange, Vaddr } from '../../base/units.ts'
import { iommuInfo, mapDma, setIommu, unmapDma } from '../../kernel/container-calls.ts'
import {
  getDeviceFd,
  groupStatus,
  openGroup,
  setContainer,
  unsetContainer,
} from '../../kernel/group-calls.ts'
import type { Kernel } from '../../kernel/port.ts'
import { wasErrno } from '../../kernel/refusal.ts'
import type { DeviceToOpen, Limits } from './backend.ts'
import { unlessLost } from './lost.ts'

export class HostContainer {
  protected readonly kernel: Kernel
  protected readonly fd: ContainerFd
  readonly #groups = new Map<number, GroupFd>()

  constructor(kernel: Kernel, fd: ContainerFd) {
    this.kernel = kernel
    this.fd = fd
  }

  get isEmpty(): boolean {
    return this.#groups.size === 0
  }

  async attach(group: number): Promise<void> {
    const groupFd = await openGroup(this.kernel, group)
    try {
      await this.#requireViable(group, groupFd)
      await setContainer(this.kernel, { groupFd, containerFd: this.fd, group })
      await this.#setIommu(groupFd)
    } catch (error) {
      await this.kernel.close(groupFd)
      throw error
    }
    this.#groups.set(group, groupFd)
  }

  async detach(group: number): Promise<void> {
    const groupFd = this.groupFd(group)
    await unsetContainer(this.kernel, groupFd)
    this.#groups.delete(group)
    await this.kernel.close(groupFd)
  }

  groupFd(group: number): GroupFd {
    const fd = this.#groups.get(group)
    if (fd === undefined) throw new Error(`group ${group} is not attached`)
    return fd
  }

  async takeLost(): Promise<number[]> {
    const lost: number[] = []
    for (const [group, groupFd] of this.#groups) {
      if (await isInContainer(this.kernel, groupFd)) continue
      this.#groups.delete(group)
      await this.kernel.close(groupFd)
      lost.push(group)
    }
    return lost
  }

  async limits(): Promise<Limits | undefined> {
    return this.isEmpty ? undefined : iommuInfo(this.kernel, this.fd)
  }

  openDevice(group: number, device: DeviceToOpen): Promise<DeviceFd> {
    return this.unlessLost(getDeviceFd(this.kernel, this.groupFd(group), device))
  }

  map(range: IovaRange, to: { readonly vaddr: Vaddr; readonly access: Access }): Promise<void> {
    return this.unlessLost(mapDma(this.kernel, this.fd, range, to))
  }

  unmap(range: IovaRange | 'all'): Promise<bigint> {
    return this.unlessLost(unmapDma(this.kernel, this.fd, range))
  }

  async close(): Promise<void> {
    for (const groupFd of this.#groups.values()) await this.kernel.close(groupFd)
    this.#groups.clear()
    await this.kernel.close(this.fd)
  }

  /** Tells in a refusal whether the container has lost its IOMMU. */
  protected unlessLost<T>(call: Promise<T>): Promise<T> {
    return unlessLost(this.kernel, this.fd, call)
  }

  /** The container has no IOMMU type before its first group. */
  async #setIommu(groupFd: GroupFd): Promise<void> {
    if (!this.isEmpty) return
    try {
      await setIommu(this.kernel, this.fd)
    } catch (error) {
      await unsetContainer(this.kernel, groupFd).catch(() => undefined)
      throw error
    }
  }

  async #requireViable(group: number, groupFd: GroupFd): Promise<void> {
    const { isViable } = await groupStatus(this.kernel, groupFd)
    if (isViable) return
    throw new VfiodError(
      'GROUP_NOT_VIABLE',
      `Cannot add group ${group}: the kernel says that it is not viable: a driver that does DMA has taken a device of it meanwhile, or its IOMMU has another user; list the group, and see the kernel log`,
    )
  }
}

/** Whether the kernel has the group in its container; a look that fails for another cause proves nothing. */
async function isInContainer(kernel: Kernel, groupFd: GroupFd): Promise<boolean> {
  try {
    return (await groupStatus(kernel, groupFd)).hasContainer
  } catch (error) {
    if (!(error instanceof VfiodError)) throw error
    return !wasErrno(error, 'ENODEV')
  }
}
