/** What the daemon remembers of exported device fds does not grow with the number of exports. */

import { expect, test } from 'vitest'
import { State } from '../../src/domain/state/state.ts'

const exported = (state: State, what: string) =>
  state.apply({ kind: 'device-exported', group: 3, what })

test('an export that is made again is remembered once', () => {
  const state = new State()
  for (let n = 0; n < 1000; n += 1) exported(state, 'edu that was exported to alice')
  exported(state, 'edu that was exported to bob')

  expect(state.exportsOf(3)).toEqual([
    'edu that was exported to alice',
    'edu that was exported to bob',
  ])
})

test('of many different ones the last 64 are remembered', () => {
  const state = new State()
  for (let n = 0; n < 1000; n += 1) exported(state, `edu that was exported to ${n}`)

  expect(state.exportsOf(3)).toHaveLength(64)
  expect(state.exportsOf(3).at(-1)).toBe('edu that was exported to 999')
  state.apply({ kind: 'exports-closed', group: 3 })
  expect(state.exportsOf(3)).toEqual([])
})
