/** Deadlines on a clock that a test moves, and an event loop that comes late. */

import { readdirSync, readFileSync } from 'node:fs'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { Deadline } from '../../src/os/deadline.ts'

let now = 0
let dues = 0
const due = () => {
  dues += 1
}

beforeEach(() => {
  now = 0
  dues = 0
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  vi.spyOn(performance, 'now').mockImplementation(() => now)
})
afterEach(() => {
  vi.useRealTimers()
  vi.restoreAllMocks()
})

/** The timers of the next `ms` fire, when the clock already says `late` more. */
const pass = (ms: number, late = 0): void => {
  now += ms + late
  vi.advanceTimersByTime(ms)
}
const turn = () => new Promise((resolve) => setImmediate(resolve))

test('a deadline is due after its time, two turns of the loop later', async () => {
  new Deadline(1000, due)

  pass(1000)
  const before = dues
  await turn()
  await turn()
  await turn()

  expect([before, dues]).toEqual([0, 1])
})

test('a deadline is put off by as much as the loop was late', async () => {
  new Deadline(1000, due)

  pass(1000, 5000)
  for (let n = 0; n < 4; n += 1) await turn()
  const whenLate = dues
  pass(4999)
  for (let n = 0; n < 4; n += 1) await turn()
  const before = dues
  pass(1)
  for (let n = 0; n < 4; n += 1) await turn()

  expect([whenLate, before, dues]).toEqual([0, 0, 1])
})

test('what is read from the sockets in time cancels it', async () => {
  const deadline = new Deadline(1000, due)

  pass(1000)
  await turn()
  deadline.cancel()
  for (let n = 0; n < 4; n += 1) await turn()

  expect(dues).toBe(0)
})

test('a deadline that begins anew has all of its time again', async () => {
  const deadline = new Deadline(1000, due)

  pass(600)
  deadline.renew(1000)
  pass(600)
  for (let n = 0; n < 4; n += 1) await turn()
  const before = dues
  pass(400)
  for (let n = 0; n < 4; n += 1) await turn()

  expect([before, dues]).toEqual([0, 1])
})

/** Timers that end nothing of a client: looks, closing, the start and the end of fronts. */
const NOT_OF_CLIENTS = [
  'api/transport/disposal.ts',
  'api/transport/fronts.ts',
  'api/transport/given-queue.ts',
  'domain/space/member-watch.ts',
]

test('everything that a client must do in time has a deadline that waits for a late loop', () => {
  const src = new URL('../../src/', import.meta.url)
  const files = ['api', 'domain'].flatMap((room) =>
    readdirSync(new URL(room, src), { recursive: true, encoding: 'utf8' }).map(
      (file) => `${room}/${file}`,
    ),
  )
  const withTimers = files.filter(
    (file) =>
      file.endsWith('.ts') && /\bsetTimeout\(/.test(readFileSync(new URL(file, src), 'utf8')),
  )

  expect(withTimers.sort()).toEqual(NOT_OF_CLIENTS)
})
