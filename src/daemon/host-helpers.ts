/** The helpers that the configuration names: what they do, this process does not do itself. */

import { HelperLink } from '../helper/helper-link.ts'
import { hostLooksBy, processLooksBy } from '../helper/looks-by-helper.ts'
import type { Serves } from '../helper/requests.ts'
import { writeByHelper } from '../helper/writes.ts'
import type { Kernel } from '../kernel/port.ts'
import type { ProcessLooks } from '../os/process-looks.ts'
import type { Config } from './config.ts'

export interface HostHelpers {
  /** Undefined where this process looks itself. */
  readonly processLooks: ProcessLooks | undefined
  /** The kernel with the helpers in the place of what they do. */
  readonly over: (kernel: Kernel) => Kernel
}

export const hostHelpers = (
  { looks_socket: looksAt, writes_socket: writesAt }: Config,
  parts: {
    readonly version: string
    readonly log: (fields: Readonly<Record<string, unknown>>, message: string) => void
  },
): HostHelpers => {
  const link = (serves: Serves, path: string | undefined): HelperLink | undefined => {
    if (path === undefined) return undefined
    const made = new HelperLink({ path, serves, ...parts })
    made.start()
    return made
  }
  const looks = link('looks', looksAt)
  const writes = link('writes', writesAt)
  return {
    processLooks: looks && processLooksBy(looks),
    over: (kernel) => ({
      ...kernel,
      ...(looks && { hostLooks: hostLooksBy(looks) }),
      ...(writes && { writeFile: writeByHelper(writes) }),
    }),
  }
}
