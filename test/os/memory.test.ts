import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { ERRNO } from '../../src/base/errno.ts'
import { O_RDONLY, O_RDWR, sys } from '../../src/os/libc.ts'
import {
  accessAt,
  addressOf,
  allocPages,
  bytesAt,
  freeSegment,
  mapFd,
  memfdCreate,
  type Segment,
  VIEW_MAX,
} from '../../src/os/memory.ts'
import { until } from './fds.ts'
import { collectGarbage } from './gc.ts'

const MIB = 1n << 20n
const GIB = 1n << 30n

/** -ENOSYS where the kernel is built without hugetlbfs. */
const hugeFd = memfdCreate('vfiod-test', 2n * MIB, { hugePage: '2M' })

const mapped = async (
  length: bigint,
  access: 'read' | 'read-write' = 'read-write',
): Promise<Segment> => {
  const fd = memfdCreate('vfiod-test', length)
  const segment = await mapFd(fd, { offset: 0n, length, access })
  sys.closeSync(fd)
  if (typeof segment === 'number') throw new Error(`Cannot map: errno ${-segment}`)
  return segment
}

const mappingLine = (segment: Segment): string | undefined =>
  readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .find((line) => line.startsWith(`${segment.address.toString(16)}-`))

describe('mapFd', () => {
  test('maps a memfd so that both sides see the same bytes', async () => {
    const fd = memfdCreate('vfiod-test', MIB)
    const segment = await mapFd(fd, { offset: 4096n, length: 8192n, access: 'read-write' })
    const through = new Uint8Array(3)
    if (typeof segment === 'number') throw new Error()

    segment.bytes.set([1, 2, 3], 4096)
    sys.preadSync(fd, through, 8192n)
    await sys.pwrite(fd, Uint8Array.of(9), 4096n)

    expect([...through]).toEqual([1, 2, 3])
    expect(segment.bytes[0]).toBe(9)
    expect(segment.length).toBe(8192)
  })

  test('maps 64 GiB and reaches its first and last byte', async () => {
    const segment = await mapped(64n * GIB)

    segment.view(0, 1)[0] = 1
    segment.view(Number(64n * GIB) - 1, 1)[0] = 2

    expect(bytesAt(segment.address, 1)).toEqual(Uint8Array.of(1))
    expect(bytesAt(segment.address + 64n * GIB - 1n, 1)).toEqual(Uint8Array.of(2))
    freeSegment(segment)
  })

  test('shows one range of a large segment the same bytes through every window', async () => {
    const segment = await mapped(8n * GIB)
    const middle = 3 * 2 ** 30

    segment.view(middle - 8, 16).set([1, 2, 3, 4, 5, 6, 7, 8, 9], 7)

    expect([...segment.view(middle, 8)]).toEqual([2, 3, 4, 5, 6, 7, 8, 9])
    expect(segment.view(2 ** 30, 2 ** 31 + 1)[2 ** 31]).toBe(2)
    expect(segment.view(0, VIEW_MAX)[middle]).toBe(2)
    freeSegment(segment)
  })

  test('refuses a view above 4 GiB, at which Node 20 would abort: RangeError', async () => {
    const segment = await mapped(5n * GIB)

    expect(() => segment.bytes).toThrow(RangeError)
    expect(() => segment.view(0, VIEW_MAX + 1)).toThrow(RangeError)
    freeSegment(segment)
  })

  test('refuses what reaches beyond the end of the file, where a touch is SIGBUS: EINVAL', async () => {
    const fd = memfdCreate('vfiod-test', 8192n)
    const reach = (offset: bigint, length: bigint) =>
      mapFd(fd, { offset, length, access: 'read-write' })

    expect(await reach(0n, 12288n)).toBe(-ERRNO.EINVAL)
    expect(await reach(8192n, 4096n)).toBe(-ERRNO.EINVAL)
    expect(await reach(0n, 0n)).toBe(-ERRNO.EINVAL)
    expect(await reach(1n, 4096n)).toBe(-ERRNO.EINVAL)
    expect(await reach(0n, 4097n)).toBe(-ERRNO.EINVAL)
  })

  test('refuses an fd that is closed, or not open for writing: EBADF, EACCES', async () => {
    const path = join(mkdtempSync(join(tmpdir(), 'vfiod-memory-')), 'file')
    writeFileSync(path, Buffer.alloc(4096))
    const readOnly = await sys.open(path, O_RDONLY)
    const all = { offset: 0n, length: 4096n, access: 'read-write' } as const

    expect(await mapFd(9999, all)).toBe(-ERRNO.EBADF)
    expect(await mapFd(readOnly, all)).toBe(-ERRNO.EACCES)
    expect(await mapFd(readOnly, { ...all, access: 'read' })).toMatchObject({ length: 4096 })
  })

  test('answers what the kernel says for more than the address space holds: ENOMEM', async () => {
    const fd = memfdCreate('vfiod-test', 1n << 50n)

    const answer = await mapFd(fd, { offset: 0n, length: 1n << 50n, access: 'read-write' })

    expect(answer).toBe(-ERRNO.ENOMEM)
  })

  test.skipIf(hugeFd < 0)(
    'refuses part of a huge page, which could not be unmapped: EINVAL',
    async () => {
      const answer = await mapFd(hugeFd, { offset: 0n, length: MIB, access: 'read-write' })

      expect(answer).toBe(-ERRNO.EINVAL)
    },
  )
})

describe('allocPages', () => {
  test('gives zeroed memory on a page boundary, in whole pages', () => {
    const segment = allocPages(5000)

    expect(segment.address % 4096n).toBe(0n)
    expect(segment.length).toBe(8192)
    expect(segment.bytes.every((byte) => byte === 0)).toBe(true)
    freeSegment(segment)
  })
})

describe('bytesAt', () => {
  test('leads from an address inside a segment to its bytes, uncopied', () => {
    const segment = allocPages(8192)

    const bytes = bytesAt(segment.address + 100n, 4)
    bytes?.set([1, 2, 3, 4])

    expect([...segment.bytes.subarray(100, 104)]).toEqual([1, 2, 3, 4])
    freeSegment(segment)
  })

  test('knows nothing that is not wholly inside one segment', () => {
    const segment = allocPages(4096)
    const { address } = segment

    expect(bytesAt(address, 4096)).toHaveLength(4096)
    expect(bytesAt(address, 4097)).toBeUndefined()
    expect(bytesAt(address + 4095n, 2)).toBeUndefined()
    // The kernel may have put another segment right beside this one.
    expect(bytesAt(address - 1n, 1)?.buffer).not.toBe(segment.bytes.buffer)
    expect(bytesAt(address + 4096n, 1)?.buffer).not.toBe(segment.bytes.buffer)
    expect(bytesAt(0n, 1)).toBeUndefined()
    expect(bytesAt(0xffff_ffff_ffff_ffffn, 1)).toBeUndefined()
    expect(bytesAt(address, -1)).toBeUndefined()
    freeSegment(segment)
  })

  test('does not know bytes of the JS heap, whose address addressOf tells', () => {
    expect(bytesAt(addressOf(new Uint8Array(4096)), 1)).toBeUndefined()
  })

  test('finds the right one of a thousand segments after every third is freed', () => {
    const all = Array.from({ length: 1000 }, () => allocPages(4096))
    const [freed, kept] = [
      all.filter((_, index) => index % 3 === 0),
      all.filter((_, index) => index % 3 !== 0),
    ]
    for (const [index, segment] of kept.entries())
      new DataView(segment.bytes.buffer).setUint32(0, index)

    for (const segment of freed) freeSegment(segment)

    const found = kept.map(({ address }) => bytesAt(address, 4) as Uint8Array)
    expect(found.map((bytes) => new DataView(bytes.buffer).getUint32(0))).toEqual([...kept.keys()])
    expect(freed.every(({ address }) => bytesAt(address, 1) === undefined)).toBe(true)
    for (const segment of kept) freeSegment(segment)
  })
})

describe('accessAt', () => {
  test('tells read-only from writable memory, and knows nothing outside', async () => {
    const [readOnly, writable] = [await mapped(MIB, 'read'), await mapped(MIB)]

    expect(accessAt(readOnly.address, 1)).toBe('read')
    expect(accessAt(writable.address, Number(MIB))).toBe('read-write')
    expect(accessAt(writable.address, Number(MIB) + 1)).toBeUndefined()
  })
})

describe('freeSegment', () => {
  test('unmaps at once what was never looked at', async () => {
    const segment = await mapped(MIB)

    freeSegment(segment)
    await until(() => mappingLine(segment) === undefined)

    expect(() => segment.bytes).toThrow(RangeError)
    expect(bytesAt(segment.address, 1)).toBeUndefined()
  })

  test('covers memory that is still in use: the process lives, the file is let go', async () => {
    const segment = await mapped(MIB)
    const stale = segment.bytes
    stale[0] = 1

    freeSegment(segment)
    await until(() => mappingLine(segment)?.includes('memfd') !== true)
    stale[1] = 1

    expect(stale[0]).toBe(0)
    expect(stale[2]).toBe(0)
  })

  test('unmaps what was looked at when the last view is collected', async () => {
    const segment = await mapped(MIB)
    let stale: Uint8Array | undefined = segment.bytes
    stale[0] = 1

    freeSegment(segment)
    await collectGarbage()
    const whileViewed = mappingLine(segment)
    stale = undefined

    expect(whileViewed).toBeDefined()
    await collectGarbage()
    await until(() => mappingLine(segment) === undefined)
    expect(stale).toBeUndefined()
  })

  test('refuses a second time', () => {
    const segment = allocPages(4096)

    freeSegment(segment)

    expect(() => freeSegment(segment)).toThrow('freed already')
  })
})

test('a kernel fills a segment by its address, and node:fs by its bytes', async () => {
  const path = join(mkdtempSync(join(tmpdir(), 'vfiod-memory-')), 'file')
  writeFileSync(path, 'abcdef')
  const segment = allocPages(4096)
  const fd = await sys.open(path, O_RDWR)
  const file = await open(path)

  await sys.pread(fd, segment.view(0, 3), 0n)
  await file.read(segment.view(3, 3), 0, 3, 3)
  await file.close()

  expect(Buffer.from(segment.view(0, 6)).toString()).toBe('abcdef')
})
