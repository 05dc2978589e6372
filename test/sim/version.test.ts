/** Versions of kernels, compared. */

import { describe, expect, test } from 'vitest'
import { isAtLeast } from '../../src/backends/sim/spec/version.ts'

describe('isAtLeast', () => {
  test.each([
    ['6.12', '6.12', true],
    ['6.12.117', '6.12', true],
    ['6.9', '6.12', false],
    ['7.0', '6.18', true],
    ['5.19', '6.0', false],
  ] as const)('%s is at least %s: %s', (version, wanted, answer) => {
    expect(isAtLeast(version, wanted)).toBe(answer)
  })
})
