/**
 * Facts about memory of this process: it is real whichever kernel maps it, so they are read from the
 * host and not through the port.
 */

import { statfsSync } from 'node:fs'
import { fileIdentity } from '../os/memory.ts'
import { readProc } from '../os/process.ts'
import type { MemoryFacts, ProcessFacts, Used } from '../rules/causes/judge-memory.ts'
import { sizeText } from '../rules/causes/judge-memory.ts'

/** The text of a file, or -errno. */
export type ReadText = (path: string) => string | number

/** Which bytes of a memory are mapped or pinned. */
export interface MemoryRange {
  readonly id: string
  readonly fd: number
  readonly offset: bigint
  readonly length: bigint
  /** Whether it is mapped already, so that huge pages were promised to it. */
  readonly isMapped: boolean
}

const CGROUPS = '/sys/fs/cgroup'

const text = (read: ReadText, path: string): string | undefined => {
  const found = read(path)
  return typeof found === 'number' ? undefined : found
}

const count = (read: ReadText, path: string): bigint | undefined => {
  const digits = /^\d+$/.exec(text(read, path)?.trim() ?? '')
  return digits === null ? undefined : BigInt(digits[0])
}

const field = (found: string | undefined, pattern: RegExp): bigint | undefined => {
  const digits = pattern.exec(found ?? '')?.[1]
  return digits === undefined ? undefined : BigInt(digits)
}

/** About a memory: its file, and what its pages come from. */
export function memoryFacts(
  { id, fd, offset, length, isMapped }: MemoryRange,
  read: ReadText = readProc,
): MemoryFacts {
  const file = fileIdentity(fd)
  if (typeof file === 'number') {
    const unknown = {
      fileSize: undefined,
      allocated: undefined,
      hugePage: undefined,
      pool: undefined,
    }
    return { id, offset, length, ...unknown, cgroups: undefined, tmpfs: undefined }
  }
  const hugePage = file.kind === 'hugetlbfs' ? file.pageSize : undefined
  return {
    id,
    offset,
    length,
    fileSize: file.size,
    allocated: file.allocated,
    hugePage,
    pool: hugePage === undefined ? undefined : poolOf(hugePage, isMapped, read),
    cgroups: hugePage === undefined ? undefined : hugetlbCgroups(hugePage, read),
    tmpfs: file.kind === 'memfd-or-shm' ? tmpfsOf(fd) : undefined,
  }
}

/** Those that are not taken, and for a new mapping not promised to another one. */
const poolOf = (bytes: bigint, isMapped: boolean, read: ReadText): MemoryFacts['pool'] => {
  const folder = `/sys/kernel/mm/hugepages/hugepages-${bytes >> 10n}kB`
  const total = count(read, `${folder}/nr_hugepages`)
  const free = count(read, `${folder}/free_hugepages`)
  const promised = isMapped ? 0n : (count(read, `${folder}/resv_hugepages`) ?? 0n)
  return total === undefined || free === undefined ? undefined : { total, free: free - promised }
}

/** `2MB`: how the files of the hugetlb controller say a size. */
const controllerSize = (bytes: bigint): string =>
  sizeText(bytes).replace(' ', '').replace('iB', 'B')

/** The hugetlb cgroup of this process and those above it, as far as they have a limit. */
export function hugetlbCgroups(bytes: bigint, read: ReadText = readProc): Used[] | undefined {
  const own = text(read, '/proc/self/cgroup')
  if (own === undefined) return undefined
  const size = controllerSize(bytes)
  const [, v1] = /^\d+:(?:[^:]*,)?hugetlb(?:,[^:]*)?:(.*)$/m.exec(own) ?? []
  const [, v2] = /^0::(.*)$/m.exec(own) ?? []
  const used = (path: string, [max, current]: readonly [string, string]): Used[] => {
    const limit = count(read, `${path}/hugetlb.${size}.${max}`)
    const now = count(read, `${path}/hugetlb.${size}.${current}`)
    if (limit === undefined || now === undefined) return []
    return [{ name: `hugetlb.${size}.${max} of cgroup ${path}`, limit, used: now }]
  }
  if (v1 !== undefined) {
    const files = ['limit_in_bytes', 'usage_in_bytes'] as const
    return upwards(`${CGROUPS}/hugetlb`, v1).flatMap((path) => used(path, files))
  }
  if (v2 === undefined) return undefined
  return upwards(CGROUPS, v2).flatMap((path) => [
    ...used(path, ['max', 'current']),
    ...used(path, ['rsvd.max', 'rsvd.current']),
  ])
}

/** A folder below a root and each one above it, down to the root. */
const upwards = (root: string, path: string): string[] => {
  const parts = path.split('/').filter((part) => part !== '')
  return parts.map((_, n) => `${root}/${parts.slice(0, parts.length - n).join('/')}`).concat(root)
}

/** A memfd is in a tmpfs without a limit: no blocks. */
const tmpfsOf = (fd: number): Used | undefined => {
  const { blocks, bfree, bsize } = statfsSync(`/proc/self/fd/${fd}`, { bigint: true })
  if (blocks === 0n) return undefined
  return { name: 'the tmpfs of the file', limit: blocks * bsize, used: (blocks - bfree) * bsize }
}

/** Addresses of a process: 47 bits, of which the kernel keeps a page. */
const ADDRESSES = 1n << 47n

/** About the daemon, for its own mmap. */
export function processFacts(read: ReadText = readProc): ProcessFacts {
  const max = count(read, '/proc/sys/vm/max_map_count')
  const maps = text(read, '/proc/self/maps')
  const size = field(text(read, '/proc/self/status'), /^VmSize:\s*(\d+) kB/m)
  const limit = field(text(read, '/proc/self/limits'), /^Max address space\s+(\d+)/m)
  const current = maps === undefined ? undefined : BigInt(maps.split('\n').length - 1)
  return {
    areas: max === undefined || current === undefined ? undefined : { max, current },
    addresses:
      size === undefined
        ? undefined
        : {
            name:
              limit === undefined ? 'the address space of the daemon' : 'RLIMIT_AS of the daemon',
            limit: limit ?? ADDRESSES,
            used: size * 1024n,
          },
  }
}
