/** The pages at addresses of the calling process. */

import { ERRNO } from '../../../base/errno.ts'
import { PAGE_SIZE, U64_MAX } from '../../../base/units.ts'
import type { Mm } from '../core/mm.ts'
import type { Caller } from '../file/open-file.ts'
import type { IommufdContext } from './context.ts'
import type { Slice } from './io-pagetable.ts'
import { UserMemory } from './memory-source.ts'
import { type AccountMode, Pages } from './pages.ts'

/** A process that may lock memory without limit is not charged. */
export const accountModeOf = (context: IommufdContext, mm: Mm): AccountMode =>
  mm.memlockBytes === null ? 'none' : context.accountMode

/** Nothing is pinned yet. The caller of this has the one reference to the pages. */
export const userPages = (
  context: IommufdContext,
  { mm }: Caller,
  memory: { readonly address: bigint; readonly length: bigint },
  isWritable: boolean,
): Slice | number => {
  const { address, length } = memory
  if (length === 0n || length > U64_MAX - PAGE_SIZE) return -ERRNO.EINVAL
  if (address + length > U64_MAX) return -ERRNO.EOVERFLOW
  const startByte = address % PAGE_SIZE
  const count = (startByte + length + PAGE_SIZE - 1n) / PAGE_SIZE
  const owner = { mm, accountMode: accountModeOf(context, mm) }
  const pages = new Pages(new UserMemory(mm, address - startByte), count, owner, isWritable)
  return { pages, startByte, length }
}
