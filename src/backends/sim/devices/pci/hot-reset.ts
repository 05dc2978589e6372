/**
 * Hot reset: resetting the bus below a bridge, and with it every function there, so the caller
 * must own all of them. vfio.h: VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, VFIO_DEVICE_PCI_HOT_RESET.
 */

import {
  VFIO_PCI_DEVID_NOT_OWNED,
  VFIO_PCI_DEVID_OWNED,
  VFIO_PCI_HOT_RESET_FLAG_DEV_ID,
  VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED,
  vfio_pci_dependent_device,
  vfio_pci_hot_reset,
  vfio_pci_hot_reset_info,
} from '../../../../abi/device.ts'
import { dataView } from '../../../../abi/layout.ts'
import { ERRNO } from '../../../../base/errno.ts'
import type { IoctlArg } from '../../../../kernel/port.ts'
import { isRealFd } from '../../core/real-fd.ts'
import { argAfter, argBytes, copyIn, copyOut } from '../../core/user-memory.ts'
import type { Caller } from '../../file/open-file.ts'
import { GroupFile, type VfioGroup } from '../../vfio/group.ts'
import type { PciFunction } from './pci-function.ts'

export const hotResetInfo = (pci: PciFunction, arg: IoctlArg): number => {
  const { size } = vfio_pci_hot_reset_info
  const header = copyIn(vfio_pci_hot_reset_info, arg, size)
  if (header === undefined) return -ERRNO.EFAULT
  if (header.argsz < size) return -ERRNO.EINVAL
  const siblings = pci.siblings()
  if (siblings === undefined) return -ERRNO.ENODEV

  const count = siblings.length
  const isCdev = pci.vfio?.isCdevOpened === true
  const devices = siblings.map((sibling) =>
    vfio_pci_dependent_device.encode({
      group_id: isCdev ? devIdOf(sibling, pci) : sibling.iommuGroup.id,
      ...sibling.place,
    }),
  )
  const hasRoom = header.argsz >= size + count * vfio_pci_dependent_device.size
  const flags = isCdev ? cdevFlags(siblings, pci) : 0
  const answer = vfio_pci_hot_reset_info.encode({ argsz: header.argsz, flags, count })
  const copied = copyOut(arg, Buffer.concat([answer, ...(hasRoom ? devices : [])]))
  if (copied < 0) return copied
  return hasRoom ? 0 : -ERRNO.ENOSPC
}

/** The id that the caller's iommufd has for a function, or how it comes to own it without one. */
const devIdOf = ({ vfio, iommuGroup }: PciFunction, caller: PciFunction): number => {
  const iommufd = caller.vfio?.iommufd
  if (vfio === undefined || iommufd === undefined) return VFIO_PCI_DEVID_NOT_OWNED
  if (vfio.iommufd === iommufd) return vfio.binding?.id ?? VFIO_PCI_DEVID_NOT_OWNED
  // No other owner can have a function of a group that it owns.
  return iommuGroup.isClaimedFor(iommufd) ? VFIO_PCI_DEVID_OWNED : VFIO_PCI_DEVID_NOT_OWNED
}

const cdevFlags = (siblings: readonly PciFunction[], caller: PciFunction): number =>
  siblings.every((sibling) => devIdOf(sibling, caller) !== VFIO_PCI_DEVID_NOT_OWNED)
    ? VFIO_PCI_HOT_RESET_FLAG_DEV_ID | VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED
    : VFIO_PCI_HOT_RESET_FLAG_DEV_ID

export const hotReset = (pci: PciFunction, caller: Caller, arg: IoctlArg): number => {
  const { size } = vfio_pci_hot_reset
  const header = copyIn(vfio_pci_hot_reset, arg, size)
  if (header === undefined) return -ERRNO.EFAULT
  if (header.argsz < size || header.flags !== 0) return -ERRNO.EINVAL
  // The callers of cdevs have no groups to show, and the others must show theirs.
  const isCdev = pci.vfio?.isCdevOpened === true
  if ((header.count === 0) !== isCdev) return -ERRNO.EINVAL
  const siblings = pci.siblings()
  if (siblings === undefined) return -ERRNO.ENODEV
  if (header.count > siblings.length) return -ERRNO.EINVAL
  const groups = groupsOf(caller, argAfter(arg, size), header.count)
  if (typeof groups === 'number') return groups

  const owns = (sibling: PciFunction): boolean => {
    const { vfio } = sibling
    if (isCdev) return devIdOf(sibling, pci) !== VFIO_PCI_DEVID_NOT_OWNED
    return vfio !== undefined && groups.includes(vfio.group)
  }
  if (!siblings.every(owns)) return -ERRNO.EINVAL
  for (const sibling of siblings) sibling.resetFunction()
  return 0
}

const groupsOf = (caller: Caller, arg: IoctlArg, count: number): VfioGroup[] | number => {
  const bytes = argBytes(arg, count * 4)
  if (bytes === undefined) return -ERRNO.EFAULT
  const groups: VfioGroup[] = []
  for (let index = 0; index < count; index++) {
    const fd = dataView(bytes).getInt32(index * 4, true)
    const file = caller.fileOf(fd)
    if (file === undefined && !isRealFd(fd)) return -ERRNO.EBADF
    if (!(file instanceof GroupFile)) return -ERRNO.EINVAL
    groups.push(file.group)
  }
  return groups
}
