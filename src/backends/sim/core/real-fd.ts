/** Fds of this process that are not the simulator's. */

import { fstatSync } from 'node:fs'

/** Whether the number is open in this process at all, as something that is not ours. */
export const isRealFd = (fd: number): boolean => {
  try {
    fstatSync(fd)
    return true
  } catch {
    return false
  }
}
