/** Why memory cannot be mapped or pinned, judged by facts about its file, the host and the daemon. */

import type { LimitHit } from '../../base/error.ts'
import { hex } from '../../base/units.ts'
import type { CauseId } from './catalog.ts'
import { ruledOut, type Verdict } from './cause.ts'

/** A limit and how much of it is used, in bytes. */
export interface Used {
  /** What has the limit, as it reads in messages. */
  readonly name: string
  readonly limit: bigint
  readonly used: bigint
}

/** Undefined is what cannot be told. */
export interface MemoryFacts {
  readonly id: string
  /** The mapped or pinned bytes, from an offset in the file on. */
  readonly offset: bigint
  readonly length: bigint
  /** Bytes of the file now. */
  readonly fileSize: bigint | undefined
  /** Bytes that have pages already. */
  readonly allocated: bigint | undefined
  /** Bytes of its huge pages; undefined where it has none. */
  readonly hugePage: bigint | undefined
  /** Huge pages of that size. */
  readonly pool: { readonly total: bigint; readonly free: bigint } | undefined
  /** hugetlb cgroups of the daemon, the innermost first; none where no limit is set. */
  readonly cgroups: readonly Used[] | undefined
  /** The file system that has the file; undefined for a memfd, which has no limit. */
  readonly tmpfs: Used | undefined
}

/** What an mmap of the daemon can run into besides. */
export interface ProcessFacts {
  /** Memory areas of the daemon, and how many it may have. */
  readonly areas: { readonly max: bigint; readonly current: bigint } | undefined
  /** Bytes of addresses: RLIMIT_AS, or what a process has in all. */
  readonly addresses: Used | undefined
}

const MIB = 1n << 20n
const GIB = 1n << 30n

/** `2 MiB`: how a size of huge pages reads. */
export const sizeText = (bytes: bigint): string => {
  if (bytes % GIB === 0n) return `${bytes / GIB} GiB`
  return bytes % MIB === 0n ? `${bytes / MIB} MiB` : `${bytes / 1024n} KiB`
}

const quotaOf = ({ name, limit, used }: Used, needed: bigint): LimitHit => ({
  limit: name,
  max: limit,
  current: used,
  needed,
})

const exceeded = (all: readonly Used[], needed: bigint): Used | undefined =>
  all.find(({ limit, used }) => used + needed > limit)

/** The causes that memory itself can have for EFAULT of a pin and ENOMEM of an mmap. */
export function judgeMemory(facts: MemoryFacts): Verdict<CauseId>[] {
  return [...judgeFile(facts), ...judgeHugePages(facts), ...judgeTmpfs(facts)]
}

function judgeFile({ id, offset, length, fileSize }: MemoryFacts): Verdict<CauseId>[] {
  if (fileSize === undefined) return []
  if (offset + length <= fileSize) return ruledOut('file-cut')
  return [
    {
      cause: 'file-cut',
      isSo: true,
      found: `the file behind memory "${id}" has ${hex(fileSize)} bytes by now, and the range ends at ${hex(offset + length)}`,
      resource: { type: 'memory', name: id },
    },
  ]
}

function judgeHugePages(facts: MemoryFacts): Verdict<CauseId>[] {
  const { hugePage, pool, cgroups } = facts
  if (hugePage === undefined) return ruledOut('hugetlb-pool-empty', 'hugetlb-cgroup')
  const pages = missingPages(facts, hugePage)
  if (pages === 0n) return ruledOut('hugetlb-pool-empty', 'hugetlb-cgroup')
  const verdicts: Verdict<CauseId>[] = []
  if (pool !== undefined && pool.free < pages) {
    const { total, free } = pool
    verdicts.push({
      cause: 'hugetlb-pool-empty',
      isSo: true,
      found: `${free} of ${total} huge pages of ${sizeText(hugePage)} are free, and up to ${pages} are needed`,
      fix: `raise /sys/kernel/mm/hugepages/hugepages-${hugePage / 1024n}kB/nr_hugepages, or free huge pages`,
      quota: {
        limit: `huge pages of ${sizeText(hugePage)}`,
        max: total,
        current: total - free,
        needed: pages,
      },
    })
  } else if (pool !== undefined) verdicts.push(...ruledOut<CauseId>('hugetlb-pool-empty'))
  if (cgroups === undefined) return verdicts
  const full = exceeded(cgroups, pages * hugePage)
  if (full === undefined) return [...verdicts, ...ruledOut<CauseId>('hugetlb-cgroup')]
  const cgroup: Verdict<CauseId> = {
    cause: 'hugetlb-cgroup',
    isSo: true,
    found: `${full.name} is ${hex(full.limit)} bytes, ${hex(full.used)} are used, and up to ${hex(pages * hugePage)} are needed`,
    fix: 'raise it (hugepages-SIZE of a pod), or free huge pages',
    quota: quotaOf(full, pages * hugePage),
  }
  return [...verdicts, cgroup]
}

/** Pages of the range that have to be taken from the pool, at most. */
function missingPages({ length, fileSize, allocated }: MemoryFacts, hugePage: bigint): bigint {
  const pages = (length + hugePage - 1n) / hugePage
  if (fileSize === undefined || allocated === undefined) return pages
  const missing = (fileSize - allocated + hugePage - 1n) / hugePage
  return missing < pages ? missing : pages
}

/** Memory of huge pages is in no tmpfs, and a memfd in one without a limit. */
function judgeTmpfs({ hugePage, tmpfs, fileSize }: MemoryFacts): Verdict<CauseId>[] {
  if (hugePage !== undefined) return ruledOut('tmpfs-full')
  if (tmpfs === undefined) return fileSize === undefined ? [] : ruledOut('tmpfs-full')
  if (tmpfs.used < tmpfs.limit) return ruledOut('tmpfs-full')
  return [
    {
      cause: 'tmpfs-full',
      isSo: true,
      found: `${tmpfs.name} is full: ${hex(tmpfs.limit)} bytes, all of them used`,
      quota: quotaOf(tmpfs, 1n),
    },
  ]
}

/** The causes that the daemon itself has for ENOMEM of an mmap. */
export function judgeProcess(
  { areas, addresses }: ProcessFacts,
  needed: bigint,
): Verdict<CauseId>[] {
  const verdicts: Verdict<CauseId>[] = []
  if (areas !== undefined && areas.current >= areas.max) {
    verdicts.push({
      cause: 'map-count',
      isSo: true,
      found: `the daemon has ${areas.current} memory areas, and vm.max_map_count is ${areas.max}`,
      quota: { limit: 'vm.max_map_count', max: areas.max, current: areas.current, needed: 1n },
    })
  } else if (areas !== undefined) verdicts.push(...ruledOut<CauseId>('map-count'))
  if (addresses === undefined) return verdicts
  const full = exceeded([addresses], needed)
  if (full === undefined) return [...verdicts, ...ruledOut<CauseId>('address-space-full')]
  const spent: Verdict<CauseId> = {
    cause: 'address-space-full',
    isSo: true,
    found: `${full.name} is ${hex(full.limit)} bytes, ${hex(full.used)} are used, and ${hex(needed)} are needed`,
    quota: quotaOf(full, needed),
  }
  return [...verdicts, spent]
}

/** Whether RLIMIT_MEMLOCK is the cause of an ENOMEM. */
export function judgeMemlock(
  memlock: { readonly limit: bigint; readonly locked: bigint } | 'none' | undefined,
  needed: bigint,
): Verdict<CauseId>[] {
  if (memlock === undefined) return []
  if (memlock === 'none') return ruledOut('memlock-exceeded')
  const { limit: max, locked: current } = memlock
  if (current + needed <= max) return ruledOut('memlock-exceeded')
  return [
    {
      cause: 'memlock-exceeded',
      isSo: true,
      found: `RLIMIT_MEMLOCK of the daemon is ${hex(max)} bytes, ${hex(current)} are pinned, and ${hex(needed)} are needed`,
      quota: { limit: 'RLIMIT_MEMLOCK of the daemon', max, current, needed },
    },
  ]
}
