/** The closing line of a run over several machines. */

import { expect, test } from 'vitest'
import { createTally } from './tally.mjs'

const tallyOf = (lines: readonly string[]) => {
  const shown: string[] = []
  const tally = createTally((text: string) => void shown.push(text))
  for (const line of lines) tally.onLine(line)
  return { tally, shown }
}

test('adds up the closing lines, and shows what is meant for people', () => {
  const { tally, shown } = tallyOf([
    ' ✓ test/a.test.ts (2 tests)',
    'progress: a test ended',
    'progress: 2 passed, 0 failed',
    '2 passed, 0 failed',
    'progress: 1 passed, 1 failed, 3 skipped',
    '1 passed, 1 failed, 3 skipped',
  ])

  expect(tally.line()).toBe('3 passed, 1 failed, 3 skipped')
  expect(shown).toEqual([' ✓ test/a.test.ts (2 tests)\n'])
})

test('counts of a machine that was cut the files that ended, and one failure', () => {
  const { tally } = tallyOf([
    '2 passed, 0 failed',
    'progress: 5 passed, 0 failed',
    'progress: 7 passed, 0 failed, 1 skipped',
    'progress: a test ended',
  ])

  tally.addCut()

  expect(tally.line()).toBe('14 passed, 1 failed, 1 skipped')
})
