/** Typed calls on a group: the unit of ownership (vfio.h: VFIO_GROUP_*). */

import {
  VFIO_GROUP_FLAGS_CONTAINER_SET,
  VFIO_GROUP_FLAGS_VIABLE,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_GROUP_UNSET_CONTAINER,
} from '../abi/group.ts'
import type { ContainerFd, DeviceFd, GroupFd } from '../base/units.ts'
import { nameWithToken } from '../rules/vf-token.ts'
import type { Kernel } from './port.ts'
import { accept } from './refusal.ts'
import { request } from './request.ts'

const O_RDWR = 2

/** Open /dev/vfio/GROUP. One open file at a time exists per group: a second one is EBUSY. */
export async function openGroup(kernel: Kernel, group: number): Promise<GroupFd> {
  const answer = await kernel.open(`/dev/vfio/${group}`, O_RDWR)
  return accept('open /dev/vfio/GROUP', answer, `open group ${group}`) as GroupFd
}

export interface GroupStatus {
  /** Every device of the group is bound to a VFIO driver or to none. */
  readonly isViable: boolean
  readonly hasContainer: boolean
}

export async function groupStatus(kernel: Kernel, groupFd: GroupFd): Promise<GroupStatus> {
  const act = 'read the status of the group'
  const { flags } = await request(kernel, groupFd, VFIO_GROUP_GET_STATUS, {}, act)
  return {
    isViable: (flags & VFIO_GROUP_FLAGS_VIABLE) !== 0,
    hasContainer: (flags & VFIO_GROUP_FLAGS_CONTAINER_SET) !== 0,
  }
}

/** Put the group into a container; where the container has an IOMMU type it is attached at once. */
export async function setContainer(
  kernel: Kernel,
  ids: { readonly groupFd: GroupFd; readonly containerFd: ContainerFd; readonly group: number },
): Promise<void> {
  const act = `add group ${ids.group}`
  await request(kernel, ids.groupFd, VFIO_GROUP_SET_CONTAINER, ids.containerFd, act)
}

export async function unsetContainer(kernel: Kernel, groupFd: GroupFd): Promise<void> {
  await request(kernel, groupFd, VFIO_GROUP_UNSET_CONTAINER, undefined, 'remove the group')
}

/** The fd of a device of the group: a PCI address, with a VF token or without, or an mdev UUID. */
export const getDeviceFd = (
  kernel: Kernel,
  groupFd: GroupFd,
  { name, vfToken }: { readonly name: string; readonly vfToken?: string | undefined },
): Promise<DeviceFd> => {
  const argument = nameWithToken(name, vfToken)
  return request(kernel, groupFd, VFIO_GROUP_GET_DEVICE_FD, argument, `open device ${name}`)
}
