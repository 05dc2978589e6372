// One look at the groups serves every watcher, and no change is missed.

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { GroupLooks, type Look } from '../../src/domain/host/group-looks.ts'
import type { Change } from '../../src/domain/state/changes.ts'

const CHANGED = { kind: 'drivers-changed', devices: [] } as Change

let listeners: Set<(change: Change) => void>
let looks: number
let answer: () => Promise<readonly string[]>
let watched: GroupLooks<string>

/** Lets what has been resolved run. */
const settled = () => vi.advanceTimersByTimeAsync(0)
const change = (made: Change = CHANGED) => {
  for (const listener of listeners) listener(made)
}

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'setTimeout', 'clearTimeout'] })
  listeners = new Set()
  looks = 0
  answer = async () => [`look ${looks}`]
  watched = new GroupLooks({
    views: () => {
      looks += 1
      return answer()
    },
    state: {
      listen: (listener) => {
        listeners.add(listener)
        return () => void listeners.delete(listener)
      },
    },
    everyMs: 1000,
  })
})
afterEach(() => {
  vi.useRealTimers()
})

describe('looks at the groups', () => {
  test('are as many for a thousand watchers as for one', async () => {
    const seen: Look<string>[] = []
    for (let n = 0; n < 1000; n += 1) watched.join((look) => seen.push(look))

    await vi.advanceTimersByTimeAsync(1000)

    expect(looks).toBe(1)
    expect(seen).toEqual(Array(1000).fill({ views: ['look 1'] }))
  })

  test('come at once after a change of groups, and not after another', async () => {
    watched.join(() => undefined)
    change({ kind: 'space-closed', spaceId: 's' })
    await settled()
    expect(looks).toBe(0)

    change()
    await settled()

    expect(looks).toBe(1)
  })

  test('that a change interrupts are followed by another', async () => {
    let finish = (): void => undefined
    answer = () =>
      new Promise((resolve) => {
        finish = () => resolve([])
      })
    watched.join(() => undefined)
    change()
    change()
    change()
    expect(looks).toBe(1)

    finish()
    await settled()
    expect(looks).toBe(2)
    finish()
    await settled()

    expect(looks).toBe(2)
  })

  test('that fail are told to the watchers, and go on', async () => {
    const seen: Look<string>[] = []
    watched.join((look) => seen.push(look))
    const error = new Error('no sysfs')
    answer = () => Promise.reject(error)
    change()
    await settled()
    answer = async () => ['again']
    change()
    await settled()

    expect(seen).toEqual([{ error }, { views: ['again'] }])
  })

  test('end with the last watcher', async () => {
    const leave = [watched.join(() => undefined), watched.join(() => undefined)]
    leave[0]?.()
    expect(listeners.size).toBe(1)
    leave[1]?.()
    leave[1]?.()

    await vi.advanceTimersByTimeAsync(5000)

    expect([looks, listeners.size]).toEqual([0, 0])
  })
})
