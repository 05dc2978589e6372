/**
 * Pages that stay reachable when the addresses they were found at are unmapped: what a kernel does
 * when it pins memory for a device. mremap(2) with an old size of 0 maps the same shared pages a
 * second time; private pages cannot be shared that way and are reached through the segment.
 */

import { bind, call, viewOf } from './async-call.ts'
import { sys } from './libc.ts'
import { bytesAt } from './memory.ts'

const mremap = bind('mremap', 'intptr_t', ['intptr_t', 'size_t', 'size_t', 'int'])

const MREMAP_MAYMOVE = 1

export interface Pin {
  /** Bytes of the pages, or undefined where they are private and were unmapped. Use them at once:
   * touching them after `release` kills the process. */
  view(offset: number, length: number): Uint8Array | undefined
  release(): void
}

export const pinPages = (address: bigint, length: number): Pin => {
  const again = call(mremap, Number(address), 0, length, MREMAP_MAYMOVE)
  if (again < 0) {
    return {
      view: (offset, wanted) => bytesAt(address + BigInt(offset), wanted),
      release: () => {},
    }
  }
  return {
    view: (offset, wanted) => new Uint8Array(viewOf(again + offset, wanted)),
    release: () => void sys.munmapSync(again, length),
  }
}
