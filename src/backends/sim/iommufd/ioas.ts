/** An ioas: an address space that devices and accesses are attached to, and its hwpts. */

import { U64_MAX } from '../../../base/units.ts'
import { IoPagetable } from './io-pagetable.ts'
import { IommufdObject } from './objects.ts'

/** A hwpt of the ioas, as the ioas sees it. */
export interface IoasTable {
  /** Made by attaching a device to the ioas, and destroyed with the last device. */
  readonly isAuto: boolean
  /** Whether devices cannot get around the caches of the CPU. */
  readonly enforcesCoherency: boolean
}

export class Ioas extends IommufdObject {
  readonly iopt = new IoPagetable()
  readonly hwpts = new Set<IoasTable>()
  readonly #forget: (ioas: Ioas) => void

  constructor(forget: (ioas: Ioas) => void) {
    super()
    this.#forget = forget
  }

  override destroy(): void {
    this.iopt.unmap({ start: 0n, last: U64_MAX })
    this.#forget(this)
  }
}
