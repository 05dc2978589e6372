import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // These need a real kernel with VFIO: vitest.kernel.config.ts runs them in the VM.
    exclude: ['test/kernel/**'],
    reporters: ['default', './test/plain-line.ts'],
    testTimeout: 30_000,
    hookTimeout: 30_000,
    pool: 'forks',
    globalSetup: './test/build-once.ts',
  },
})
