/** A mediated device that is bound to an iommufd: its driver would pin what it needs by itself. */

import { ERRNO } from '../../../base/errno.ts'
import { PAGE_SIZE } from '../../../base/units.ts'
import type { Binding } from './binding.ts'
import type { IommufdContext } from './context.ts'
import type { Access } from './io-pagetable.ts'
import type { Ioas } from './ioas.ts'
import { IommufdObject } from './objects.ts'

export const bindEmulated = (context: IommufdContext): EmulatedDevice => {
  context.file.get()
  return context.objects.insert(new EmulatedDevice(context))
}

class EmulatedDevice extends IommufdObject implements Binding, Access {
  /** A driver pins whole pages. */
  readonly alignment: bigint = PAGE_SIZE
  readonly #context: IommufdContext
  #ioas: Ioas | undefined

  constructor(context: IommufdContext) {
    super()
    this.#context = context
    // The driver is a user until it unbinds.
    this.users = 1
  }

  attach(ptId: number): number {
    const ioas = this.#context.ioas(ptId)
    if (ioas === undefined) return -ERRNO.ENOENT
    if (ioas === this.#ioas) return ptId
    const added = ioas.iopt.addAccess(this)
    if (added < 0) return added
    ioas.users += 1
    this.detach()
    this.#ioas = ioas
    return ptId
  }

  detach(): void {
    if (this.#ioas === undefined) return
    this.#ioas.iopt.removeAccess(this)
    this.#ioas.users -= 1
    this.#ioas = undefined
  }

  unbind(): void {
    this.users -= 1
    this.#context.objects.remove(this)
  }

  override destroy(): void {
    this.detach()
    this.#context.file.put()
  }
}
