/**
 * Pages that stay reachable when the addresses they were found at are unmapped: what a kernel does
 * when it pins memory for a device. mremap(2) with an old size of 0 maps the same shared pages a
 * second time; private pages cannot be shared that way and are reached through the segment.
 */

import { bind, call, viewOf } from './async-call.ts'
import { sys } from './libc.ts'
import { mayVanish } from './memory.ts'
import { type MemoryPiece, pieceAt, SurePiece, unsurePiece } from './pieces.ts'

const mremap = bind('mremap', 'intptr_t', ['intptr_t', 'size_t', 'size_t', 'int'])

const MREMAP_MAYMOVE = 1

export interface Pin {
  /** Part of the pages, or undefined where they are private and were unmapped. Use it at once:
   * touching it after `release` kills the process. */
  piece(offset: number, length: number): MemoryPiece | undefined
  release(): void
}

export const pinPages = (address: bigint, length: number): Pin => {
  const isUnsure = mayVanish(address, length) ?? true
  const again = call(mremap, Number(address), 0, length, MREMAP_MAYMOVE)
  if (again < 0) {
    return {
      piece: (offset, wanted) => pieceAt(address + BigInt(offset), wanted),
      release: () => {},
    }
  }
  return {
    piece: (offset, wanted) =>
      isUnsure
        ? unsurePiece(again + offset, wanted)
        : new SurePiece(new Uint8Array(viewOf(again + offset, wanted))),
    release: () => void sys.munmapSync(again, length),
  }
}
