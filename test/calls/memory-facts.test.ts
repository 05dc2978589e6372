// Facts about memory, from a file that is really cut, and from trees of files that hosts have.

import { afterEach, describe, expect, test } from 'vitest'
import { ERRNO } from '../../src/base/errno.ts'
import { hugetlbCgroups, memoryFacts, processFacts } from '../../src/kernel/memory-facts.ts'
import { sys } from '../../src/os/libc.ts'
import { memfdCreate } from '../../src/os/memory.ts'

const MIB = 1n << 20n
const fds: number[] = []

afterEach(() => {
  for (const fd of fds.splice(0)) sys.closeSync(fd)
})

const memory = (length: bigint): number => {
  const fd = memfdCreate('facts', length)
  fds.push(fd)
  return fd
}

const reading = (files: Readonly<Record<string, string>>) => (path: string) =>
  files[path] ?? -ERRNO.ENOENT

describe('facts about a memory', () => {
  test('are those of its file at the time, which the client may have cut', () => {
    const fd = memory(2n * MIB)
    const range = { id: 'ram', fd, offset: 0n, length: 2n * MIB, isMapped: true }
    expect(memoryFacts(range).fileSize).toBe(2n * MIB)

    sys.ftruncate(fd, 4096n)

    expect(memoryFacts(range)).toMatchObject({
      fileSize: 4096n,
      hugePage: undefined,
      pool: undefined,
      tmpfs: undefined,
    })
  })

  test('are unknown where the fd is closed', () => {
    const range = { id: 'ram', fd: -1, offset: 0n, length: MIB, isMapped: true }

    expect(memoryFacts(range)).toMatchObject({ fileSize: undefined, hugePage: undefined })
  })
})

describe('hugetlb cgroups', () => {
  test('of version 2 are that of the process and those above it, as far as they have limits', () => {
    const own = '/sys/fs/cgroup/kubepods/pod1/c1'
    const files = {
      '/proc/self/cgroup': '0::/kubepods/pod1/c1\n',
      [`${own}/hugetlb.2MB.max`]: 'max\n',
      [`${own}/hugetlb.2MB.current`]: '0\n',
      '/sys/fs/cgroup/kubepods/pod1/hugetlb.2MB.max': '4194304\n',
      '/sys/fs/cgroup/kubepods/pod1/hugetlb.2MB.current': '2097152\n',
      '/sys/fs/cgroup/kubepods/pod1/hugetlb.2MB.rsvd.max': '8388608\n',
      '/sys/fs/cgroup/kubepods/pod1/hugetlb.2MB.rsvd.current': '0\n',
    }

    expect(hugetlbCgroups(2n * MIB, reading(files))).toEqual([
      {
        name: 'hugetlb.2MB.max of cgroup /sys/fs/cgroup/kubepods/pod1',
        limit: 4n * MIB,
        used: 2n * MIB,
      },
      {
        name: 'hugetlb.2MB.rsvd.max of cgroup /sys/fs/cgroup/kubepods/pod1',
        limit: 8n * MIB,
        used: 0n,
      },
    ])
  })

  test('of version 1 are those of its hugetlb hierarchy', () => {
    const folder = '/sys/fs/cgroup/hugetlb/docker/c1'
    const files = {
      '/proc/self/cgroup': '11:memory:/docker/c1\n9:hugetlb:/docker/c1\n0::/\n',
      [`${folder}/hugetlb.1GB.limit_in_bytes`]: '0\n',
      [`${folder}/hugetlb.1GB.usage_in_bytes`]: '0\n',
    }

    expect(hugetlbCgroups(1n << 30n, reading(files))).toEqual([
      { name: `hugetlb.1GB.limit_in_bytes of cgroup ${folder}`, limit: 0n, used: 0n },
    ])
  })

  test('are none where no limit is set, and unknown where it cannot be told', () => {
    expect(hugetlbCgroups(2n * MIB, reading({ '/proc/self/cgroup': '0::/\n' }))).toEqual([])
    expect(hugetlbCgroups(2n * MIB, reading({}))).toBeUndefined()
  })
})

describe('facts about the daemon', () => {
  test('are its memory areas and its addresses, by RLIMIT_AS where there is one', () => {
    const files = {
      '/proc/sys/vm/max_map_count': '65530\n',
      '/proc/self/maps': 'a\nb\nc\n',
      '/proc/self/status': 'VmSize:\t    2048 kB\n',
      '/proc/self/limits':
        'Max address space         4194304              4194304              bytes\n',
    }

    expect(processFacts(reading(files))).toEqual({
      areas: { max: 65530n, current: 3n },
      addresses: { name: 'RLIMIT_AS of the daemon', limit: 4n * MIB, used: 2n * MIB },
    })
  })

  test('of this process can be told', () => {
    const { areas, addresses } = processFacts()

    expect(areas?.current).toBeGreaterThan(10n)
    expect(addresses?.used).toBeGreaterThan(MIB)
  })
})
