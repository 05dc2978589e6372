import { spawn } from 'node:child_process'
import { mkdtempSync, openSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { ERRNO } from '../../src/base/errno.ts'
import { eventfdCreate, eventfdRead, eventfdSignal } from '../../src/os/eventfd.ts'
import { F_GETFL, O_NONBLOCK, sys } from '../../src/os/libc.ts'
import { onError, unwatch, watch } from '../../src/os/poller.ts'
import { openPidfd } from '../../src/os/process.ts'
import { collectGarbage } from './gc.ts'

/** Watches until the first event, then drains and unwatches. */
const firstEvent = (fd: number): Promise<bigint | number> =>
  new Promise((resolve) => {
    watch(fd, () => {
      resolve(eventfdRead(fd))
      unwatch(fd)
    })
  })

test('a watched eventfd calls back when it is signalled', async () => {
  const fd = eventfdCreate()

  const event = firstEvent(fd)
  eventfdSignal(fd)

  expect(await event).toBe(1n)
})

// Node 26 runs no promises after a callback that koffi makes, until something else wakes the loop.
test('an undrained fd calls back again, after the promises of the last call have run', async () => {
  const fd = eventfdCreate()
  let calls = 0

  const third = new Promise<void>((resolve) => {
    watch(fd, () => {
      calls += 1
      if (calls === 3) resolve()
    })
  })
  eventfdSignal(fd)
  await third
  unwatch(fd)

  expect(calls).toBe(3)
})

test('an fd that cannot be polled is refused and the process lives: EPERM', () => {
  const path = join(mkdtempSync(join(tmpdir(), 'vfiod-poll-')), 'file')
  writeFileSync(path, '')
  const noop = (): void => undefined

  expect(watch(openSync('/dev/null', 'r'), noop)).toBe(-ERRNO.EPERM)
  expect(watch(openSync(path, 'r'), noop)).toBe(-ERRNO.EPERM)
  expect(watch(9999, noop)).toBe(-ERRNO.EBADF)
})

test('the same fd number is refused a second time and the first watch goes on: EEXIST', async () => {
  const fd = eventfdCreate()

  const event = firstEvent(fd)
  const second = watch(fd, () => undefined)
  eventfdSignal(fd)

  expect(second).toBe(-ERRNO.EEXIST)
  expect(await event).toBe(1n)
})

test('a watch without a reference survives garbage collection', async () => {
  const fd = eventfdCreate()

  const event = firstEvent(fd)
  await collectGarbage()
  eventfdSignal(fd)

  expect(await event).toBe(1n)
})

test('watching leaves O_NONBLOCK unset for the processes that share the open file', async () => {
  const fd = eventfdCreate()
  const shared = sys.dup(fd)

  const event = firstEvent(fd)
  eventfdSignal(fd)
  await event

  expect(sys.fcntl(shared, F_GETFL) & O_NONBLOCK).toBe(0)
})

test('an unwatched fd does not call back, and cannot be unwatched twice: ENOENT', async () => {
  const [quiet, loud] = [eventfdCreate(), eventfdCreate()]
  let calls = 0
  watch(quiet, () => {
    calls += 1
  })

  expect(unwatch(quiet)).toBe(0)
  expect(unwatch(quiet)).toBe(-ERRNO.ENOENT)
  const event = firstEvent(loud)
  eventfdSignal(quiet)
  eventfdSignal(loud)
  await event

  expect(calls).toBe(0)
})

test('an exception in one callback goes to the hook, and the other callbacks are called', async () => {
  const [throwing, other] = [eventfdCreate(), eventfdCreate()]
  const errors: unknown[] = []
  onError((error) => errors.push(error))

  watch(throwing, () => {
    eventfdRead(throwing)
    throw new Error('in a callback')
  })
  const event = firstEvent(other)
  eventfdSignal(throwing)
  eventfdSignal(other)
  await event
  unwatch(throwing)

  expect(errors).toEqual([new Error('in a callback')])
})

test('an event is not delivered to a new watch of the same fd number', async () => {
  const [first, second] = [eventfdCreate(), eventfdCreate()]
  const delivered: string[] = []
  const replaceOther = (own: number, other: number) => (): void => {
    delivered.push('old')
    eventfdRead(own)
    unwatch(other)
    sys.closeSync(other)
    expect(eventfdCreate()).toBe(other)
    watch(other, () => delivered.push('new'))
  }

  watch(first, replaceOther(first, second))
  watch(second, replaceOther(second, first))
  eventfdSignal(first)
  eventfdSignal(second)
  await collectGarbage()
  unwatch(first)
  unwatch(second)

  expect(delivered).toEqual(['old'])
})

test('a watched pidfd calls back when the process exits', async () => {
  const child = spawn('cat')
  const pidfd = openPidfd(child.pid as number)

  const exit = new Promise<void>((resolve) => {
    watch(pidfd, () => {
      unwatch(pidfd)
      resolve()
    })
  })
  child.kill('SIGKILL')

  await exit
})
