import { readFileSync } from 'node:fs'
import { constants, PerformanceObserver } from 'node:perf_hooks'
import { describe, expect, test } from 'vitest'
import { ERRNO } from '../../src/base/errno.ts'
import { sys } from '../../src/os/libc.ts'
import {
  hasCapability,
  lockedBytes,
  type ResourceLimit,
  RLIM_INFINITY,
  rlimit,
  setRlimit,
  tuneCollector,
  tuneMalloc,
} from '../../src/os/limits.ts'
import { collectGarbage } from './gc.ts'

const limitsLine = (name: string): (bigint | undefined)[] => {
  const line = readFileSync('/proc/self/limits', 'utf8')
    .split('\n')
    .find((each) => each.startsWith(name))
  return (line?.slice(name.length).trim().split(/\s+/) ?? [])
    .slice(0, 2)
    .map((value) => (value === 'unlimited' ? RLIM_INFINITY : BigInt(value)))
}

describe('rlimit', () => {
  test('reads what /proc/self/limits shows', () => {
    for (const [name, line] of [
      ['memlock', 'Max locked memory'],
      ['nofile', 'Max open files'],
    ] as const) {
      const { current, max } = rlimit(name) as ResourceLimit
      expect([current, max]).toEqual(limitsLine(line))
    }
  })
})

describe('setRlimit', () => {
  test('lowers and restores the soft limit', () => {
    const before = rlimit('memlock') as ResourceLimit

    const answer = setRlimit('memlock', { ...before, current: 4096n })
    const lowered = rlimit('memlock') as ResourceLimit
    setRlimit('memlock', before)

    expect(answer).toBe(0)
    expect(lowered).toEqual({ ...before, current: 4096n })
    expect(rlimit('memlock')).toEqual(before)
  })

  test('refuses a soft limit above the hard one: EINVAL', () => {
    expect(setRlimit('nofile', { current: 10n, max: 9n })).toBe(-ERRNO.EINVAL)
  })
})

describe('hasCapability', () => {
  test.skipIf(!hasCapability('CAP_CHOWN'))('follows the effective user', () => {
    process.seteuid?.(65534)
    const without = hasCapability('CAP_CHOWN')
    process.seteuid?.(0)

    expect([without, hasCapability('CAP_CHOWN')]).toEqual([false, true])
  })
})

describe('lockedBytes', () => {
  test('counts memory that is locked', () => {
    const [PROT_READ, MAP_PRIVATE_ANONYMOUS_LOCKED] = [1, 0x2022]
    const before = lockedBytes()

    const address = sys.mmapSync(0, 65536, PROT_READ, MAP_PRIVATE_ANONYMOUS_LOCKED, -1, 0n)
    const locked = lockedBytes()
    sys.munmapSync(address, 65536)

    expect(locked - before).toBe(65536n)
    expect(lockedBytes()).toBe(before)
  })
})

test('tuneMalloc sets both thresholds where libc has them', () => {
  const { glibcVersionRuntime } = (
    process.report.getReport() as { header: { glibcVersionRuntime?: string } }
  ).header

  expect(tuneMalloc()).toBe(glibcVersionRuntime !== undefined)
})

test('tuneCollector leaves no collection that is done in steps', async () => {
  await collectGarbage()
  const kinds = new Set<number>()
  const observer = new PerformanceObserver((list) => {
    const entries = list.getEntries() as unknown as { detail: { kind: number } }[]
    for (const { detail } of entries) kinds.add(detail.kind)
  })
  const held: Buffer[] = []

  tuneCollector()
  observer.observe({ entryTypes: ['gc'] })
  // Bytes that are held for a while, as those of a stream, so that only a major collection finds them.
  for (let turn = 0; !kinds.has(constants.NODE_PERFORMANCE_GC_MAJOR); turn += 1) {
    held[turn % 128] = Buffer.allocUnsafeSlow(2 ** 20)
    await new Promise((resolve) => setImmediate(resolve))
  }
  observer.disconnect()

  expect(kinds).not.toContain(constants.NODE_PERFORMANCE_GC_INCREMENTAL)
})
