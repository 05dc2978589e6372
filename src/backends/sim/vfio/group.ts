/**
 * /dev/vfio/N, or /dev/vfio/noiommu-N: an IOMMU group that has a device bound to a vfio driver, and its one open file.
 * vfio.h: VFIO_GROUP_*.
 */

import {
  VFIO_GROUP_FLAGS_CONTAINER_SET,
  VFIO_GROUP_FLAGS_VIABLE,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_GROUP_UNSET_CONTAINER,
  vfio_group_status,
} from '../../../abi/group.ts'
import { dataView } from '../../../abi/layout.ts'
import { ERRNO } from '../../../base/errno.ts'
import type { IoctlArg } from '../../../kernel/port.ts'
import type { Mm } from '../core/mm.ts'
import { isRealFd } from '../core/real-fd.ts'
import { argBytes, copyIn, copyOut } from '../core/user-memory.ts'
import { type Answer, type Caller, OpenFile } from '../file/open-file.ts'
import type { IommuGroup } from '../iommu/iommu-group.ts'
import { IommufdFile } from '../iommufd/iommufd-file.ts'
import { Container } from './container.ts'

/** A device of the group, as VFIO_GROUP_GET_DEVICE_FD sees it. */
export interface GroupDevice {
  /** 1 for a match, 0 for none, -errno for a name with options that are wrong. */
  match(name: string): number
  /** A new open file of the device, or -errno. */
  openThroughGroup(file: GroupFile): OpenFile | number
}

export class VfioGroup {
  readonly iommuGroup: IommuGroup
  readonly devices = new Set<GroupDevice>()
  /** A group has one open file at a time. */
  openedFile: GroupFile | undefined
  container: Container | undefined
  /** What stands in for a container. Invariant: never both. */
  iommufd: IommufdFile | undefined
  /** 1 for the attachment and 1 for each open device; 0 without a container. */
  containerUsers = 0
  /** Devices of the group that are bound through their cdevs. */
  boundCdevs = 0
  /** The last device left its driver: files that are still open have nothing behind them. */
  isGone = false

  constructor(iommuGroup: IommuGroup) {
    this.iommuGroup = iommuGroup
  }

  /** A group of mediated devices: nothing translates their DMA. */
  get isEmulated(): boolean {
    return this.iommuGroup.iommu === undefined && !this.isNoIommu
  }

  get isNoIommu(): boolean {
    return this.iommuGroup.isNoIommu
  }

  /** The name of its node, in /dev/vfio and in /sys/class/vfio. */
  get nodeName(): string {
    return `${this.isNoIommu ? 'noiommu-' : ''}${this.iommuGroup.id}`
  }

  /** Whether an IOMMU translates for it, so that its DMA has one owner. */
  get #isOwned(): boolean {
    return !this.isEmulated && !this.isNoIommu
  }

  open(): GroupFile | number {
    if (this.isGone) return -ERRNO.ENODEV
    if (this.boundCdevs > 0 || this.openedFile !== undefined) return -ERRNO.EBUSY
    this.openedFile = new GroupFile(this)
    return this.openedFile
  }

  setContainer(container: Container, caller: Mm): number {
    if (!container.takes(this.iommuGroup)) return -ERRNO.EPERM
    const owned = this.#isOwned ? this.iommuGroup.claim() : 0
    if (owned < 0) return owned
    const attached = container.type1?.attach(this.iommuGroup, caller) ?? 0
    if (attached < 0) {
      if (this.#isOwned) this.iommuGroup.unclaim()
      return attached
    }
    container.groups.add(this.iommuGroup)
    this.container = container.get()
    this.containerUsers = 1
    return 0
  }

  /** Its devices claim their group one by one, when they are opened. */
  setIommufd(iommufd: IommufdFile): number {
    // Linux takes one where no other group was there before; this kernel takes none.
    if (this.isNoIommu) return -ERRNO.EINVAL
    iommufd.context.ensureVfioIoas()
    this.iommufd = iommufd.get()
    return 0
  }

  unsetContainer(): void {
    this.iommufd?.put()
    this.iommufd = undefined
    this.#detachContainer()
  }

  /** The last device leaves its driver. What stands in for a container stays. */
  vanish(): void {
    this.#detachContainer()
    this.isGone = true
  }

  #detachContainer(): void {
    const { container } = this
    if (container === undefined) return
    this.container = undefined
    this.containerUsers = 0
    container.removeGroup(this.iommuGroup)
    if (this.#isOwned) this.iommuGroup.unclaim()
    container.put()
  }
}

const NAME_MAX = 4096

export class GroupFile extends OpenFile {
  readonly group: VfioGroup

  constructor(group: VfioGroup) {
    super()
    this.group = group
  }

  override ioctl(caller: Caller, request: number, arg: IoctlArg): Answer {
    switch (request) {
      case VFIO_GROUP_GET_STATUS.number:
        return this.#getStatus(arg)
      case VFIO_GROUP_SET_CONTAINER.number:
        return this.#setContainer(caller, arg)
      case VFIO_GROUP_UNSET_CONTAINER.number:
        return this.#unsetContainer()
      case VFIO_GROUP_GET_DEVICE_FD.number:
        return this.#getDeviceFd(caller, arg)
      default:
        return -ERRNO.ENOTTY
    }
  }

  protected override release(): void {
    this.group.unsetContainer()
    this.group.openedFile = undefined
  }

  #getStatus(arg: IoctlArg): number {
    const status = copyIn(vfio_group_status, arg, vfio_group_status.size)
    if (status === undefined) return -ERRNO.EFAULT
    if (status.argsz < vfio_group_status.size) return -ERRNO.EINVAL
    const { group } = this
    if (group.isGone) return -ERRNO.ENODEV
    let flags = 0
    if (group.container || group.iommufd)
      flags = VFIO_GROUP_FLAGS_CONTAINER_SET | VFIO_GROUP_FLAGS_VIABLE
    else if (!group.iommuGroup.isDmaOwned) flags = VFIO_GROUP_FLAGS_VIABLE
    return copyOut(arg, vfio_group_status.encode({ ...status, flags }))
  }

  #setContainer(caller: Caller, arg: IoctlArg): number {
    const bytes = argBytes(arg, 4)
    if (bytes === undefined) return -ERRNO.EFAULT
    const fd = dataView(bytes).getInt32(0, true)
    if (fd < 0) return -ERRNO.EBADF
    const file = caller.fileOf(fd)
    if (file === undefined && !isRealFd(fd)) return -ERRNO.EBADF
    const { group } = this
    if (group.container || group.iommufd) return -ERRNO.EINVAL
    if (group.isGone) return -ERRNO.ENODEV
    if (file instanceof Container) return group.setContainer(file, caller.mm)
    return file instanceof IommufdFile ? group.setIommufd(file) : -ERRNO.EBADFD
  }

  #unsetContainer(): number {
    const { group } = this
    if (!group.container && !group.iommufd) return -ERRNO.EINVAL
    // An iommufd is not asked whether devices are open: they keep it by themselves.
    if (group.container && group.containerUsers !== 1) return -ERRNO.EBUSY
    group.unsetContainer()
    return 0
  }

  #getDeviceFd(caller: Caller, arg: IoctlArg): number {
    const name = userString(arg)
    if (typeof name === 'number') return name
    const device = this.#deviceNamed(name)
    if (typeof device === 'number') return device
    const file = device.openThroughGroup(this)
    return typeof file === 'number' ? file : caller.install(file)
  }

  #deviceNamed(name: string): GroupDevice | number {
    for (const device of this.group.devices) {
      const matched = device.match(name)
      if (matched < 0) return matched
      if (matched > 0) return device
    }
    return -ERRNO.ENODEV
  }
}

/** strndup_user(): -EFAULT without memory, -EINVAL for what does not end in time. */
const userString = (arg: IoctlArg): string | number => {
  if (!(arg instanceof Uint8Array)) return -ERRNO.EFAULT
  const end = arg.indexOf(0)
  if (end < 0) return arg.length < NAME_MAX ? -ERRNO.EFAULT : -ERRNO.EINVAL
  return end >= NAME_MAX ? -ERRNO.EINVAL : new TextDecoder().decode(arg.subarray(0, end))
}
