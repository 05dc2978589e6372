/** vfio.h: requests on a group fd, /dev/vfio/$GROUP. */

import { io } from './ioctl.ts'
import { struct } from './layout.ts'

/** The argument is a pointer to an s32: the fd of a container, or of an iommufd since 6.2. */
export const VFIO_GROUP_SET_CONTAINER = io('group', 'VFIO_GROUP_SET_CONTAINER', 104, 'fd')
export const VFIO_GROUP_UNSET_CONTAINER = io('group', 'VFIO_GROUP_UNSET_CONTAINER', 105, 'none')
/**
 * The argument is a NUL-terminated device name: a PCI address, an mdev UUID, or for a VF whose PF
 * has a token `0000:06:0d.0 vf_token=UUID`. Answers the device fd, which is O_CLOEXEC.
 */
export const VFIO_GROUP_GET_DEVICE_FD = io(
  'group',
  'VFIO_GROUP_GET_DEVICE_FD',
  106,
  'name',
  'device',
)

export const VFIO_GROUP_FLAGS_VIABLE = 1
export const VFIO_GROUP_FLAGS_CONTAINER_SET = 2

export const vfio_group_status = struct('vfio_group_status', { argsz: 'u32', flags: 'u32' })

export const VFIO_GROUP_GET_STATUS = io('group', 'VFIO_GROUP_GET_STATUS', 103, vfio_group_status)
