/** What a device fd from a group answers to the requests of a cdev. */

import { vfio_device_bind_iommufd } from '../../../abi/device.ts'
import { ERRNO } from '../../../base/errno.ts'
import type { IoctlArg } from '../../../kernel/port.ts'
import { copyIn } from '../core/user-memory.ts'

/** VFIO_DEVICE_BIND_IOMMUFD: an fd from a group is bound through its container. */
export const bindIommufd = (arg: IoctlArg): number =>
  copyIn(vfio_device_bind_iommufd, arg, vfio_device_bind_iommufd.size) === undefined
    ? -ERRNO.EFAULT
    : -ERRNO.EINVAL
