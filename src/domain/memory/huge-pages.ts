/** The refusal of memory from huge pages: how many there are, and where to have more of them. */

import { VfiodError } from '../../base/error.ts'
import { hugePages } from '../../os/limits.ts'
import type { HugePage } from '../state/records.ts'

const PAGES = {
  '2M': { bytes: 2n << 20n, name: '2 MiB', setting: '/proc/sys/vm/nr_hugepages' },
  '1G': {
    bytes: 1n << 30n,
    name: '1 GiB',
    setting: '/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages',
  },
} as const

/** mmap answered ENOMEM for so many bytes of huge pages. */
export const tooFewHugePages = (size: HugePage, length: bigint): VfiodError => {
  const { bytes, name, setting } = PAGES[size]
  const { free, total } = hugePages(bytes)
  const needed = length / bytes
  return new VfiodError(
    'LIMIT_REACHED',
    `Cannot allocate ${length} bytes of huge pages: ${free} of ${total} free pages of ${name}, ${needed} needed; raise ${setting}`,
    {
      errno: 'ENOMEM',
      op: 'mmap',
      quota: { limit: `huge pages of ${name}`, max: total, current: total - free, needed },
    },
  )
}
