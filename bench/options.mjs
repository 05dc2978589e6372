/** What `npm run bench -- ...` accepts, and how much is measured: two scales of the same bench. */
import { parseArgs } from 'node:util'

export const USAGE = `usage: npm run bench -- [sim] [--smoke] [--no-peer] [--out FILE]

  sim         measures the simulator alone: requests by how many mappings there are

  --smoke     tiny counts and no C++ peer: proves that every row can be measured, measures nothing
  --no-peer   leaves the C++ peer out, and every row that has no other
  --out FILE  where to write the JSON; bench/out/bench-<date>.json when not given`

const MIB = 1 << 20

const FULL = {
  rounds: 15,
  /** When to be content with fewer rounds; see rounds.mjs. */
  sectionMs: 24_000,
  /** How long a unary measurement lasts. */
  unaryMs: 500,
  /** Calls in flight for the rate under load. */
  inFlight: 16,
  /** Calls with one item each. */
  singleCalls: 500,
  batchItems: 512,
  batchCalls: 8,
  sessionBytes: 128 * MIB,
  bigMapBytes: 4096 * MIB,
  bigMapRounds: 4,
}

const SMOKE = {
  rounds: 1,
  sectionMs: 1000,
  unaryMs: 20,
  inFlight: 4,
  singleCalls: 8,
  batchItems: 8,
  batchCalls: 2,
  sessionBytes: 8 * MIB,
  bigMapBytes: 256 * MIB,
  bigMapRounds: 1,
}

export const readOptions = (args) => {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      smoke: { type: 'boolean', default: false },
      'no-peer': { type: 'boolean', default: false },
      out: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  const { smoke, help, out } = values
  const [what, ...more] = positionals
  if ((what !== undefined && what !== 'sim') || more.length > 0) throw new Error(USAGE)
  return {
    isSim: what === 'sim',
    help,
    smoke,
    out,
    withPeer: !smoke && !values['no-peer'],
    scale: smoke ? SMOKE : FULL,
  }
}
