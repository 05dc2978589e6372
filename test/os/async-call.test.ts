/** The hazards of koffi's asynchronous calls, each of which was measured before this was written. */

import { openSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { ERRNO } from '../../src/base/errno.ts'
import { addressOf } from '../../src/os/async-call.ts'
import { eventfdCreate, eventfdSignal } from '../../src/os/eventfd.ts'
import { sys } from '../../src/os/libc.ts'
import { collectGarbage } from './gc.ts'

const TCGETS = 0x5401
const nullFd = openSync('/dev/null', 'r+')
const zeroFd = openSync('/dev/zero', 'r')

describe('an asynchronous call', () => {
  test('keeps its buffer alive until it has answered, and no longer', async () => {
    const fd = eventfdCreate()
    let buffer: Uint8Array | undefined = new Uint8Array(8)
    const seen = new WeakRef(buffer.buffer)
    const reading = sys.read(fd, buffer)
    buffer = undefined

    await collectGarbage()
    const whileReading = seen.deref()?.byteLength
    eventfdSignal(fd)
    const answer = await reading
    await collectGarbage()

    expect(whileReading).toBe(8)
    expect(answer).toBe(8)
    expect(seen.deref()).toBeUndefined()
  })

  test('fills small arrays, which V8 could move, while garbage is collected', async () => {
    const arrays = Array.from({ length: 500 }, () => new Uint8Array(16).fill(7))

    const reading = Promise.all(arrays.map((array) => sys.pread(zeroFd, array, 0n)))
    await collectGarbage()
    const answers = await reading

    expect(answers.every((answer) => answer === 16)).toBe(true)
    expect(arrays.every((array) => array.every((byte) => byte === 0))).toBe(true)
  })

  test('answers its own errno with hundreds of other calls in flight', async () => {
    const kinds = [
      { start: () => sys.close(-1), answer: -ERRNO.EBADF },
      { start: () => sys.open('/does/not/exist', 0), answer: -ERRNO.ENOENT },
      { start: () => sys.ioctl(nullFd, TCGETS, new Uint8Array(64)), answer: -ERRNO.ENOTTY },
      { start: () => sys.pread(zeroFd, new Uint8Array(8), -1n), answer: -ERRNO.EINVAL },
      { start: () => sys.pread(zeroFd, new Uint8Array(8), 0n), answer: 8 },
    ]

    const answers = await Promise.all(
      Array.from({ length: 300 }, () =>
        kinds.map(async ({ start, answer }) => {
          const got = await start()
          sys.ioctlSync(-1, TCGETS, 0)
          return got === answer
        }),
      ).flat(),
    )

    expect(answers.filter((isRight) => !isRight)).toHaveLength(0)
  })

  test('waits for its turn beyond the number that koffi takes at once', async () => {
    const answers = await Promise.all(Array.from({ length: 5000 }, () => sys.close(-1)))

    expect(answers.every((answer) => answer === -ERRNO.EBADF)).toBe(true)
  })

  test('leaves the event loop running while it blocks', async () => {
    const fd = eventfdCreate()
    const order: string[] = []

    const reading = sys.read(fd, new Uint8Array(8)).then(() => order.push('read'))
    await new Promise((resolve) => setImmediate(resolve))
    order.push('loop')
    eventfdSignal(fd)
    await reading

    expect(order).toEqual(['loop', 'read'])
  })

  test('rejects for an argument of the wrong kind, and the next call answers', async () => {
    await expect(sys.close('x' as never as number)).rejects.toThrow(TypeError)
    expect(await sys.close(-1)).toBe(-ERRNO.EBADF)
  })
})

describe('a synchronous call', () => {
  test('answers its own errno while garbage is made', () => {
    const answers = Array.from({ length: 20_000 }, (_, index) => {
      const garbage = Array.from({ length: 10 }, () => ({ index }))
      return garbage.length > 0 && sys.ioctlSync(nullFd, TCGETS, 0)
    })

    expect(answers.every((answer) => answer === -ERRNO.ENOTTY)).toBe(true)
  })
})

describe('addressOf', () => {
  test('answers one address for an array as long as it lives, views offset from it', async () => {
    const array = new Uint8Array(16)

    const before = addressOf(array)
    await collectGarbage()

    expect(addressOf(array)).toBe(before)
    expect(addressOf(array.subarray(4))).toBe(before + 4n)
  })
})
