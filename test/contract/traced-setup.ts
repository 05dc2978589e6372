/** After each file of the project `traced`: its calls were traced, and every one as a whole line. */

import { afterAll, expect } from 'vitest'
import { takeLines } from './traced-sim.ts'

afterAll(() => {
  const { lines, wrong } = takeLines()
  expect(lines).toBeGreaterThan(0)
  expect(wrong).toEqual([])
})
