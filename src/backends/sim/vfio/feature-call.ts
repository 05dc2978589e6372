/** One VFIO_DEVICE_FEATURE call, and the check that every feature begins with. */

import {
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FEATURE_SET,
} from '../../../abi/feature.ts'
import { ERRNO } from '../../../base/errno.ts'
import type { IoctlArg } from '../../../kernel/port.ts'
import type { Caller } from '../file/open-file.ts'

const GET_OR_SET = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET

/** One call: what it asks, and the payload behind the envelope. */
export interface FeatureCall {
  readonly caller: Caller
  readonly flags: number
  /** Bytes of payload that argsz speaks of. */
  readonly room: number
  readonly payload: IoctlArg
}

/**
 * vfio_check_feature(): 1 to go on, 0 for a successful probe, or -errno. `supported` is GET, SET or
 * both; `size` is that of the payload.
 */
export const checkFeature = (
  { flags, room }: FeatureCall,
  supported: number,
  size: number,
): number => {
  if ((flags & GET_OR_SET & ~supported) !== 0) return -ERRNO.EINVAL
  if ((flags & VFIO_DEVICE_FEATURE_PROBE) !== 0) return 0
  if ((flags & GET_OR_SET) === 0) return -ERRNO.EINVAL
  return room < size ? -ERRNO.EINVAL : 1
}
