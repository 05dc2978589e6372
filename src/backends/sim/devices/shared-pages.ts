/**
 * Memory of a device that its clients map too, as they map a BAR: a memfd, so that each mapping has
 * its own address and all of them are the same bytes.
 */

import { ERRNO } from '../../../base/errno.ts'
import type { MapRequest } from '../../../kernel/port.ts'
import { sys } from '../../../os/libc.ts'
import {
  allocShared,
  freeSegment,
  mapFd,
  type Segment,
  type SharedMemory,
} from '../../../os/memory.ts'

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

/** The same as a plain array until a client maps it, which happens on few machines. */
export class MappableBytes {
  #bytes: Uint8Array
  #shared: SharedPages | undefined

  constructor(length: number) {
    this.#bytes = new Uint8Array(length)
  }

  /** All of it: another array once it was mapped. */
  get bytes(): Uint8Array {
    return this.#bytes
  }

  /** Maps part of it, at a page; -EINVAL for what is not there. */
  map(request: MapRequest): Promise<Segment | number> | number {
    if (request.offset < 0n || request.offset + request.length > this.#bytes.length)
      return -ERRNO.EINVAL
    this.#shared ??= this.#share()
    return this.#shared.map(request)
  }

  #share(): SharedPages {
    const shared = new SharedPages(this.#bytes.length)
    const bytes = shared.view(0, this.#bytes.length)
    bytes.set(this.#bytes)
    this.#bytes = bytes
    return shared
  }
}
