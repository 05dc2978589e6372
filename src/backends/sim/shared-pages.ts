/**
 * Memory of a device that its clients map as well, as they map a BAR: a memfd, so that each mapping
 * has an address of its own and all of them are the same bytes.
 */

import type { MapRequest } from '../../kernel/port.ts'
import { sys } from '../../os/libc.ts'
import {
  allocShared,
  freeSegment,
  mapFd,
  type Segment,
  type SharedMemory,
} from '../../os/memory.ts'

/** A machine is forgotten, not closed; its memory goes with it. */
const collected = new FinalizationRegistry<SharedMemory>(({ fd, segment }) => {
  freeSegment(segment)
  sys.closeSync(fd)
})

export class SharedPages {
  readonly #memory: SharedMemory

  constructor(length: number) {
    this.#memory = allocShared('vfiod-bar', length)
    collected.register(this, this.#memory)
  }

  view(offset: number, length: number): Uint8Array {
    return this.#memory.segment.view(offset, length)
  }

  /** Another mapping of part of it, at a page. */
  map(request: MapRequest): Promise<Segment | number> {
    return mapFd(this.#memory.fd, request)
  }
}
