/**
 * The state machine of migration v2 that drivers share: it breaks a wanted state into arcs, has
 * the driver take them one by one, and stays where the first refusal left it.
 */

import { VFIO_MIGRATION_P2P, VFIO_MIGRATION_PRE_COPY } from '../../../abi/mig-v2.ts'
import { ERRNO } from '../../../base/errno.ts'
import { MIG_STATES, type MigState, pathOf } from '../../../rules/mig-arcs.ts'
import type { OpenFile } from '../file/open-file.ts'
import type { MigrationOps } from './migration-feature.ts'

export interface MigDriver {
  /** Takes one arc: the file of the session it opens, null for none, or -errno. */
  arc(from: MigState, to: MigState): OpenFile | null | number
  dataSize(): bigint
}

export class MigV2 implements MigrationOps {
  readonly flags: number
  readonly #driver: MigDriver
  state: MigState = 'RUNNING'

  constructor(flags: number, driver: MigDriver) {
    this.flags = flags
    this.#driver = driver
  }

  getState(): number {
    return MIG_STATES.indexOf(this.state)
  }

  setState(number: number): OpenFile | null | number {
    const wanted = MIG_STATES[number]
    if (wanted === undefined) return -ERRNO.EINVAL
    const path = pathOf(this.state, wanted, {
      p2p: (this.flags & VFIO_MIGRATION_P2P) !== 0,
      preCopy: (this.flags & VFIO_MIGRATION_PRE_COPY) !== 0,
    })
    if (path === null) return -ERRNO.EINVAL
    let opened: OpenFile | null = null
    for (const next of path) {
      const taken = this.#driver.arc(this.state, next)
      if (typeof taken === 'number') return taken
      opened = taken ?? opened
      this.state = next
    }
    return opened
  }

  dataSize(): bigint {
    return this.#driver.dataSize()
  }
}
