/**
 * What an fd refers to, and whether others can change it under us.
 *
 * Nothing here asks the file system behind the fd: a client may hand over an fd of a file system
 * that it serves itself (FUSE), where an ordinary fstat sleeps for as long as the client likes.
 */

import { statfsSync } from 'node:fs'
import { PAGE_SIZE } from '../base/units.ts'
import { F_ADD_SEALS, F_GET_SEALS, F_GETFL, O_ACCMODE, O_RDWR, sys } from './libc.ts'

export type FileKind = 'memfd-or-shm' | 'hugetlbfs' | 'file' | 'other'

export interface FileIdentity {
  readonly dev: bigint
  readonly inode: bigint
  /** As of the call: its owner can change it unless F_SEAL_SHRINK and F_SEAL_GROW are set. */
  readonly size: bigint
  /** Bytes of it that have pages. */
  readonly allocated: bigint
  readonly kind: FileKind
  /** What mappings of it are made of: the huge page size for hugetlbfs. */
  readonly pageSize: bigint
  /** F_SEAL_* bits; 0 for files that know no seals. */
  readonly seals: number
  /** Whether a shared mapping of this fd can be writable: open for it, and not sealed against it. */
  readonly writable: boolean
}

/** fcntl(2) F_ADD_SEALS. Without SHRINK, touching memory that the client cut off is a SIGBUS. */
export const SEALS = { SEAL: 1, SHRINK: 2, GROW: 4, WRITE: 8, FUTURE_WRITE: 16 } as const

const AT_EMPTY_PATH = 0x1000
/** Answer from what the kernel has cached; do not ask the file system. */
const AT_STATX_DONT_SYNC = 0x4000
const STATX_BASIC_STATS = 0x7ff
const STATX_SIZE = 256
/** What stx_blocks counts in. */
const BLOCK = 512n
const S_IFMT = 0o170000
const S_IFREG = 0o100000
const HUGETLBFS_MAGIC = 0x958458f6n

interface Stat {
  readonly dev: bigint
  readonly inode: bigint
  readonly size: bigint
  readonly blocks: bigint
  readonly mode: number
}

/** stat.h: struct statx, which has one layout on every architecture. */
const stat = (fd: number): Stat | number => {
  const bytes = new Uint8Array(STATX_SIZE)
  const answer = sys.statx(fd, AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BASIC_STATS, bytes)
  if (answer < 0) return answer
  const data = new DataView(bytes.buffer)
  return {
    mode: data.getUint16(28, true),
    inode: data.getBigUint64(32, true),
    size: data.getBigUint64(40, true),
    blocks: data.getBigUint64(48, true),
    dev: (BigInt(data.getUint32(136, true)) << 32n) | BigInt(data.getUint32(140, true)),
  }
}

/** Only shmem and hugetlbfs files know seals, so it is safe to ask their file system its name. */
const kindOf = (fd: number, mode: number, knowsSeals: boolean): [FileKind, pageSize: bigint] => {
  if ((mode & S_IFMT) !== S_IFREG) return ['other', PAGE_SIZE]
  if (!knowsSeals) return ['file', PAGE_SIZE]
  const { type, bsize } = statfsSync(`/proc/self/fd/${fd}`, { bigint: true })
  const isHuge = BigInt.asUintN(32, type) === HUGETLBFS_MAGIC
  return isHuge ? ['hugetlbfs', bsize] : ['memfd-or-shm', PAGE_SIZE]
}

export const fileIdentity = (fd: number): FileIdentity | number => {
  const found = stat(fd)
  if (typeof found === 'number') return found
  const flags = sys.fcntl(fd, F_GETFL)
  if (flags < 0) return flags
  const sealsOrError = sys.fcntl(fd, F_GET_SEALS)
  const seals = Math.max(sealsOrError, 0)
  const [kind, pageSize] = kindOf(fd, found.mode, sealsOrError >= 0)
  const isOpenForBoth = (flags & O_ACCMODE) === O_RDWR
  return {
    dev: found.dev,
    inode: found.inode,
    size: found.size,
    allocated: found.blocks * BLOCK,
    kind,
    pageSize,
    seals,
    writable: isOpenForBoth && (seals & (SEALS.WRITE | SEALS.FUTURE_WRITE)) === 0,
  }
}

/** Adds seals; -EPERM where the file forbids it (made without MFD_ALLOW_SEALING) or is read-only. */
export const addSeals = (fd: number, seals: number): number => sys.fcntl(fd, F_ADD_SEALS, seals)

/** Whether two fds refer to the same file; -errno for an fd that is not one. */
export const sameFile = (a: number, b: number): boolean | number => {
  const [first, second] = [stat(a), stat(b)]
  if (typeof first === 'number') return first
  if (typeof second === 'number') return second
  return first.dev === second.dev && first.inode === second.inode
}

/** The size of the file behind an fd, or -errno. */
export const fileSize = (fd: number): bigint | number => {
  const found = stat(fd)
  return typeof found === 'number' ? found : found.size
}

/** The inode number of the file behind an fd, or -errno. */
export const inodeOf = (fd: number): bigint | number => {
  const found = stat(fd)
  return typeof found === 'number' ? found : found.inode
}
