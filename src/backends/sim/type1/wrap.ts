/** Ranges that a client names by start and size: where they wrap, and what that answers. */

import { ERRNO } from '../../../base/errno.ts'
import { U64_MAX } from '../../../base/units.ts'
import type { MachineSpec } from '../spec/machine-spec.ts'
import { isAtLeast } from '../spec/version.ts'

export const wraps = (start: bigint, size: bigint): boolean => start + size - 1n > U64_MAX

export const wrapErrno = ({ kernelVersion }: MachineSpec): number =>
  isAtLeast(kernelVersion, '6.18') ? ERRNO.EOVERFLOW : ERRNO.EINVAL
