/**
 * npm run demo: a daemon on a simulated machine, and clients that use it over real gRPC. Each step
 * shows what the daemon answers and checks it; the first surprise ends the demo with exit code 1.
 * Read the files of steps/ in this order for how a client works.
 */
import { connect } from '../client/client.ts'
import { Daemon } from './daemon.ts'
import { Mismatch, Narrator } from './narrator.ts'
import type { Stage } from './stage.ts'
import { outlive } from './steps/cleanup.ts'
import { copyByDma } from './steps/dma.ts'
import { findDevices } from './steps/inventory.ts'
import { forgetMemory, shareMemory } from './steps/memory.ts'
import { migrate } from './steps/migration.ts'
import { showRefusals } from './steps/refusals.ts'
import { remap } from './steps/remap.ts'

/** The demo takes a few seconds; a machine that needs longer than this does not answer at all. */
const DEADLINE_MS = 120_000

const play = async (stage: Stage): Promise<void> => {
  const [edu, otherEdu] = await findDevices(stage)
  const memory = await shareMemory(stage, edu)
  const driver = await copyByDma(stage, edu, memory)
  await remap(stage, driver, memory)
  await driver.stop()
  await migrate(stage)
  await showRefusals(stage, memory)
  await outlive(stage, otherEdu)
  forgetMemory(memory)
}

const fail = (why: string): never => {
  console.error(`\nvfiod demo: ${why}`)
  process.exit(1)
}

// The name that the daemon's messages give this client.
process.title = 'demo'
process.stdout.once('error', () => fail('its output is closed'))
const daemon = new Daemon()
// However it ends, it leaves nothing behind.
process.once('exit', () => daemon.kill())
const deadline = setTimeout(() => fail(`no end after ${DEADLINE_MS} ms`), DEADLINE_MS)
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => fail(`stopped by ${signal}`))

const tell = new Narrator()
const client = connect({ socket: daemon.socket })
try {
  await daemon.ready
  tell.say(
    `vfiod runs as pid ${daemon.pid} on a simulated machine; its client is pid ${process.pid}`,
  )
  await play({ client, socket: daemon.socket, tell })
  client.close()
  const code = await daemon.stop()
  if (code !== 0) throw new Mismatch('the daemon ends well', { found: code, expected: 0 })
} catch (error) {
  const what = error instanceof Mismatch ? error.message : ((error as Error).stack ?? error)
  console.error(`\nThe end of the daemon's log:\n${daemon.lastLog()}`)
  fail(`${what}`)
}
clearTimeout(deadline)
tell.end([
  `vfiod demo: ${tell.steps} steps, ${tell.checks} checks, all as expected.`,
  'Next: docs/vfioctl.md to try it by hand, src/demo/steps for the code of each step.',
])
