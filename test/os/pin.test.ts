import { expect, test } from 'vitest'
import { sys } from '../../src/os/libc.ts'
import { allocPages, freeSegment, mapFd, memfdCreate, type Segment } from '../../src/os/memory.ts'
import { pinPages } from '../../src/os/pin.ts'

test('pinned shared pages stay reachable when the segment they were found in is freed', async () => {
  const fd = memfdCreate('vfiod-test', 16384n)
  const what = { offset: 0n, length: 16384n, access: 'read-write' } as const
  const segment = (await mapFd(fd, what)) as Segment
  const pin = pinPages(segment.address + 4096n, 8192)
  const through = new Uint8Array(1)

  freeSegment(segment)
  pin.piece(4096, 1)?.write(Uint8Array.of(7))
  sys.preadSync(fd, through, 8192n)
  pin.release()

  expect(through[0]).toBe(7)
})

test('pinned private pages are reached through their segment, and gone with it', () => {
  const segment = allocPages(4096)
  const pin = pinPages(segment.address, 4096)

  segment.bytes[5] = 9
  const whileMapped = new Uint8Array(1)
  pin.piece(5, 1)?.read(whileMapped)
  freeSegment(segment)

  expect(whileMapped[0]).toBe(9)
  expect(pin.piece(5, 1)).toBeUndefined()
  pin.release()
})
