/** Looks at the whole host that need the right to see the processes of other users. */

import type { HostFacts } from '../rules/host-use.ts'

/** A process that has a file of /dev open. */
export interface Holder {
  readonly pid: number
  /** Its command name; `gone` where it has ended since. */
  readonly command: string
  /** What it has open: `/dev/vfio/N`, `/dev/vfio/devices/vfioN`, or another node. */
  readonly path: string
}

/** Each throws HELPER_UNAVAILABLE where the process that looks cannot be asked. */
export interface HostLooks {
  /** Every file of a group or a device of VFIO that a process has open. */
  vfioHolders(): Promise<Holder[]>
  /** What the host uses its PCI functions for; the functions by their addresses. */
  hostFacts(functions: readonly string[]): Promise<HostFacts>
}
