/** The pages of a file, which need no address in any process. */

import { ERRNO } from '../../../base/errno.ts'
import { PAGE_SIZE, U64_MAX } from '../../../base/units.ts'
import { sys } from '../../../os/libc.ts'
import { fileIdentity, mapFd } from '../../../os/memory.ts'
import type { Caller } from '../file/open-file.ts'
import type { IommufdContext } from './context.ts'
import type { Slice } from './io-pagetable.ts'
import { FileMemory } from './memory-source.ts'
import { Pages } from './pages.ts'
import { accountModeOf } from './user-pages.ts'

const roundUp = (value: bigint, to: bigint): bigint => ((value + to - 1n) / to) * to

/** The caller of this has the one reference to the pages, and they to a duplicate of the fd. */
export const filePages = async (
  context: IommufdContext,
  { mm }: Caller,
  part: { readonly fd: number; readonly start: bigint; readonly length: bigint },
  isWritable: boolean,
): Promise<Slice | number> => {
  const { start, length } = part
  const fd = part.fd < 0 ? -ERRNO.EBADF : sys.dup(part.fd)
  if (fd < 0) return -ERRNO.EBADF
  const refused = checkLength(start, length)
  if (refused < 0) {
    sys.closeSync(fd)
    return refused
  }
  const startByte = start % PAGE_SIZE
  const base = start - startByte
  const count = (startByte + length + PAGE_SIZE - 1n) / PAGE_SIZE
  const file = fileIdentity(fd)
  const unit = typeof file === 'number' ? PAGE_SIZE : file.pageSize
  const offset = base - (base % unit)
  // A file that is too short, or no memory at all, is refused once it would be pinned.
  const segment = await mapFd(fd, {
    offset,
    length: roundUp(base + count * PAGE_SIZE - offset, unit),
    access: isWritable ? 'read-write' : 'read',
  })
  const mapped = typeof segment === 'number' ? undefined : { segment, skip: base - offset }
  const owner = { mm, accountMode: accountModeOf(context, mm) }
  const pages = new Pages(new FileMemory(fd, base, mapped), count, owner, isWritable)
  return { pages, startByte, length }
}

const checkLength = (start: bigint, length: bigint): number => {
  if (length === 0n || length > U64_MAX - PAGE_SIZE) return -ERRNO.EINVAL
  return start + length > U64_MAX ? -ERRNO.EOVERFLOW : 0
}
