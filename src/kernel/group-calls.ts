/** Typed calls on a group: the unit of ownership (vfio.h: VFIO_GROUP_*). */

import {
  VFIO_GROUP_FLAGS_CONTAINER_SET,
  VFIO_GROUP_FLAGS_VIABLE,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_GROUP_UNSET_CONTAINER,
  vfio_group_status,
} from '../abi/group.ts'
import { dataView } from '../abi/layout.ts'
import type { Kernel } from './port.ts'
import { accept } from './refusal.ts'

const O_RDWR = 2

/** Open /dev/vfio/GROUP. One open file at a time exists per group: a second one is EBUSY. */
export async function openGroup(kernel: Kernel, group: number): Promise<number> {
  const answer = await kernel.open(`/dev/vfio/${group}`, O_RDWR)
  return accept('open /dev/vfio/GROUP', answer, `open group ${group}`)
}

export interface GroupStatus {
  /** Every device of the group is bound to a VFIO driver or to none. */
  readonly isViable: boolean
  readonly hasContainer: boolean
}

export async function groupStatus(kernel: Kernel, groupFd: number): Promise<GroupStatus> {
  const arg = vfio_group_status.encode({ argsz: vfio_group_status.size })
  const answer = await kernel.ioctl(groupFd, VFIO_GROUP_GET_STATUS.number, arg)
  accept(VFIO_GROUP_GET_STATUS.cName, answer, 'read the status of the group')
  const { flags } = vfio_group_status.decode(arg)
  return {
    isViable: (flags & VFIO_GROUP_FLAGS_VIABLE) !== 0,
    hasContainer: (flags & VFIO_GROUP_FLAGS_CONTAINER_SET) !== 0,
  }
}

/** Put the group into a container; where the container has an IOMMU type it is attached at once. */
export async function setContainer(
  kernel: Kernel,
  ids: { readonly groupFd: number; readonly containerFd: number; readonly group: number },
): Promise<void> {
  const arg = new Uint8Array(4)
  dataView(arg).setInt32(0, ids.containerFd, true)
  const answer = await kernel.ioctl(ids.groupFd, VFIO_GROUP_SET_CONTAINER.number, arg)
  accept(VFIO_GROUP_SET_CONTAINER.cName, answer, `add group ${ids.group}`)
}

export async function unsetContainer(kernel: Kernel, groupFd: number): Promise<void> {
  const answer = await kernel.ioctl(groupFd, VFIO_GROUP_UNSET_CONTAINER.number, undefined)
  accept(VFIO_GROUP_UNSET_CONTAINER.cName, answer, 'remove the group')
}

/** The fd of a device of the group: a PCI address or an mdev UUID. */
export async function getDeviceFd(kernel: Kernel, groupFd: number, name: string): Promise<number> {
  const arg = new TextEncoder().encode(`${name}\0`)
  const answer = await kernel.ioctl(groupFd, VFIO_GROUP_GET_DEVICE_FD.number, arg)
  return accept(VFIO_GROUP_GET_DEVICE_FD.cName, answer, `open device ${name}`)
}
