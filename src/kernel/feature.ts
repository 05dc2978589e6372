/**
 * VFIO_DEVICE_FEATURE: one envelope for all features of a device (vfio.h: struct
 * vfio_device_feature). A feature is its number, its payload, and the name under which errno are
 * read.
 */

import {
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FEATURE_SET,
} from '../abi/feature.ts'
import { type Fields, type Struct, struct, type Values } from '../abi/layout.ts'
import type { DeviceFd } from '../base/units.ts'
import type { Kernel } from './port.ts'
import { wasErrno } from './refusal.ts'
import { named, request, unless } from './request.ts'

export interface Feature<F extends Fields> {
  /** The C name of the number. */
  readonly cName: string
  readonly number: number
  readonly payload: Struct<F>
}

/** The payload of a feature that has none. */
export const NO_PAYLOAD = struct('void', {})

const transfer =
  (flag: number) =>
  async <F extends Fields>(
    kernel: Kernel,
    deviceFd: DeviceFd,
    feature: Feature<F>,
    given: Partial<Values<F>>,
    act: string,
  ): Promise<Values<F>> => {
    const payload = feature.payload.encode(given)
    const envelope = named(feature.cName, VFIO_DEVICE_FEATURE)
    const flags = flag | feature.number
    await request(kernel, deviceFd, envelope, { flags }, act, payload)
    return feature.payload.decode(payload)
  }

/** Read a feature; `given` are the fields of the payload that say what is read. */
export const get = transfer(VFIO_DEVICE_FEATURE_GET)

/** Set a feature; answers the payload as the kernel left it. */
export const set = transfer(VFIO_DEVICE_FEATURE_SET)

/** Read a feature; undefined for a device that does not have it (ENOTTY). */
export const getIfPresent = <F extends Fields>(
  kernel: Kernel,
  deviceFd: DeviceFd,
  feature: Feature<F>,
): Promise<Values<F> | undefined> =>
  unless('ENOTTY', get(kernel, deviceFd, feature, {}, `read ${feature.cName} of the device`))

/** What a driver without the feature answers. */
const MISSING = ['ENOTTY', 'EINVAL', 'EOPNOTSUPP'] as const

/** Whether the device has a feature that can be set; nothing is set. */
export async function probe(
  kernel: Kernel,
  deviceFd: DeviceFd,
  { cName, number }: Feature<Fields>,
): Promise<boolean> {
  const flags = VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_SET | number
  try {
    await request(kernel, deviceFd, VFIO_DEVICE_FEATURE, { flags }, `ask for ${cName}`)
    return true
  } catch (error) {
    // The others say that it cannot be told.
    if (MISSING.some((errno) => wasErrno(error, errno))) return false
    throw error
  }
}
