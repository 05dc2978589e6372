/**
 * Whether native code of Node ends the daemon. Junk of HTTP/2 and TLS from one seed after another, on
 * one daemon whose garbage is collected eagerly: `npm run soak:junk` does 2,000 runs, VFIOD_RUNS as many
 * as it says. VFIOD_SEED is the first seed, VFIOD_NODE the Node that the daemon runs on.
 */

import { connect as connectSocket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { expect, test, vi } from 'vitest'
import { connect } from '../../src/client/client.ts'
import { Authority, lacksOpenssl } from '../api/certificates.ts'
import { until } from '../system/world.ts'
import { SoakDaemon, seed } from './daemon.ts'
import { http2Junk } from './fuzz-bytes.ts'
import { handshakeJunk, listening, POLICY, REMOTE, recordedAt, throwAt } from './junk.ts'
import { Random } from './random.mjs'

const EAGER_GC = new URL('./eager-gc.mjs', import.meta.url).pathname
const RUNS = Number(process.env.VFIOD_RUNS ?? 3)
/** What a run is: connections of each kind, as many as in fuzz.test.ts; some at a time. */
const PLAIN = 120
const NO_HANDSHAKE = 40
const OVER_TLS = 40
const AT_ONCE = 8
vi.setConfig({ testTimeout: 60_000 + RUNS * 10_000 })

const hint = `VFIOD_SEED=${seed}`

/** Do it `count` times, some at a time. */
const times = async (count: number, work: () => Promise<void>): Promise<void> => {
  let left = count
  const worker = async () => {
    while (left > 0) {
      left -= 1
      await work()
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
}

test.skipIf(lacksOpenssl)(
  `${RUNS} runs of junk end no daemon that collects its garbage eagerly (it needs openssl)`,
  async () => {
    const authority = new Authority()
    const tls = authority.issue(`URI:${REMOTE},DNS:localhost`)
    const daemon = await SoakDaemon.start(listening(authority.directory, tls), POLICY, [EAGER_GC])
    const port = Number(await until(() => /"remotePort":(\d+)/.exec(daemon.output)?.[1]))
    const client = connect({ socket: daemon.socket })
    const recorded = await recordedAt(daemon)
    const options = { host: '127.0.0.1', port, servername: 'localhost', ALPNProtocols: ['h2'] }

    for (let run = 0; run < RUNS; run += 1) {
      const random = new Random(seed + run)
      const aTurn = () => new Promise((resolve) => setImmediate(resolve))
      await times(PLAIN, () =>
        throwAt(connectSocket(daemon.socket), random, http2Junk(random, recorded), aTurn),
      )
      await times(NO_HANDSHAKE, () =>
        throwAt(connectSocket(port, '127.0.0.1'), random, handshakeJunk(random), aTurn),
      )
      await times(OVER_TLS, () =>
        throwAt(connectTls({ ...options, ...tls }), random, http2Junk(random, recorded), aTurn),
      )
      expect(daemon.isAlive, `${hint}, run ${run}\n${daemon.output.slice(-4000)}`).toBe(true)
      expect((await client.ownership.whoAmI()).pid, hint).toBe(process.pid)
      if ((run + 1) % 100 === 0) console.log(`${run + 1} runs`)
    }

    expect(daemon.mistakes(), hint).toEqual([])
    client.close()
    expect(await daemon.stop(), daemon.output.slice(-4000)).toBe(0)
    authority.remove()
  },
)
