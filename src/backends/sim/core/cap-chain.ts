/** vfio.h: struct vfio_info_cap_header. Capabilities one behind the other, each 8-aligned. */

import { vfio_info_cap_header } from '../../../abi/caps.ts'

const aligned = (length: number): number => Math.ceil(length / 8) * 8

/** The chain as it lies behind a struct of `start` bytes: `next` counts from the struct. */
export const capChain = (start: number, caps: readonly Uint8Array[]): Uint8Array => {
  const chain = new Uint8Array(caps.reduce((length, cap) => length + aligned(cap.length), 0))
  let at = 0
  for (const [index, cap] of caps.entries()) {
    chain.set(cap, at)
    const end = at + aligned(cap.length)
    const next = index === caps.length - 1 ? 0 : start + end
    vfio_info_cap_header.write(chain, { next }, at)
    at = end
  }
  return chain
}
