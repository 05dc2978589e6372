/**
 * Request numbers. `_IO(';', nr)` carries neither size nor direction, so a number is 0x3b00 + nr
 * and never changes when its struct grows. The same number means different things on different
 * fds (0x3b71 maps DMA on a container and hot-resets a PCI device), so a request knows its fd.
 */

export type FdKind = 'container' | 'group' | 'device' | 'dataFd' | 'iommufd'

export interface Ioctl<Kind extends FdKind> {
  /** The C name, e.g. `VFIO_GROUP_GET_STATUS`. */
  readonly cName: string
  readonly number: number
  /** Never set: it makes the requests of one fd kind unusable on another. */
  readonly fdKind?: Kind
}

/** `_IO(VFIO_TYPE, VFIO_BASE + nr)` of vfio.h; iommufd.h uses the same base from 0x80 on. */
export const io = <Kind extends FdKind>(cName: string, nr: number): Ioctl<Kind> => ({
  cName,
  number: 0x3b00 + nr,
})
