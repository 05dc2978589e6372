// How much of the simulator is held to a rule: `npm run coverage` counts the contract suites and the
// replayed conformance traces, and wants 95 % of the lines. `npm run coverage -- test/sim` adds the
// simulator's own tests. docs/conformance.md says what is not covered, and why.

import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/{contract,conformance,sim}/**/*.test.ts'],
    pool: 'forks',
    testTimeout: 30_000,
    hookTimeout: 30_000,
    coverage: {
      enabled: true,
      provider: 'v8',
      include: ['src/backends/sim/**'],
      // It answers no system call; test/sim has its tests.
      exclude: ['src/backends/sim/machine-file/**'],
      reporter: ['text', 'json'],
      reportsDirectory: 'node_modules/.cache/coverage',
      thresholds: { lines: 95 },
    },
  },
})
