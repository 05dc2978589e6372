import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { LIMITS } from '../../src/base/limits.ts'
import { Tickets } from '../../src/domain/identity/tickets.ts'
import { alice, bob } from './people.ts'

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
})
afterEach(() => {
  vi.useRealTimers()
})

const answer = async (fds: readonly number[]) => ({ reply: { got: fds.length }, fds: [] })

const PURPOSE = { act: 'try', object: { memoryId: 'm' } }

describe('a ticket', () => {
  test('works once, for the client that asked', async () => {
    const tickets = new Tickets()
    const { ticket } = tickets.issue(alice, PURPOSE, answer)

    await expect(tickets.redeem(alice, ticket, [5, 6])).resolves.toEqual({
      reply: { got: 2 },
      fds: [],
    })
    await expect(tickets.redeem(alice, ticket, [])).rejects.toMatchObject({ reason: 'BAD_TICKET' })
  })

  test('goes on while more packets are to come, with its time anew', async () => {
    const tickets = new Tickets()
    const { ticket, expiresInMs } = tickets.issue(alice, PURPOSE, async (fds) => ({
      ...(await answer(fds)),
      rest: answer,
    }))

    await tickets.redeem(alice, ticket, [5, 6])
    vi.advanceTimersByTime(expiresInMs - 1)
    await expect(tickets.redeem(bob, ticket, [7])).rejects.toMatchObject({ reason: 'BAD_TICKET' })
    await expect(tickets.redeem(alice, ticket, [7])).resolves.toMatchObject({ reply: { got: 1 } })
    await expect(tickets.redeem(alice, ticket, [8])).rejects.toMatchObject({ reason: 'BAD_TICKET' })
  })

  test('is refused to another client, and stays good for its own', async () => {
    const tickets = new Tickets()
    const { ticket } = tickets.issue(alice, PURPOSE, answer)

    await expect(tickets.redeem(bob, ticket, [])).rejects.toMatchObject({ reason: 'BAD_TICKET' })
    await expect(tickets.redeem(alice, ticket, [])).resolves.toBeDefined()
  })

  test('expires', async () => {
    const tickets = new Tickets()
    const { ticket, expiresInMs } = tickets.issue(alice, PURPOSE, answer)

    vi.advanceTimersByTime(expiresInMs)
    // The sockets are read once more.
    for (let turn = 0; turn < 3; turn += 1) await new Promise((next) => setImmediate(next))

    await expect(tickets.redeem(alice, ticket, [])).rejects.toMatchObject({ reason: 'BAD_TICKET' })
  })

  test('goes with its client', async () => {
    const tickets = new Tickets()
    const { ticket } = tickets.issue(alice, PURPOSE, answer)

    tickets.releaseClient(alice)

    await expect(tickets.redeem(alice, ticket, [])).rejects.toMatchObject({ reason: 'BAD_TICKET' })
  })

  test('is refused over the limit, with limit, current and needed', () => {
    const tickets = new Tickets()
    for (let n = 0; n < LIMITS.ticketsPerClient; n += 1) tickets.issue(alice, PURPOSE, answer)

    expect(() => tickets.issue(alice, PURPOSE, answer)).toThrow(
      expect.objectContaining({
        reason: 'LIMIT_REACHED',
        details: expect.objectContaining({
          quota: { limit: 'tickets of one client', max: 256n, current: 256n, needed: 1n },
        }),
      }),
    )
    expect(tickets.issue(bob, PURPOSE, answer)).toBeDefined()
  })
})
