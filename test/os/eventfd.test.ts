import { expect, test } from 'vitest'
import { ERRNO } from '../../src/base/errno.ts'
import { eventfdCreate, eventfdRead, eventfdSignal, isEventfd } from '../../src/os/eventfd.ts'
import { F_GETFL, O_NONBLOCK, sys } from '../../src/os/libc.ts'
import { memfdCreate } from '../../src/os/memory.ts'
import { collectGarbage } from './gc.ts'

test('a count is taken once and starts again at zero', () => {
  const fd = eventfdCreate()
  eventfdSignal(fd)
  eventfdSignal(fd)

  expect(eventfdRead(fd)).toBe(2n)
  expect(eventfdRead(fd)).toBe(-ERRNO.EAGAIN)
})

test('reading an empty counter does not wait, and leaves O_NONBLOCK as it is', () => {
  const fd = eventfdCreate()

  expect(eventfdRead(fd)).toBe(-ERRNO.EAGAIN)
  expect(sys.fcntl(fd, F_GETFL) & O_NONBLOCK).toBe(0)
})

test('signalling a full counter does not wait, and leaves it full', () => {
  const fd = eventfdCreate()
  sys.writeSync(fd, new Uint8Array(new BigUint64Array([0xffff_ffff_ffff_fffen]).buffer))

  expect(eventfdSignal(fd)).toBe(0)
  expect(eventfdSignal(fd)).toBe(0)
  expect(eventfdRead(fd)).toBe(0xffff_ffff_ffff_ffffn)
  expect(eventfdSignal(fd)).toBe(0)
  expect(eventfdRead(fd)).toBe(1n)
})

test('thousands of signals are counted one by one while garbage is collected', async () => {
  const fd = eventfdCreate()
  for (let signal = 0; signal < 5000; signal += 1) expect(eventfdSignal(fd)).toBe(0)
  await collectGarbage()
  expect(eventfdSignal(fd)).toBe(0)

  expect(eventfdRead(fd)).toBe(5001n)
})

test('signalling a file of another kind is refused: EINVAL', () => {
  expect(eventfdSignal(memfdCreate('vfiod-test', 4096n))).toBe(-ERRNO.EINVAL)
})

test('an fd that is not open is refused: EBADF', () => {
  expect(eventfdRead(-1)).toBe(-ERRNO.EBADF)
  expect(eventfdSignal(9999)).toBe(-ERRNO.EBADF)
})

test('a counter is known from other files', () => {
  expect(isEventfd(eventfdCreate())).toBe(true)
  expect(isEventfd(memfdCreate('vfiod-test', 4096n))).toBe(false)
  expect(isEventfd(9999)).toBe(false)
})
