/**
 * A queue of page faults: records are read from its file, responses written to it. No simulated
 * device asks for pages, so the queue stays empty and no response has a fault to answer.
 */

import { iommu_hwpt_page_response, iommu_hwpt_pgfault } from '../../../abi/iommufd.ts'
import { ERRNO } from '../../../base/errno.ts'
import { OpenFile } from '../file/open-file.ts'
import { IommufdObject } from './objects.ts'

export class FaultQueue extends IommufdObject {
  override destroy(): void {}
}

/** The context's file, which the queue keeps open. */
export class FaultFile extends OpenFile {
  readonly #queue: FaultQueue
  readonly #context: OpenFile

  constructor(queue: FaultQueue, context: OpenFile) {
    super()
    this.#queue = queue
    this.#context = context.get()
    queue.users += 1
  }

  override pread(): number {
    return -ERRNO.ESPIPE
  }

  override pwrite(): number {
    return -ERRNO.ESPIPE
  }

  override read(into: Uint8Array): number {
    return into.length % iommu_hwpt_pgfault.size === 0 ? 0 : -ERRNO.ESPIPE
  }

  override write(from: Uint8Array): number {
    if (from.length % iommu_hwpt_page_response.size !== 0) return -ERRNO.ESPIPE
    // Whatever the code, there is no fault with that cookie.
    return from.length === 0 ? 0 : -ERRNO.EINVAL
  }

  protected override release(): void {
    this.#queue.users -= 1
    this.#context.put()
  }
}
