/**
 * vfio.h: struct vfio_info_cap_header, the capability chains behind GET_INFO-like requests. An
 * offset counts from the start of the info struct; 0 ends the chain. Look a capability up by its
 * id: the order is not part of the ABI, and every header version so far is 1.
 *
 * A field of an embedded struct carries its C member path as its name (`header.id`).
 */

import { struct } from './layout.ts'

export const vfio_info_cap_header = struct('vfio_info_cap_header', {
  id: 'u16',
  version: 'u16',
  next: 'u32',
})

/** The fields of a `struct vfio_info_cap_header header` at the start of a capability. */
export const capHeader = {
  'header.id': 'u16',
  'header.version': 'u16',
  'header.next': 'u32',
} as const

export interface Capability {
  readonly id: number
  readonly version: number
  /** Where the capability starts, header included: the `base` for its struct's codec. */
  readonly offset: number
}

/**
 * The capabilities in `bytes`, an info struct with everything behind it. Pass 0 for `capOffset`
 * unless the struct's CAPS flag is set: without the flag the field is whatever the caller left
 * there. Throws a RangeError when the chain leaves `bytes` or comes back to an earlier capability.
 */
export function* capabilities(bytes: Uint8Array, capOffset: number): Generator<Capability> {
  const seen = new Set<number>()
  for (let offset = capOffset; offset !== 0; ) {
    if (offset + vfio_info_cap_header.size > bytes.length) {
      throw new RangeError(
        `Cannot read the capability at ${offset}: the buffer has ${bytes.length} bytes`,
      )
    }
    if (seen.has(offset)) {
      throw new RangeError(`Cannot walk the capabilities: the chain returns to ${offset}`)
    }
    seen.add(offset)
    const { id, version, next } = vfio_info_cap_header.decode(bytes, offset)
    yield { id, version, offset }
    offset = next
  }
}
