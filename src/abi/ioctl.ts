/**
 * Requests. `_IO(';', nr)` carries neither size nor direction, so a number is 0x3b00 + nr and never
 * changes when its struct grows. The same number is another request on another kind of fd (0x3b71
 * maps DMA on a container and hot-resets a PCI device), so a request knows the kind of its fd, what
 * its third argument is, and what an answer above zero means.
 */

import type { FdKind } from '../base/units.ts'
import type { Struct } from './layout.ts'

/**
 * The third argument: a pointer to a struct, an integer by value, a pointer to an fd, a pointer to
 * a NUL-terminated name, or nothing. The struct of an `undescribed` one is not written down here.
 */
export type Argument =
  // biome-ignore lint/suspicious/noExplicitAny: a struct of any shape.
  Struct<any> | 'value' | 'fd' | 'name' | 'none' | 'undescribed'

/**
 * Which answers that are not negative are a success: zero alone; any number; an fd of a kind; or zero
 * alone, and one above it says that nothing was done and how many of something could be had.
 */
export type Success = 'zero' | 'number' | FdKind | 'available'

export interface Ioctl<
  Kind extends FdKind,
  Arg extends Argument = Argument,
  Out extends Success = Success,
> {
  /** The C name, e.g. `VFIO_GROUP_GET_STATUS`. */
  readonly cName: string
  readonly number: number
  /** The kind of fd that the request is made on. */
  readonly on: Kind
  readonly argument: Arg
  readonly answer: Out
}

/** `_IO(VFIO_TYPE, VFIO_BASE + nr)` of vfio.h; iommufd.h uses the same base from 0x80 on. */
export const io = <
  const Kind extends FdKind,
  const Arg extends Argument,
  const Out extends Success = 'zero',
>(
  on: Kind,
  cName: string,
  nr: number,
  argument: Arg,
  answer: Out = 'zero' as Out,
): Ioctl<Kind, Arg, Out> => ({ cName, number: 0x3b00 + nr, on, argument, answer })
