/** In which order calls begin: those of one account give way to those of others. */

import { setImmediate as aTurn } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { Turns } from '../../src/api/call/turns.ts'

const world = () => {
  const turns = new Turns()
  const begun: string[] = []
  const ends = new Map<string, () => void>()
  const call = (account: string, name: string, isWide = false) =>
    void turns.begin(account, isWide).then((end) => {
      begun.push(name)
      ends.set(name, end)
    })
  return { call, begun, end: (name: string) => ends.get(name)?.() }
}

/** Promises that are settled have run. */
const settled = async () => {
  for (let each = 0; each < 10; each += 1) await Promise.resolve()
}

describe('calls', () => {
  test('begin at once, two of an account in a turn of the loop, the rest in their order', async () => {
    const { call, begun } = world()
    for (let n = 1; n <= 5; n += 1) call('a', `a${n}`)

    await settled()
    expect(begun).toEqual(['a1', 'a2'])
    await aTurn()
    expect(begun).toEqual(['a1', 'a2', 'a3', 'a4'])
    await aTurn()
    expect(begun).toEqual(['a1', 'a2', 'a3', 'a4', 'a5'])
  })

  test('of another account do not wait for them', async () => {
    const { call, begun } = world()
    for (let n = 1; n <= 1000; n += 1) call('a', `a${n}`)

    call('b', 'b1')

    await settled()
    expect(begun).toEqual(['a1', 'a2', 'b1'])
  })

  test('begin at once again after a turn without any', async () => {
    const { call, begun } = world()
    call('a', 'a1')
    call('a', 'a2')
    await aTurn()
    await aTurn()

    call('a', 'a3')

    await settled()
    expect(begun).toEqual(['a1', 'a2', 'a3'])
  })
})

describe('calls that look through the inventory', () => {
  test('are under way two at a time, and hold up no others of their account', async () => {
    const { call, begun, end } = world()
    for (let n = 1; n <= 4; n += 1) call('a', `look${n}`, true)
    call('a', 'a1')
    call('b', 'look of b', true)
    await aTurn()
    await aTurn()
    await aTurn()
    await settled()
    expect(begun).toEqual(['look1', 'look2', 'look of b', 'a1'])

    end('look1')
    await settled()
    expect(begun).toEqual(['look1', 'look2', 'look of b', 'a1', 'look3'])

    end('look2')
    end('look3')
    end('look of b')
    await settled()
    expect(begun.at(-1)).toBe('look4')
  })
})
