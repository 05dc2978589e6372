/**
 * Junk on every door of the daemon: HTTP/2 and protobuf on the Unix socket and on the TLS port,
 * packets and files of every kind on the fd channel. It stays alive, says why it refuses, and keeps
 * nothing. VFIOD_SEED repeats a run; `npm run soak` makes it longer.
 */

import { connect as connectSocket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { type Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { REASONS } from '../../src/base/error.ts'
import { connect, type VfiodClient } from '../../src/client/client.ts'
import { toRpcError } from '../../src/client/rpc-error.ts'
import type { Certificates } from '../../src/link/records.ts'
import { methodsOf, type ServiceName, services } from '../../src/wire/protos.ts'
import { Authority, lacksOpenssl } from '../api/certificates.ts'
import { until } from '../system/world.ts'
import { isLong, SoakDaemon, seed } from './daemon.ts'
import { http2Junk, mutated, randomMessage } from './fuzz-bytes.ts'
import { FdPool, junkPacket } from './fuzz-fds.ts'
import { handshakeJunk, listening, POLICY, REMOTE, recordedAt, throwAt } from './junk.ts'
import { Random } from './random.mjs'

const FACTOR = isLong ? 20 : 1
if (isLong) vi.setConfig({ testTimeout: 600_000 })

const hint = `VFIOD_SEED=${seed}`

let daemon: SoakDaemon
let client: VfiodClient
let authority: Authority
let certificates: Certificates
let port = 0
let recorded: Buffer
let before: string[]

const remote = (): VfiodClient => {
  const { ca, cert, key } = certificates
  const tls = credentials.createSsl(Buffer.from(ca), Buffer.from(key), Buffer.from(cert))
  return connect({ address: `localhost:${port}`, credentials: tls })
}

/** The daemon answers a good client as if nothing had happened. */
const isWell = async (): Promise<void> => {
  expect(daemon.isAlive, `${hint}\n${daemon.output.slice(-2000)}`).toBe(true)
  expect((await client.ownership.whoAmI()).pid, hint).toBe(process.pid)
}

/** What all clients have: `3 mappings`. */
const inUse = async (): Promise<string[]> => {
  const { usage } = await client.admin.getUsage()
  return usage.flatMap(({ name, current }) => (current === '0' ? [] : [`${current} ${name}`]))
}

/** Everything of ours is released, and the fds are those of the start. */
const nothingIsKept = async (): Promise<void> => {
  await until(async () => {
    const { clientId: own } = await client.ownership.whoAmI()
    const { clients } = await client.admin.listClients()
    for (const { clientId } of clients) if (clientId !== own) return false
    return true
  })
  await client.admin.releaseClient({ clientId: (await client.ownership.whoAmI()).clientId })
  await expect
    .poll(inUse, { timeout: 10_000, message: hint })
    .toEqual(['1 connections', '1 processes'])
  await expect.poll(() => daemon.fds(), { timeout: 10_000, message: hint }).toEqual(before)
  expect(daemon.mistakes(), hint).toEqual([])
}

beforeAll(async () => {
  let tls = ''
  if (!lacksOpenssl) {
    authority = new Authority()
    certificates = authority.issue(`URI:${REMOTE},DNS:localhost`)
    tls = listening(authority.directory, certificates)
  }
  daemon = await SoakDaemon.start(tls, POLICY)
  if (!lacksOpenssl) port = Number(await until(() => /"remotePort":(\d+)/.exec(daemon.output)?.[1]))
  client = connect({ socket: daemon.socket })
  await isWell()
  // The front of remote clients is there from their first connection on.
  if (!lacksOpenssl) {
    const far = remote()
    await far.inventory.listGroups()
    far.close()
    // The owner closes its side of a connection when the front has closed its own.
    await until(async () => (await inUse()).includes('1 connections'))
  }
  before = daemon.fds()
  recorded = await recordedAt(daemon)
  await client.memory.releaseMemory({ memoryId: 'fuzz' })
})
afterAll(async () => {
  client?.close()
  expect(await daemon.stop(), daemon.output).toBe(0)
  authority?.remove()
})

describe('junk on the Unix socket', () => {
  test('of HTTP/2, and of nothing at all, costs its connection and no other', async () => {
    const random = new Random(seed)
    for (let round = 0; round < 120 * FACTOR; round += 1)
      await throwAt(connectSocket(daemon.socket), random, http2Junk(random, recorded), isWell)
    await nothingIsKept()
  })
})

describe.skipIf(lacksOpenssl)('junk on the TLS port (skipped: it needs openssl)', () => {
  test('instead of a handshake is not a client: the connection is closed', async () => {
    const random = new Random(seed + 1)
    for (let round = 0; round < 40 * FACTOR; round += 1) {
      const junk = handshakeJunk(random)
      await throwAt(connectSocket(port, '127.0.0.1'), random, junk, isWell)
    }
    await nothingIsKept()
  })

  test('of HTTP/2 from a client with a certificate costs its connection', async () => {
    const random = new Random(seed + 2)
    for (let round = 0; round < 40 * FACTOR; round += 1) {
      const options = { host: '127.0.0.1', port, servername: 'localhost', ALPNProtocols: ['h2'] }
      const socket = connectTls({ ...options, ...certificates })
      await throwAt(socket, random, http2Junk(random, recorded), isWell)
    }
    await nothingIsKept()
  })
})

const EVERY_METHOD = (Object.keys(services) as ServiceName[]).flatMap((service) =>
  methodsOf(service),
)
/** Drain ends the daemon, as it should: it is tried on daemons of its own. */
const METHODS = EVERY_METHOD.filter(([name]) => name !== 'Drain')

/** One call with these bytes as its message: its error, if it had one. A stream is cut short. */
const callWith = (
  channel: Client,
  [, method]: (typeof METHODS)[number],
  bytes: Buffer,
): Promise<ServiceError | undefined> =>
  new Promise((resolve) => {
    const asIs = (value: Buffer) => value
    const done = (error: ServiceError | null) => resolve(error ?? undefined)
    const options = { deadline: Date.now() + 20_000 }
    const { path } = method
    if (method.responseStream) {
      const call = channel.makeServerStreamRequest(path, asIs, asIs, bytes, options)
      call.on('error', done)
      call.once('end', () => done(null))
      call.once('data', () => {
        done(null)
        call.cancel()
      })
    } else if (method.requestStream) {
      const head = new Metadata()
      const call = channel.makeClientStreamRequest(path, asIs, asIs, head, options, done)
      call.on('error', () => undefined)
      call.write(bytes)
      call.end()
    } else channel.makeUnaryRequest(path, asIs, asIs, bytes, new Metadata(), options, done)
  })

const isDecodable = ([, method]: (typeof METHODS)[number], bytes: Buffer): boolean => {
  try {
    method.requestDeserialize(bytes)
    return true
  } catch {
    return false
  }
}

/** Calls of any method with any message; each refusal that says too little. */
async function unexplained(
  channel: Client,
  random: Random,
  rounds: number,
  methods = METHODS,
): Promise<string[]> {
  const { devices } = await client.inventory.listDevices()
  const names = ['vm', 'fuzz', '*', '', ...devices.map(({ name }) => name)]
  const found: string[] = []
  for (let round = 0; round < rounds; round += 1) {
    const method = random.pick(methods)
    const [name, { requestType, requestSerialize, path }] = method
    const message = randomMessage(random, requestType, names)
    const whole = Buffer.from(requestSerialize(message))
    const bytes = random.below(3) === 0 ? mutated(random, whole) : whole
    const error = await callWith(channel, method, bytes)
    // A fault may hold every call back until it is cleared: then the rounds after it try nothing.
    if (error === undefined && name === 'InjectFault') await client.simulator.clearFaults()
    if (error === undefined) continue
    const { reason, message: text } = toRpcError(path.slice(1), error)
    const isRefused = reason in REASONS && reason !== 'BUG' && text.length > 0
    // A daemon that drains does not read what it is asked.
    const isExplained =
      isDecodable(method, bytes) || reason === 'DRAINING'
        ? isRefused
        : reason === 'BAD_ARGUMENT' && text.startsWith('Cannot decode the request: ')
    const shown = `${name} ${bytes.toString('hex')}: ${error.code} ${reason}: ${text}`
    if (!isExplained) found.push(shown)
  }
  return found
}

describe('random and mutated messages', () => {
  test('on the Unix socket are done or refused with a reason', async () => {
    const channel = client.channel
    expect(await unexplained(channel, new Random(seed + 3), 400 * FACTOR), hint).toEqual([])
    await isWell()
    await nothingIsKept()
  })

  test.skipIf(lacksOpenssl)('on the TLS port are done or refused with a reason', async () => {
    const far = remote()
    expect(await unexplained(far.channel, new Random(seed + 4), 200 * FACTOR), hint).toEqual([])
    // What it offered to hand over would wait for a taker: a new offer voids the others.
    await far.ownership.handOver({ deadlineMs: 1 })
    far.close()
    await isWell()
    await nothingIsKept()
  })
})

describe('Drain with junk', () => {
  const drain = EVERY_METHOD.filter(([name]) => name === 'Drain')

  /** An unknown field, which a message may have; a wire type that there is not, which none may. */
  const unknownField = (random: Random): Buffer => {
    const bytes = random.bytes(random.below(100))
    return Buffer.concat([Buffer.from([0x7a, bytes.length]), bytes])
  }
  const undecodable = (random: Random): Buffer =>
    Buffer.concat([unknownField(random), Buffer.from([0x0f]), random.bytes(random.below(20))])

  test('that is not a message ends nothing; that is one ends the daemon, and every call with a reason', async () => {
    const random = new Random(seed + 6)
    const [method] = drain
    if (method === undefined) throw new Error('there is no Drain')
    for (let round = 0; round < FACTOR; round += 1) {
      const own = await SoakDaemon.start('drain_ms = 5000\n', POLICY)
      const mine = connect({ socket: own.socket })
      for (let n = 0; n < 20; n += 1) {
        const error = await callWith(mine.channel, method, undecodable(random))
        expect(toRpcError(method[1].path, error as ServiceError).reason, hint).toBe('BAD_ARGUMENT')
      }
      expect((await mine.ownership.whoAmI()).pid, hint).toBe(process.pid)
      const others = unexplained(mine.channel, random, 60)

      expect(await callWith(mine.channel, method, unknownField(random)), hint).toBeUndefined()

      // Once the socket is gone there is nobody left to give a reason.
      const untold = (await others).filter((text) => !/: 14 : /.test(text))
      expect(untold, hint).toEqual([])
      await until(() => !own.isAlive)
      expect(own.child.exitCode, own.output).toBe(0)
      expect(own.mistakes(), hint).toEqual([])
      mine.close()
      await own.stop()
    }
  })
})

describe('junk on the fd channel', () => {
  test('is refused or taken, whatever kind of file it is; nothing of it stays open', async () => {
    const random = new Random(seed + 5)
    const pool = new FdPool(daemon)
    const refusals: string[] = []
    for (let round = 0; round < 150 * FACTOR; round += 1) {
      const { ticket } = await client.memory
        .registerMemory({ memoryId: `fuzz-${round % 7}` })
        .catch(() => ({ ticket: null }))
      const answer = await junkPacket(daemon, pool, random, ticket?.ticket ?? '')
      if (answer.ok === true) await client.memory.releaseMemory({ memoryId: answer.memoryId })
      else refusals.push(`${answer.reason}: ${answer.message}`)
    }
    pool.close()
    expect(
      refusals.filter((text) => !/^(BAD_TICKET|BAD_ARGUMENT|BAD_RANGE): Cannot /.test(text)),
    ).toEqual([])
    await isWell()
    await nothingIsKept()
  })
})
