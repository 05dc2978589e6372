// The suite of the real kernel. It runs inside the test machine: `npm run test:kernel` boots it.

import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/{kernel,contract,system}/**/*.test.ts'],
    // Contract suites run on the backends that are named here.
    env: { VFIOD_BACKENDS: 'linux' },
    // There is one machine with one set of devices, so one file at a time has it.
    pool: 'forks',
    fileParallelism: false,
    maxWorkers: 1,
    // The machine is emulated: seconds here are tenths of a second elsewhere.
    testTimeout: 300_000,
    hookTimeout: 300_000,
    teardownTimeout: 60_000,
    passWithNoTests: false,
    reporters: ['default', './test/vm/progress.ts', './test/plain-line.ts'],
  },
})
