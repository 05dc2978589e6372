/**
 * The bench's own vfiod: the project's API and domain over the kernel of kernel.mjs, for what the
 * daemon's simulator is too small or too fast for. Prints `ready`; ends with SIGTERM.
 *
 *   node vfiod-server.mjs <socket> <bytes of a session> [proto-loader | 64k-window]
 */
process.env.UV_THREADPOOL_SIZE ??= '64'

const { Api } = await import('../dist/api/api.js')
const { createSim } = await import('../dist/backends/sim/sim.js')
const { createDomain } = await import('../dist/domain/domain.js')
const { loadMachineFile } = await import('../dist/backends/sim/machine-file/machine-file.js')
const { tuneCollector, tuneMalloc } = await import('../dist/os/limits.js')
const { benchKernel } = await import('./kernel.mjs')
const { MACHINE_FILE } = await import('./machine.mjs')
const { takeBack } = await import('./slower.mjs')

const [path, sessionBytes, choice] = process.argv.slice(2)
if (choice !== undefined) takeBack(choice)
tuneMalloc()
tuneCollector()

const { kernel: simulator } = createSim(loadMachineFile(MACHINE_FILE), { time: 'auto' })
const kernel = benchKernel(simulator, { sessionBytes: Number(sessionBytes) })
const domain = createDomain({ kernel })
const silent = () => {}
const log = { debug: silent, info: silent, warn: console.warn, error: console.error }
const api = await Api.start({
  grantOf: () => ({ role: 'admin', devices: ['*'], addsGroups: true, quota: {} }),
  administration: {
    configuration: () => '',
    policy: () => '',
    policyStatus: () => '',
    drain: () => {},
  },
  domain,
  log,
  socket: { path, mode: 0o600 },
  fdSocket: { path: `${path}.fd`, mode: 0o600 },
})

process.once('SIGTERM', async () => {
  await api.drain(100)
  await domain.releaseAll('the bench is over')
  await api.close()
  process.exit(0)
})
console.log('ready')
