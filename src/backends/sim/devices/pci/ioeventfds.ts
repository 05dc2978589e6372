/**
 * VFIO_DEVICE_IOEVENTFD: writes to BARs that the kernel makes by itself whenever an eventfd is
 * signalled. An entry is known by all that it writes; it lasts until it is removed or the device
 * is closed. vfio.h: struct vfio_device_ioeventfd.
 */

import {
  VFIO_DEVICE_IOEVENTFD_SIZE_MASK,
  VFIO_PCI_BAR5_REGION_INDEX,
  vfio_device_ioeventfd,
} from '../../../../abi/device.ts'
import { ERRNO } from '../../../../base/errno.ts'
import type { IoctlArg } from '../../../../kernel/port.ts'
import { copyIn } from '../../core/user-memory.ts'
import type { Virqfds } from '../../vfio/virqfds.ts'
import type { PciFunction } from './pci-function.ts'
import { barOf, regionAt, writeBar } from './regions.ts'

/** VFIO_PCI_IOEVENTFD_MAX: how many a device may have. */
const MAX = 1000
/** Up to `fd`. */
const MIN = vfio_device_ioeventfd.offsets.reserved
const WIDTHS = [1, 2, 4, 8]
const MSIX_ENTRY_BYTES = 16n

export class Ioeventfds {
  readonly #pci: PciFunction
  readonly #virqfds: Virqfds
  /** What stops each, by what it writes. */
  readonly #entries = new Map<string, () => void>()

  constructor(pci: PciFunction, virqfds: Virqfds) {
    this.#pci = pci
    this.#virqfds = virqfds
  }

  set(arg: IoctlArg): number {
    const given = copyIn(vfio_device_ioeventfd, arg, MIN)
    if (given === undefined) return -ERRNO.EFAULT
    const { argsz, flags: width, offset, data, fd } = given
    if (argsz < MIN || (width & ~VFIO_DEVICE_IOEVENTFD_SIZE_MASK) !== 0) return -ERRNO.EINVAL
    if (!WIDTHS.includes(width) || fd < -1) return -ERRNO.EINVAL
    const { index, at } = regionAt(offset)
    if (!this.#isPlace(index, at, width)) return -ERRNO.EINVAL

    const key = `${index} ${at} ${width} ${data}`
    const stop = this.#entries.get(key)
    if (stop) {
      if (fd !== -1) return -ERRNO.EEXIST
      stop()
      this.#entries.delete(key)
      return 0
    }
    if (fd === -1) return -ERRNO.ENODEV
    if (this.#entries.size >= MAX) return -ERRNO.ENOSPC
    const bytes = new Uint8Array(new BigUint64Array([data]).buffer).subarray(0, width)
    const watched = this.#virqfds.watch(fd, () => {
      // It is one access, and no register takes one that is not aligned.
      if (at % BigInt(width) === 0n) writeBar(this.#pci, bytes, { index, at })
    })
    if (typeof watched === 'number') return watched
    this.#entries.set(key, watched)
    return 0
  }

  /** The device is closed. */
  disable(): void {
    for (const stop of this.#entries.values()) stop()
    this.#entries.clear()
  }

  /** Inside a BAR, and not in the table of MSI-X, whose messages are the kernel's business. */
  #isPlace(index: number, at: bigint, width: number): boolean {
    const bar = index <= VFIO_PCI_BAR5_REGION_INDEX ? barOf(this.#pci, index) : undefined
    if (bar === undefined || at + BigInt(width) > bar.size) return false
    const table = BigInt(this.#pci.spec.msixVectors) * MSIX_ENTRY_BYTES
    return this.#pci.msixBar !== index || at >= table
  }
}
