import { expect, test } from 'vitest'
import { Rates } from '../../src/api/call/rate.ts'
import { person } from '../domain/people.ts'

const limited = person('limited', 200, { quota: { calls_per_second: 2n } })

test('a second may have as many calls as the quota, and time gives new ones', () => {
  let now = 0
  const rates = new Rates(() => now)
  const call = () => rates.take(limited)
  call()
  call()

  expect(call).toThrow(expect.objectContaining({ reason: 'LIMIT_REACHED' }))
  now = 500
  expect(call).not.toThrow()
  expect(call).toThrow()
  now = 10_000
  call()
  call()
  expect(call).toThrow(
    expect.objectContaining({ details: expect.objectContaining({ retryAfterMs: 500 }) }),
  )
})

test('a quota of zero refuses every call, and none refuses nothing', () => {
  const rates = new Rates(() => 0)
  const never = person('never', 201, { quota: { calls_per_second: 0n } })
  const always = person('always', 202)

  expect(() => rates.take(never)).toThrow()
  for (let n = 0; n < 1000; n += 1) rates.take(always)
})

test('the processes of one identity share it', () => {
  const rates = new Rates(() => 0)
  const sibling = { ...limited, id: 'sibling' }
  rates.take(limited)
  rates.take(sibling)

  expect(() => rates.take(limited)).toThrow()
})
