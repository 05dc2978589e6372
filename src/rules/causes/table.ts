/**
 * The table of refusals: for every operation that the daemon asks a kernel for, every errno that
 * Linux answers to it, and the causes that it can have. docs/refusals.md is held equal to it.
 *
 * An errno that is not here is unexpected, and is reported as that.
 */

import type { Reason } from '../../base/error.ts'
import { CAUSES, type CauseId } from './catalog.ts'
import type { CauseCell, Row } from './cell.ts'
import { CONTAINER_ROWS } from './of-container.ts'
import { DEVICE_ROWS } from './of-device.ts'
import { PROCESS_ROWS } from './of-process.ts'

export const TABLE = { ...CONTAINER_ROWS, ...DEVICE_ROWS, ...PROCESS_ROWS } as const

/** A name of the table: the C name of an ioctl or of its flag, or a call and its object. */
export type KernelOperation = keyof typeof TABLE

const cellOf = (operation: string, errno: string): CauseCell | undefined => {
  const row: Row | undefined = (TABLE as Readonly<Record<string, Row>>)[operation]
  return (row as Readonly<Record<string, CauseCell>> | undefined)?.[errno]
}

/** The causes of an errno, the likeliest first; none where it is unexpected. */
export function causesOf(operation: string, errno: string): readonly CauseId[] {
  const cell = cellOf(operation, errno)
  if (cell === undefined) return []
  return 'causes' in cell ? cell.causes : cell
}

/** The one reason of some causes of a cell: that of them all, or what the cell has for them. */
export function reasonFor(operation: string, errno: string, remaining: readonly CauseId[]): Reason {
  const reasons = new Set<Reason>(remaining.map((id) => CAUSES[id].reason))
  const [only] = reasons
  if (only !== undefined && reasons.size === 1) return only
  const cell = cellOf(operation, errno)
  return cell !== undefined && 'causes' in cell ? cell.undecided : 'KERNEL_REFUSED'
}
