#!/usr/bin/env -S UV_THREADPOOL_SIZE=64 node
/**
 * vfiod. Calls that may sleep in the kernel each take a thread of the pool, whose size is fixed when
 * it is first used: so it is set before anything is imported, and for Node 20, which has used it by
 * then, in the line above and in the unit file.
 */
process.env.UV_THREADPOOL_SIZE ??= '64'
const { main } = await import('./run.ts')
process.exit(await main(process.argv))
