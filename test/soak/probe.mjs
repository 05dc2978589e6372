// Preloaded into the daemon (node --expose-gc --import): on SIGUSR2 it collects garbage and says how
// much memory is in use, so that what is left is what is held.
process.on('SIGUSR2', async () => {
  for (let round = 0; round < 4; round += 1) {
    globalThis.gc()
    await new Promise((resolve) => setImmediate(resolve))
  }
  const { heapUsed, external, rss } = process.memoryUsage()
  process.stdout.write(`probe ${JSON.stringify({ used: heapUsed + external, rss })}\n`)
})
