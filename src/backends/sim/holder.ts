/**
 * A process besides the daemon that has a group or a cdev open, and all that is behind it, as a VMM
 * has: a group with its devices in a container, a cdev bound to an iommufd. It never lets go by itself.
 */

import { VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU } from '../../abi/container.ts'
import { VFIO_DEVICE_BIND_IOMMUFD, vfio_device_bind_iommufd } from '../../abi/device.ts'
import { VFIO_GROUP_SET_CONTAINER } from '../../abi/group.ts'
import { dataView } from '../../abi/layout.ts'
import type { OpenFile } from './file/open-file.ts'
import type { Process } from './file/process.ts'
import type { Vfs } from './file/vfs.ts'
import { CdevFile } from './vfio/cdev-file.ts'
import { GroupFile } from './vfio/group.ts'

/** Whether the process could open the file; how far it comes from there is its own business. */
export const hold = (vfs: Vfs, process: Process, path: string): boolean => {
  const file = vfs.open(path, process)
  if (typeof file === 'number') return false
  process.install(file)
  if (file instanceof GroupFile) holdGroup(vfs, process, file)
  if (file instanceof CdevFile) bind(vfs, process, file)
  return true
}

const holdGroup = (vfs: Vfs, process: Process, file: GroupFile): void => {
  const container = opened(vfs, process, '/dev/vfio/vfio')
  if (container === undefined) return
  const fd = new Uint8Array(4)
  dataView(fd).setInt32(0, container.fd, true)
  void file.ioctl(process, VFIO_GROUP_SET_CONTAINER.number, fd)
  void container.file.ioctl(process, VFIO_SET_IOMMU.number, VFIO_TYPE1v2_IOMMU)
  for (const device of file.group.devices) {
    const open = device.openThroughGroup(file)
    if (typeof open !== 'number') process.install(open)
  }
}

const bind = (vfs: Vfs, process: Process, file: CdevFile): void => {
  const iommufd = opened(vfs, process, '/dev/iommu')
  if (iommufd === undefined) return
  const argsz = vfio_device_bind_iommufd.size
  const request = vfio_device_bind_iommufd.encode({
    argsz,
    flags: 0,
    iommufd: iommufd.fd,
    out_devid: 0,
  })
  void file.ioctl(process, VFIO_DEVICE_BIND_IOMMUFD.number, request)
}

const opened = (
  vfs: Vfs,
  process: Process,
  path: string,
): { readonly fd: number; readonly file: OpenFile } | undefined => {
  const file = vfs.open(path, process)
  return typeof file === 'number' ? undefined : { fd: process.install(file), file }
}
