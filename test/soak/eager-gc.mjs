// Preloaded into a daemon that junk is thrown at: garbage is collected in the middle of what its
// connections do, where a collection otherwise comes by chance, and connections may come at any rate.
import { createHook } from 'node:async_hooks'
import { LIMITS } from '../../dist/base/limits.js'
import { Random } from './random.mjs'

/** A collection takes longer than what it interrupts. */
const ONE_IN = 300

LIMITS.connectionsPerSecond = 1e9
LIMITS.connectionsAtOnce = 1e9

const random = new Random(Number(process.env.VFIOD_SEED ?? 1))
const collect = () => {
  if (random.below(ONE_IN) === 0) globalThis.gc({ type: random.below(2) === 0 ? 'minor' : 'major' })
}
createHook({ before: collect, after: collect }).enable()
