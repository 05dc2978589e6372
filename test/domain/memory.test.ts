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
