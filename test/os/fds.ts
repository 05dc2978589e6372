/** Counting and waiting, for tests about fds and other processes. */

import { readdirSync } from 'node:fs'

/** How many fds this process has open. */
export const openFds = (): number => readdirSync('/proc/self/fd').length

/** Waits until a condition holds; the test's timeout is the limit. */
export const until = async (isTrue: () => boolean): Promise<void> => {
  while (!isTrue()) await new Promise((resolve) => setTimeout(resolve, 2))
}
