// Calls that sleep: those of one account leave threads to the others, and all of them some to the daemon.

import { describe, expect, test } from 'vitest'
import { sys } from '../../src/os/libc.ts'
import {
  currentAccount,
  onAccountOf,
  type Sleep,
  ThreadShares,
} from '../../src/os/thread-shares.ts'
import { pipe } from './pipe.ts'

class Calls {
  readonly #shares: ThreadShares
  readonly running: string[] = []

  constructor(threads: number) {
    this.#shares = new ThreadShares(threads)
  }

  make(account: string, count: number, sleep: Sleep = 'bounded'): void {
    for (let n = 0; n < count; n += 1)
      this.#shares.begin(account, { sleep, start: () => this.running.push(account) })
  }

  end(account: string, sleep: Sleep = 'bounded'): void {
    this.running.splice(this.running.indexOf(account), 1)
    this.#shares.end(account, sleep)
  }

  of(account: string): number {
    return this.running.filter((each) => each === account).length
  }
}

describe('threads for calls that sleep', () => {
  test('an account has a quarter of them, and what waits begins as calls end', () => {
    const calls = new Calls(64)

    calls.make('a', 100)
    expect(calls.of('a')).toBe(16)
    for (let ended = 0; ended < 100; ended += 1) {
      expect(calls.of('a')).toBe(Math.min(16, 100 - ended))
      calls.end('a')
    }
    expect(calls.running).toEqual([])
  })

  test('all accounts together leave a quarter to the daemon, and take turns for the rest', () => {
    const calls = new Calls(64)
    for (const account of ['a', 'b', 'c', 'd', 'e']) calls.make(account, 20)
    expect(calls.running).toHaveLength(48)
    expect([calls.of('d'), calls.of('e')]).toEqual([0, 0])

    for (let n = 0; n < 8; n += 1) calls.end('a')

    expect([calls.of('a'), calls.of('d'), calls.of('e')]).toEqual([11, 3, 2])
    expect(calls.running).toHaveLength(48)
  })

  test('calls that may never end have half of the share of their account', () => {
    const calls = new Calls(64)

    calls.make('a', 100, 'endless')
    expect(calls.of('a')).toBe(8)
    calls.make('a', 1)
    expect(calls.of('a')).toBe(9)
  })

  test('with few threads an account has two, of which one for calls that may never end', () => {
    const calls = new Calls(4)

    calls.make('a', 10, 'endless')
    calls.make('a', 10)
    calls.make('b', 10)
    expect([calls.of('a'), calls.of('b')]).toEqual([2, 1])
  })
})

test('reads that never end, of one account, hold up neither another account nor the daemon', async () => {
  const pipes = Array.from({ length: 20 }, () => pipe())
  const reads = onAccountOf('greedy', () => pipes.map(([from]) => sys.read(from, Buffer.alloc(1))))

  const other = await onAccountOf('other', () => sys.open('/dev/null', 0))
  const own = await sys.open('/dev/null', 0)

  expect([other, own].every((fd) => fd >= 0)).toBe(true)
  for (const [, to] of pipes) sys.writeSync(to, Buffer.from('x'))
  expect(await Promise.all(reads)).toEqual(pipes.map(() => 1))
  for (const fd of [...pipes.flat(), other, own]) sys.closeSync(fd)
})

test('what an operation awaits is on its account, and what runs beside it is not', async () => {
  const seen: (string | undefined)[] = []
  const look = async () => {
    await Promise.resolve()
    seen.push(currentAccount())
  }
  await Promise.all([onAccountOf('a', look), look(), onAccountOf('b', look)])

  expect(seen).toEqual(['a', undefined, 'b'])
})
