/** How a fault is described: in which calls it strikes, at which of them, and what it does. */

import { REQUESTS } from '../../../abi/requests.ts'
import type { ErrnoName } from '../../../base/errno.ts'

export const FAULT_CALLS = [
  'open',
  'close',
  'ioctl',
  'pread',
  'pwrite',
  'read',
  'write',
  'mmap',
  'munmap',
  'exportFd',
  'readFile',
  'writeFile',
  'readDir',
  'readLink',
] as const
export type FaultCall = (typeof FAULT_CALLS)[number]

/** What is done to a call, or to the machine when it is made: then the call goes on. */
export type FaultEffect =
  | { readonly kind: 'errno'; readonly errno: ErrnoName }
  /** The call waits for so many steps of time, or where it is 0 until the fault is cleared. */
  | { readonly kind: 'stall'; readonly steps: number }
  /** A read or write takes no more than so many bytes. */
  | { readonly kind: 'short'; readonly bytes: number }
  /** The device is gone: ENODEV and EIO from then on. */
  | { readonly kind: 'lose'; readonly device: string }
  /** The button of its slot: the kernel takes the function from the bus, as soon as its user lets it. */
  | { readonly kind: 'unplug'; readonly device: string }
  /** The hardware is put into its slot, and the kernel finds it. */
  | { readonly kind: 'plug'; readonly device: string }
  /** Another process opens a file of /dev/vfio, and all that is behind it, until the fault is cleared. */
  | {
      readonly kind: 'hold'
      readonly path: string
      readonly pid: number
      readonly command: string
    }
  /** The device reports an uncorrectable error: its ERR interrupt fires. */
  | { readonly kind: 'aer'; readonly device: string }
  /** The firmware of a vendor-like device refuses its next migration arc. */
  | { readonly kind: 'arc'; readonly device: string; readonly errno: ErrnoName }

/** proc(5): the greatest pid, and the longest `comm`. */
export const PID_MAX = 2 ** 22
export const COMMAND_MAX = 15
export const HOLDER_COMMAND = 'qemu-system-x86'

export interface FaultSpec {
  /** By which it is cleared. */
  readonly name: string
  /** Any call where nothing is said. */
  readonly call?: FaultCall
  /** Of ioctls: the C name, `VFIO_IOMMU_MAP_DMA`. */
  readonly request?: string
  /** The call is on a file of this device, a data_fd too; or about a path that has this in it. */
  readonly device?: string
  readonly path?: string
  /** The first call that is struck, counted from 1. */
  readonly nth: number
  /** How many calls are struck; 0 for all from then on. */
  readonly times: number
  readonly effect: FaultEffect
}

/** Requests by their C names; one number may have several, on different files. */
export const FAULT_REQUESTS: ReadonlyMap<string, number> = new Map(
  REQUESTS.map(({ cName, number }) => [cName, number]),
)
