/** The reserve of fds, with an open that has no number left. */

import { afterEach, expect, test } from 'vitest'
import { ERRNO } from '../../src/base/errno.ts'
import { keepFdReserve, withReserve } from '../../src/os/fd-reserve.ts'
import { openFds } from './fds.ts'

let giveUp = (): void => {}
afterEach(() => giveUp())

test('an open without a number left is tried again in the place of a reserved one', () => {
  giveUp = keepFdReserve()
  const before = openFds()
  const answers = [-ERRNO.EMFILE, -ERRNO.EMFILE, 1234]

  expect(withReserve(() => answers.shift() ?? 0)).toBe(1234)
  expect(openFds()).toBe(before - 2)
})

test('the next open refills the reserve first', () => {
  giveUp = keepFdReserve()
  const before = openFds()
  const answers = [-ERRNO.EMFILE, 1234, 1235]
  withReserve(() => answers.shift() ?? 0)

  withReserve(() => answers.shift() ?? 0)

  expect(openFds()).toBe(before)
})

test('an open that fails for another reason is not tried again: ENOENT', () => {
  giveUp = keepFdReserve()
  let tries = 0

  const fd = withReserve(() => {
    tries += 1
    return -ERRNO.ENOENT
  })

  expect([fd, tries]).toEqual([-ERRNO.ENOENT, 1])
})

test('the errno stays when the reserve is used up, and giving it up leaves no fd behind', () => {
  const before = openFds()
  giveUp = keepFdReserve()

  expect(withReserve(() => -ERRNO.EMFILE)).toBe(-ERRNO.EMFILE)
  giveUp()

  expect(openFds()).toBe(before)
})
