/** VFIO_DEVICE_SET_IRQS: the checks that every driver has the core of vfio make. */

import {
  VFIO_IRQ_SET_ACTION_TYPE_MASK,
  VFIO_IRQ_SET_DATA_BOOL,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_IRQ_SET_DATA_TYPE_MASK,
  vfio_irq_set,
} from '../../../abi/device.ts'
import { dataView } from '../../../abi/layout.ts'
import { ERRNO } from '../../../base/errno.ts'
import type { IoctlArg } from '../../../kernel/port.ts'
import { argAfter, argBytes, copyIn } from '../core/user-memory.ts'

export interface IrqData {
  readonly kind: 'none' | 'bool' | 'eventfd'
  readonly start: number
  readonly count: number
  /** One per vector, with kind eventfd. */
  readonly fds: readonly number[]
  /** Whether vector `at` of the call is meant: all are without data. */
  fires(at: number): boolean
}

export interface IrqSet {
  readonly index: number
  readonly action: number
  readonly data: IrqData
}

const BYTES: Record<number, 0 | 1 | 4> = {
  [VFIO_IRQ_SET_DATA_NONE]: 0,
  [VFIO_IRQ_SET_DATA_BOOL]: 1,
  [VFIO_IRQ_SET_DATA_EVENTFD]: 4,
}
const KIND = { 0: 'none', 1: 'bool', 4: 'eventfd' } as const
const FLAGS = VFIO_IRQ_SET_DATA_TYPE_MASK | VFIO_IRQ_SET_ACTION_TYPE_MASK

/** The request in parts, or -errno. `vectors` says how many an index has. */
export const irqSet = (
  arg: IoctlArg,
  { indexes, vectors }: { readonly indexes: number; vectors(index: number): number },
): IrqSet | number => {
  const { size } = vfio_irq_set
  const header = copyIn(vfio_irq_set, arg, size)
  if (header === undefined) return -ERRNO.EFAULT
  const { argsz, flags, index, start, count } = header
  if (argsz < size || index >= indexes || count >= 0xffff_ffff - start || (flags & ~FLAGS) !== 0)
    return -ERRNO.EINVAL
  if (start >= vectors(index) || start + count > vectors(index)) return -ERRNO.EINVAL
  const width = BYTES[flags & VFIO_IRQ_SET_DATA_TYPE_MASK]
  if (width === undefined) return -ERRNO.EINVAL
  if (argsz - size < count * width) return -ERRNO.EINVAL
  const bytes = argBytes(argAfter(arg, size), count * width)
  if (bytes === undefined) return -ERRNO.EFAULT

  const view = dataView(bytes)
  const items = Array.from({ length: count }, (_, at) => at)
  return {
    index,
    action: flags & VFIO_IRQ_SET_ACTION_TYPE_MASK,
    data: {
      kind: KIND[width],
      start,
      count,
      fds: width === 4 ? items.map((at) => view.getInt32(at * 4, true)) : [],
      fires: (at) => width !== 1 || view.getUint8(at) !== 0,
    },
  }
}
