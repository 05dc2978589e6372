/** A cell of the table: what one errno of one operation can mean. */

import type { ErrnoName } from '../../base/errno.ts'
import type { Reason } from '../../base/error.ts'
import type { CauseId } from './catalog.ts'

/** The causes, the likeliest first. */
export type CauseCell =
  | readonly CauseId[]
  | {
      readonly causes: readonly CauseId[]
      /** The reason while several causes remain; KERNEL_REFUSED where their reasons differ. */
      readonly undecided: Reason
    }

/** What each errno of an operation can mean. */
export type Row = Readonly<Partial<Record<ErrnoName, CauseCell>>>

/** Answers to any ioctl: an fd or a pointer that is none can only be a bug. */
export const IOCTL = {
  EBADF: ['bug'],
  EFAULT: ['bug'],
  ENOTTY: ['request-unknown'],
} as const satisfies Row

/** Answers to whatever makes a new fd. */
export const NEW_FD = {
  EMFILE: ['fds-exhausted'],
  ENFILE: ['host-files-exhausted'],
  ENOMEM: ['kernel-memory'],
} as const satisfies Row

/** vfio_device_fops_unl_ioctl() wakes the device first. */
export const DEVICE = { ...IOCTL, EIO: ['device-does-not-wake'] } as const satisfies Row
