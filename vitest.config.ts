import { defineConfig } from 'vitest/config'

/**
 * Rooms whose tests hold fds, sockets and pins of this process: a process for each file, so that
 * what one leaves open is not counted by the next.
 */
const PROCESSES = ['api', 'attacks', 'helper', 'os', 'soak', 'system']

/** No test asserts a time: this ends one that hangs, also on a machine that is busy with other work. */
const BOUND_MS = 120_000

const TRACED_SIM = new URL('./test/contract/traced-sim.ts', import.meta.url).pathname

/**
 * All others compute, or start the programs that they look at. They share two processes, because a
 * third of their time would go into starting a hundred of them.
 */
const inProcesses = PROCESSES.map((room) => `test/${room}/**/*.test.ts`)

export default defineConfig({
  test: {
    // Run by the projects, or in the VM: vitest.kernel.config.ts has those that need a real kernel.
    reporters: ['default', './test/plain-line.ts'],
    globalSetup: './test/build-once.ts',
    // Many tests wait for the processes that they started: vitest would leave a core to them.
    maxWorkers: '100%',
    projects: [
      {
        extends: true,
        test: {
          name: 'shared',
          include: ['test/**/*.test.ts'],
          exclude: ['test/kernel/**', ...inProcesses],
          pool: 'forks',
          isolate: false,
          testTimeout: BOUND_MS,
          hookTimeout: BOUND_MS,
        },
      },
      {
        extends: true,
        // The contract once more, over a simulator whose calls are traced.
        resolve: {
          alias: [{ find: /^.*\/src\/backends\/sim\/sim\.ts$/, replacement: TRACED_SIM }],
        },
        test: {
          name: 'traced',
          include: ['test/contract/**/*.test.ts'],
          setupFiles: ['./test/contract/traced-setup.ts'],
          pool: 'forks',
          isolate: false,
          testTimeout: BOUND_MS,
          hookTimeout: BOUND_MS,
        },
      },
      {
        extends: true,
        test: {
          name: 'alone',
          include: inProcesses,
          pool: 'forks',
          testTimeout: BOUND_MS,
          hookTimeout: BOUND_MS,
        },
      },
    ],
  },
})
