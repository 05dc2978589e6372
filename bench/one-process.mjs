/**
 * The daemon with its fronts inside its own process, where any client can end it: what the processes cost is
 * measured against it. Everything else is dist/daemon/main.js.
 */
process.env.UV_THREADPOOL_SIZE ??= '64'
const { main } = await import('../dist/daemon/run.js')
const { startInside } = await import('../dist/front/inside.js')
process.exit(await main(process.argv, () => ({ runAs: 'this process', start: startInside })))
