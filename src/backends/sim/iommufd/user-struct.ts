/** Structs of an IOMMU driver that a request points to: copy_struct_from_user() with a type. */

import type { FieldType, Struct, Values } from '../../../abi/layout.ts'
import { ERRNO } from '../../../base/errno.ts'
import { userBytes } from '../core/user-memory.ts'

/** The struct at an address where the client says that it has `length` bytes, or -errno. */
export const userStruct = <F extends Readonly<Record<string, FieldType>>>(
  codec: Struct<F>,
  address: bigint,
  length: number,
): Values<F> | number => {
  if (address === 0n || length < codec.size) return -ERRNO.EINVAL
  const bytes = userBytes(address, length)
  if (bytes === undefined) return -ERRNO.EFAULT
  return bytes.subarray(codec.size).some((byte) => byte !== 0) ? -ERRNO.E2BIG : codec.decode(bytes)
}
