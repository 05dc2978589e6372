/**
 * The reset of a bus, for which the kernel wants an open file of every group that has a device there:
 * those of members are open, and free ones are opened for as long as it takes.
 */

import type { DeviceFd, GroupFd } from '../../base/units.ts'
import { openGroup } from '../../kernel/group-calls.ts'
import { hotReset } from '../../kernel/hot-reset-calls.ts'
import type { Kernel } from '../../kernel/port.ts'
import type { IommuBackend } from './backend.ts'

export interface BusGroups {
  readonly members: readonly { readonly group: number; readonly backend: IommuBackend }[]
  /** Groups that no address space has. */
  readonly free: readonly number[]
}

/** Reset every device of the bus of an open device. Groups opened for it are closed in any case. */
export async function resetBus(
  kernel: Kernel,
  device: DeviceFd,
  { members, free }: BusGroups,
): Promise<void> {
  const opened: GroupFd[] = []
  try {
    for (const group of free) opened.push(await openGroup(kernel, group))
    const owned = members.map(({ group, backend }) => backend.groupFd(group))
    await hotReset(kernel, device, [...owned, ...opened])
  } finally {
    for (const fd of opened) await kernel.close(fd)
  }
}
