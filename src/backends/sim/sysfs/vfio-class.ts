/** /sys/class/vfio: the groups that vfio has a node for, whether or not /dev shows it. */

import { attribute, type Directory, directory, link } from '../file/vfs.ts'
import type { Machine } from '../machine/machine.ts'

/** The major number of /dev/vfio/N; the kernel takes any that is free. */
const MAJOR = 243
const DEVICES = '/sys/devices/virtual/vfio'

export const vfioClass = ({ vfio }: Machine): Directory =>
  directory(() =>
    Object.fromEntries(
      [...vfio.groups.values()].map(({ nodeName }) => [
        nodeName,
        () => link(`${DEVICES}/${nodeName}`),
      ]),
    ),
  )

/** /sys/devices/virtual/vfio. */
export const vfioGroups = ({ vfio }: Machine): Directory =>
  directory(() =>
    Object.fromEntries(
      [...vfio.groups.values()].map(({ nodeName }, minor) => [
        nodeName,
        () => directory(() => ({ dev: () => attribute(() => `${MAJOR}:${minor}\n`) })),
      ]),
    ),
  )
