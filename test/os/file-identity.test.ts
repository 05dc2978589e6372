import { mkdtempSync, openSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { ERRNO } from '../../src/base/errno.ts'
import { eventfdCreate } from '../../src/os/eventfd.ts'
import { addSeals, fileIdentity, SEALS, sameFile } from '../../src/os/file-identity.ts'
import { sys } from '../../src/os/libc.ts'
import { memfdCreate } from '../../src/os/memory.ts'

const directory = mkdtempSync(join(tmpdir(), 'vfiod-identity-'))
/** -ENOSYS where the kernel is built without hugetlbfs. */
const hugeFd = memfdCreate('vfiod-test', 1n << 22n, { hugePage: '2M' })
const plainFile = (name: string, flags: string): number => {
  const path = join(directory, name)
  writeFileSync(path, '12345')
  return openSync(path, flags)
}

describe('fileIdentity', () => {
  test('knows a memfd by its kind, size and seals', () => {
    const fd = memfdCreate('vfiod-test', 1n << 40n)

    addSeals(fd, SEALS.SHRINK | SEALS.GROW)

    expect(fileIdentity(fd)).toMatchObject({
      kind: 'memfd-or-shm',
      size: 1n << 40n,
      pageSize: 4096n,
      seals: SEALS.SHRINK | SEALS.GROW,
      writable: true,
    })
  })

  test.skipIf(hugeFd < 0)('knows a memfd of huge pages by its kind and page size', () => {
    expect(fileIdentity(hugeFd)).toMatchObject({ kind: 'hugetlbfs', pageSize: 1n << 21n })
  })

  test('knows a file of a file system from shared memory, and whether it is open for writing', () => {
    expect(fileIdentity(plainFile('ro', 'r'))).toMatchObject({ size: 5n, writable: false })
    expect(fileIdentity(openSync('/proc/self/status', 'r'))).toMatchObject({ kind: 'file' })
  })

  test('knows an fd that is not a file at all', () => {
    expect(fileIdentity(eventfdCreate())).toMatchObject({ kind: 'other' })
    expect(fileIdentity(openSync('/dev/null', 'r+'))).toMatchObject({ kind: 'other' })
    expect(fileIdentity(openSync(directory, 'r'))).toMatchObject({ kind: 'other' })
  })

  test('says that a memfd sealed against writing is not writable', () => {
    const fd = memfdCreate('vfiod-test', 4096n)

    addSeals(fd, SEALS.FUTURE_WRITE)

    expect(fileIdentity(fd)).toMatchObject({ writable: false, seals: SEALS.FUTURE_WRITE })
  })

  test('refuses an fd that is not open: EBADF', () => {
    expect(fileIdentity(9999)).toBe(-ERRNO.EBADF)
  })
})

describe('addSeals', () => {
  test('keeps others from shrinking a memfd: EPERM', () => {
    const fd = memfdCreate('vfiod-test', 8192n)

    expect(addSeals(fd, SEALS.SHRINK)).toBe(0)
    expect(sys.ftruncate(fd, 4096n)).toBe(-ERRNO.EPERM)
  })

  test('refuses an fd that is not open for writing: EPERM', () => {
    const fd = memfdCreate('vfiod-test', 8192n)

    expect(addSeals(openSync(`/proc/self/fd/${fd}`, 'r'), SEALS.SHRINK)).toBe(-ERRNO.EPERM)
  })

  test('refuses a file that knows no seals: EINVAL', () => {
    expect(addSeals(eventfdCreate(), SEALS.SHRINK)).toBe(-ERRNO.EINVAL)
  })
})

describe('sameFile', () => {
  test('knows a file by any fd of it', () => {
    const fd = memfdCreate('vfiod-test', 4096n)

    expect(sameFile(fd, sys.dup(fd))).toBe(true)
    expect(sameFile(fd, openSync(`/proc/self/fd/${fd}`, 'r'))).toBe(true)
  })

  test('tells two files apart, also on one file system', () => {
    expect(sameFile(memfdCreate('a', 4096n), memfdCreate('a', 4096n))).toBe(false)
    expect(sameFile(plainFile('a', 'r'), plainFile('b', 'r'))).toBe(false)
  })

  test('refuses an fd that is not open: EBADF', () => {
    expect(sameFile(memfdCreate('a', 4096n), 9999)).toBe(-ERRNO.EBADF)
  })
})
