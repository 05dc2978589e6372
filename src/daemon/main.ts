#!/usr/bin/env -S UV_THREADPOOL_SIZE=64 node
/**
 * vfiod. Calls that may sleep in the kernel each take a thread of the pool, whose size is fixed when
 * it is first used: so it is set before anything is imported, and for Nodes that have used it by
 * then, in bin/vfiod, in the line above and in the unit file.
 */
process.env.UV_THREADPOOL_SIZE ??= '64'
const { settleRuntime } = await import('./runtime.ts')
const refusal = settleRuntime(process.argv)
if (refusal !== undefined) {
  const { EX_CONFIG } = await import('./config-error.ts')
  process.stderr.write(`vfiod: ${refusal}\n`)
  process.exit(EX_CONFIG)
}
const { main } = await import('./run.ts')
const { leave } = await import('../os/leave.ts')
leave(await main(process.argv))
