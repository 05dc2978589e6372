/** Looks at the host are shared, and never older than the call that they answer. */

import { expect, test } from 'vitest'
import { OneLook } from '../../src/base/one-look.ts'

/** A look that ends when it is told to, with the number of its turn. */
const slow = () => {
  const begun: { readonly end: () => void; readonly fail: () => void }[] = []
  const look = new OneLook(() => {
    return new Promise<number>((resolve, reject) => {
      const turn = begun.push({ end: () => resolve(turn), fail: () => reject(new Error('no')) })
    })
  })
  return { look, begun }
}

test('one runs at a time, and all that come meanwhile share the next', async () => {
  const { look, begun } = slow()
  const first = look.take()
  const later = [look.take(), look.take()]

  expect(begun).toHaveLength(1)
  begun[0]?.end()
  expect(await first).toBe(1)
  await expect.poll(() => begun.length, { timeout: 60_000 }).toBe(2)
  begun[1]?.end()
  expect(await Promise.all(later)).toEqual([2, 2])
  expect(begun).toHaveLength(2)
})

test('one that fails is answered to its caller alone', async () => {
  const { look, begun } = slow()
  const first = look.take()
  const second = look.take()

  begun[0]?.fail()
  await expect(first).rejects.toThrow('no')
  await expect.poll(() => begun.length, { timeout: 60_000 }).toBe(2)
  begun[1]?.end()
  expect(await second).toBe(2)
})

test('one that is asked for when none runs begins at once', async () => {
  const { look, begun } = slow()
  const first = look.take()
  begun[0]?.end()
  await first

  const second = look.take()
  begun[1]?.end()
  expect(await second).toBe(2)
})
