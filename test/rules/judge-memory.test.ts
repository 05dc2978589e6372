import { describe, expect, test } from 'vitest'
import {
  judgeMemlock,
  judgeMemory,
  judgeProcess,
  type MemoryFacts,
} from '../../src/rules/causes/judge-memory.ts'

const MIB = 1n << 20n

const facts = (changes: Partial<MemoryFacts> = {}): MemoryFacts => ({
  id: 'ram',
  offset: 0n,
  length: 8n * MIB,
  fileSize: 8n * MIB,
  allocated: 0n,
  hugePage: undefined,
  pool: undefined,
  cgroups: undefined,
  tmpfs: undefined,
  ...changes,
})

const huge = (changes: Partial<MemoryFacts> = {}) =>
  facts({ hugePage: 2n * MIB, pool: { total: 10n, free: 10n }, cgroups: [], ...changes })

const proofs = (of: MemoryFacts) => judgeMemory(of).filter(({ isSo }) => isSo)
const out = (of: MemoryFacts) =>
  judgeMemory(of)
    .filter(({ isSo }) => !isSo)
    .map(({ cause }) => cause)

describe('memory of ordinary pages', () => {
  test('whose file is long enough rules out the file, huge pages and the file system', () => {
    expect(proofs(facts())).toEqual([])
    expect(out(facts())).toEqual(['file-cut', 'hugetlb-pool-empty', 'hugetlb-cgroup', 'tmpfs-full'])
  })

  test('whose file was cut says how long it is and where the range ends', () => {
    expect(proofs(facts({ offset: MIB, fileSize: 4096n }))).toEqual([
      expect.objectContaining({
        cause: 'file-cut',
        found:
          'the file behind memory "ram" has 0x1000 bytes by now, and the range ends at 0x900000',
      }),
    ])
  })

  test('on a tmpfs that is full says so', () => {
    const tmpfs = { name: 'the tmpfs of the file', limit: 4n * MIB, used: 4n * MIB }

    expect(proofs(facts({ tmpfs }))).toMatchObject([
      { cause: 'tmpfs-full', quota: { max: 4n * MIB, current: 4n * MIB, needed: 1n } },
    ])
    expect(proofs(facts({ tmpfs: { ...tmpfs, used: 0n } }))).toEqual([])
  })

  test('of which nothing can be told rules out nothing but huge pages', () => {
    expect(out(facts({ fileSize: undefined }))).toEqual(['hugetlb-pool-empty', 'hugetlb-cgroup'])
  })
})

describe('memory of huge pages', () => {
  test('that are there rules out the pool and the cgroup', () => {
    expect(proofs(huge())).toEqual([])
    expect(out(huge())).toContain('hugetlb-pool-empty')
    expect(out(huge())).toContain('hugetlb-cgroup')
  })

  test('that are used up says which pool, how many are free, and how many are needed', () => {
    expect(proofs(huge({ pool: { total: 10n, free: 1n } }))).toEqual([
      {
        cause: 'hugetlb-pool-empty',
        isSo: true,
        found: '1 of 10 huge pages of 2 MiB are free, and up to 4 are needed',
        fix: 'raise /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages, or free huge pages',
        quota: { limit: 'huge pages of 2 MiB', max: 10n, current: 9n, needed: 4n },
      },
    ])
  })

  test('that the file has already needs none of the pool', () => {
    const of = huge({ pool: { total: 4n, free: 0n }, allocated: 8n * MIB })

    expect(proofs(of)).toEqual([])
    expect(out(of)).toContain('hugetlb-pool-empty')
  })

  test('that the cgroup does not allow says which limit, how much is used and needed', () => {
    const cgroups = [
      { name: 'hugetlb.2MB.max of cgroup /pod', limit: 6n * MIB, used: 0n },
      { name: 'hugetlb.2MB.max of cgroup /', limit: 100n * MIB, used: 0n },
    ]

    expect(proofs(huge({ cgroups }))).toMatchObject([
      {
        cause: 'hugetlb-cgroup',
        found:
          'hugetlb.2MB.max of cgroup /pod is 0x600000 bytes, 0x0 are used, and up to 0x800000 are needed',
        quota: { max: 6n * MIB, current: 0n, needed: 8n * MIB },
      },
    ])
  })

  test('is short of both, and says both', () => {
    const cgroups = [{ name: 'the limit', limit: 0n, used: 0n }]
    const of = huge({ pool: { total: 0n, free: 0n }, cgroups })

    expect(proofs(of).map(({ cause }) => cause)).toEqual(['hugetlb-pool-empty', 'hugetlb-cgroup'])
  })
})

describe('an mmap of the daemon', () => {
  const free = {
    areas: { max: 65530n, current: 1000n },
    addresses: { name: 'the address space of the daemon', limit: 1n << 47n, used: 1n << 32n },
  }

  test('with room rules out the daemon itself', () => {
    expect(judgeProcess(free, MIB)).toEqual([
      { cause: 'map-count', isSo: false },
      { cause: 'address-space-full', isSo: false },
    ])
  })

  test('that has as many areas as it may says so', () => {
    const verdicts = judgeProcess({ ...free, areas: { max: 65530n, current: 65530n } }, MIB)

    expect(verdicts).toContainEqual(
      expect.objectContaining({
        cause: 'map-count',
        found: 'the daemon has 65530 memory areas, and vm.max_map_count is 65530',
      }),
    )
  })

  test('that does not fit into its addresses says how much is used and needed', () => {
    expect(judgeProcess(free, 1n << 47n)).toContainEqual(
      expect.objectContaining({
        cause: 'address-space-full',
        found:
          'the address space of the daemon is 0x800000000000 bytes, 0x100000000 are used, and 0x800000000000 are needed',
      }),
    )
  })

  test('of which nothing can be told rules out nothing', () => {
    expect(judgeProcess({ areas: undefined, addresses: undefined }, MIB)).toEqual([])
  })
})

describe('RLIMIT_MEMLOCK', () => {
  test('is the cause where the pages do not fit, with limit, current and needed', () => {
    expect(judgeMemlock({ limit: 8192n, locked: 4096n }, 8192n)).toMatchObject([
      { cause: 'memlock-exceeded', quota: { max: 8192n, current: 4096n, needed: 8192n } },
    ])
  })

  test('is not the cause where they fit, or nothing limits the daemon', () => {
    const not = [{ cause: 'memlock-exceeded', isSo: false }]

    expect(judgeMemlock({ limit: 8192n, locked: 0n }, 8192n)).toEqual(not)
    expect(judgeMemlock('none', 8192n)).toEqual(not)
    expect(judgeMemlock(undefined, 8192n)).toEqual([])
  })
})
