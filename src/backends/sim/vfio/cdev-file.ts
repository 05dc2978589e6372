/**
 * /dev/vfio/devices/vfioN: opening it does not claim the device; binding it to an iommufd opens the
 * device for this one file. vfio.h: VFIO_DEVICE_BIND_IOMMUFD, VFIO_DEVICE_ATTACH_IOMMUFD_PT and DETACH.
 */

import {
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
  vfio_device_attach_iommufd_pt,
  vfio_device_bind_iommufd,
  vfio_device_detach_iommufd_pt,
} from '../../../abi/device.ts'
import { ERRNO } from '../../../base/errno.ts'
import type { IoctlArg, MapRequest } from '../../../kernel/port.ts'
import type { DeviceMemory } from '../core/mm.ts'
import { isRealFd } from '../core/real-fd.ts'
import { copyIn, copyOut } from '../core/user-memory.ts'
import type { Answer, Caller } from '../file/open-file.ts'
import { IommufdFile } from '../iommufd/iommufd-file.ts'
import { DeviceFile, type VfioDevice } from './vfio-device.ts'

export class CdevFile extends DeviceFile {
  /** The iommufd, while the device is bound through this file. */
  #iommufd: IommufdFile | undefined

  constructor(device: VfioDevice) {
    super(device)
    device.openCdev()
  }

  override ioctl(caller: Caller, request: number, arg: IoctlArg): Answer {
    if (request === VFIO_DEVICE_BIND_IOMMUFD.number) return this.#bind(caller, arg)
    if (!this.#iommufd) return -ERRNO.EINVAL
    if (request === VFIO_DEVICE_ATTACH_IOMMUFD_PT.number) return this.#attach(arg)
    if (request === VFIO_DEVICE_DETACH_IOMMUFD_PT.number) return this.#detach(arg)
    return super.ioctl(caller, request, arg)
  }

  override pread(into: Uint8Array, offset: bigint): Answer {
    return this.#iommufd ? super.pread(into, offset) : -ERRNO.EINVAL
  }

  override pwrite(from: Uint8Array, offset: bigint): Answer {
    return this.#iommufd ? super.pwrite(from, offset) : -ERRNO.EINVAL
  }

  override mmap(request: MapRequest): Promise<DeviceMemory | number> | number {
    return this.#iommufd ? super.mmap(request) : -ERRNO.EINVAL
  }

  override read(into: Uint8Array): Answer {
    return this.#iommufd ? super.read(into) : -ERRNO.EINVAL
  }

  override write(from: Uint8Array): Answer {
    return this.#iommufd ? super.write(from) : -ERRNO.EINVAL
  }

  protected override release(): void {
    const { device } = this
    if (this.#iommufd) {
      device.closeOne()
      device.group.boundCdevs -= 1
      this.#iommufd.put()
    }
    device.closeCdev()
  }

  #bind(caller: Caller, arg: IoctlArg): number {
    const { size } = vfio_device_bind_iommufd
    const bind = copyIn(vfio_device_bind_iommufd, arg, size)
    if (bind === undefined) return -ERRNO.EFAULT
    if (bind.argsz < size || bind.flags !== 0 || bind.iommufd < 0) return -ERRNO.EINVAL
    const { device } = this
    // A group that is open has all of its devices.
    if (device.group.openedFile) return -ERRNO.EBUSY
    if (this.#iommufd) return -ERRNO.EINVAL
    const file = caller.fileOf(bind.iommufd)
    if (file === undefined && !isRealFd(bind.iommufd)) return -ERRNO.EBADF
    if (!(file instanceof IommufdFile)) return -ERRNO.EBADFD

    const opened = device.openThroughCdev(file.context)
    if (opened < 0) return opened
    const answer = { ...bind, out_devid: device.binding?.id ?? 0 }
    const copied = copyOut(arg, vfio_device_bind_iommufd.encode(answer))
    if (copied < 0) {
      device.closeOne()
      return copied
    }
    device.group.boundCdevs += 1
    this.#iommufd = file.get()
    return 0
  }

  #attach(arg: IoctlArg): number {
    const { size } = vfio_device_attach_iommufd_pt
    const attach = copyIn(vfio_device_attach_iommufd_pt, arg, size)
    if (attach === undefined) return -ERRNO.EFAULT
    if (attach.argsz < size || attach.flags !== 0) return -ERRNO.EINVAL
    const ptId = this.device.binding?.attach(attach.pt_id) ?? -ERRNO.EINVAL
    if (ptId < 0) return ptId
    return copyOut(arg, vfio_device_attach_iommufd_pt.encode({ ...attach, pt_id: ptId }))
  }

  #detach(arg: IoctlArg): number {
    const { size } = vfio_device_detach_iommufd_pt
    const detach = copyIn(vfio_device_detach_iommufd_pt, arg, size)
    if (detach === undefined) return -ERRNO.EFAULT
    if (detach.argsz < size || detach.flags !== 0) return -ERRNO.EINVAL
    this.device.binding?.detach()
    return 0
  }
}
