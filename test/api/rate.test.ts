import { expect, test } from 'vitest'
import { Rates } from '../../src/api/call/rate.ts'
import { Quotas } from '../../src/domain/identity/quotas.ts'
import { State } from '../../src/domain/state/state.ts'
import { defaultQuotas, type Quota } from '../../src/rules/policy.ts'
import { person } from '../domain/people.ts'

const quotas = (total: Quota = {}) => new Quotas(new State(), () => total, defaultQuotas(1n << 30n))
const limited = person('limited', 200, { quota: { calls_per_second: 2n } })

test('a second may have as many calls as the quota, and time gives new ones', () => {
  let now = 0
  const rates = new Rates(quotas(), () => now)
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

test('a quota of zero refuses every call, and without one the default holds', () => {
  const rates = new Rates(quotas(), () => 0)
  const never = person('never', 201, { quota: { calls_per_second: 0n } })
  const always = person('always', 202)

  expect(() => rates.take(never)).toThrow()
  const { calls_per_second: rate } = defaultQuotas(0n).identity
  for (let n = 0n; n < rate; n += 1n) rates.take(always)
  expect(() => rates.take(always)).toThrow(expect.objectContaining({ reason: 'LIMIT_REACHED' }))
})

test('the processes of one identity share it', () => {
  const rates = new Rates(quotas(), () => 0)
  const sibling = { ...limited, id: 'sibling' }
  rates.take(limited)
  rates.take(sibling)

  expect(() => rates.take(limited)).toThrow()
})

test('all together have a rate too, of which administrators need none', () => {
  const rates = new Rates(quotas({ calls_per_second: 16n }), () => 0)
  const callers = Array.from({ length: 15 }, (_, n) =>
    person(`caller ${n}`, 300 + n, { role: 'operate' }),
  )
  for (const caller of callers) rates.take(caller)

  expect(() => rates.take(person('one more', 400, { role: 'operate' }))).toThrow(
    expect.objectContaining({
      details: expect.objectContaining({
        quota: expect.objectContaining({
          limit: 'calls_per_second of all clients without the role admin',
        }),
      }),
    }),
  )
  expect(() => rates.take(person('admin', 0, { role: 'admin' }))).not.toThrow()
})
