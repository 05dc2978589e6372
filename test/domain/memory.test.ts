import { readdirSync } from 'node:fs'
import { beforeEach, describe, expect, test } from 'vitest'
import { type World, world } from './machine.ts'
import { alice, bob } from './people.ts'

let at: World

beforeEach(() => {
  at = world()
})

const allocate = (client = alice) =>
  at.domain.memories.allocate(client, { id: 'ram', length: 0x1000n, hugePage: undefined })
const openFds = (): number => readdirSync('/proc/self/fd').length

describe('an allocation that is asked for twice at once', () => {
  test('by one client is one memory, as it is when it is asked for again', async () => {
    const [first, second] = await Promise.all([allocate(), allocate()])

    expect(second).toBe(first)
    expect(at.domain.state.memories()).toEqual([first])
    expect(await allocate()).toBe(first)
  })

  test('by two clients is of one; the other is told whose the id is: NOT_MM_OWNER', async () => {
    const before = openFds()
    const outcomes = await Promise.allSettled([allocate(alice), allocate(bob)])

    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    expect(outcomes.find(({ status }) => status === 'rejected')).toMatchObject({
      reason: { reason: 'NOT_MM_OWNER' },
    })
    expect(at.domain.state.memories()).toHaveLength(1)
    expect(openFds()).toBe(before + 1)
  })
})

test('huge pages that are not there are refused with how many there are and where to have more', async () => {
  const { domain } = world()
  // A tebibyte: more than hosts that run tests have.
  const wanted = { id: 'huge', length: 1n << 40n, hugePage: '2M' } as const

  await expect(domain.memories.allocate(alice, wanted)).rejects.toMatchObject({
    reason: 'LIMIT_REACHED',
    message: expect.stringMatching(
      /^Cannot map 0x10000000000 bytes of memory "huge": \d+ of \d+ huge pages of 2 MiB are free, and up to 524288 are needed; raise .*hugepages-2048kB\/nr_hugepages, or free huge pages/,
    ),
    details: {
      errno: 'ENOMEM',
      causes: ['hugetlb-pool-empty'],
      quota: { limit: 'huge pages of 2 MiB', needed: 524_288n },
    },
  })
})
