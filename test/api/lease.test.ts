// How long the things of a client on another host last: for as long as it is heard of, and not
// longer. The clock of the daemon stands still until a test moves it.

import { credentials } from '@grpc/grpc-js'
import {
  afterAll,
  afterEach,
  beforeAll,
  describe as describeAlways,
  expect,
  test as testAlways,
  vi,
} from 'vitest'
import { Chunk, HEAD_ROOM } from '../../src/base/chunk.ts'
import { connect, type VfiodClient } from '../../src/client/client.ts'
import type { Domain } from '../../src/domain/domain.ts'
import type { InventoryEvent } from '../../src/domain/host/inventory.ts'
import type { ReadEvent } from '../../src/domain/migration/migration.ts'
import type { Certificates } from '../../src/link/records.ts'
import { Authority, lacksOpenssl } from './certificates.ts'
import { type Change, EVERYTHING, refusal, startServer, type TestServer, until } from './server.ts'

// The titles of skipped tests tell what was not tried.
const describe = lacksOpenssl ? describeAlways.skip : describeAlways
const test = lacksOpenssl ? testAlways.skip : testAlways

const LEASE_MS = 10_000
/** Less than a lease; two of them are more. */
const MOST_OF_IT = 7500
const NAME = 'spiffe://host-b'

let authority: Authority
let certificates: Certificates
let server: TestServer
const clients: VfiodClient[] = []

beforeAll(() => {
  if (lacksOpenssl) return
  authority = new Authority()
  certificates = authority.issue(`URI:${NAME},DNS:localhost`)
})
afterAll(() => authority?.remove())
afterEach(async () => {
  vi.useRealTimers()
  for (const client of clients.splice(0)) client.close()
  await server?.stop()
})

const connected = async (): Promise<VfiodClient> => {
  const { ca, cert, key } = certificates
  const client = connect({
    address: `localhost:${server.api.remotePort}`,
    credentials: credentials.createSsl(Buffer.from(ca), Buffer.from(key), Buffer.from(cert)),
  })
  clients.push(client)
  await new Promise<void>((resolve, reject) => {
    const ready = (error?: Error) => (error ? reject(error) : resolve())
    client.channel.waitForReady(Date.now() + 10_000, ready)
  })
  return client
}

/** A connected client, and a clock that stands from before its first call. */
const started = async (change: Change = {}): Promise<VfiodClient> => {
  const remote = { host: '127.0.0.1', port: 0, certificates, leaseMs: LEASE_MS }
  server = await startServer(change, { grantOf: () => EVERYTHING, remote })
  const client = await connected()
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
  await client.addressSpace.createSpace({ spaceId: 'leased' })
  return client
}

const isKept = (): boolean => server.domain.spaces.list().some(({ id }) => id === 'leased')

const released = () =>
  server.lines.filter(({ fields }) => fields.refusal !== undefined).map(({ fields }) => fields)

describe('a lease', () => {
  test('is renewed by every call, over new connections too', async () => {
    await started()
    vi.useRealTimers()
    const again = await connected()
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
    for (let n = 0; n < 5; n += 1) {
      expect((await again.ownership.keepAlive()).leaseMs).toBe(LEASE_MS)
      await vi.advanceTimersByTimeAsync(MOST_OF_IT)
    }

    const { spaces } = await again.addressSpace.listSpaces()

    expect(spaces).toMatchObject([{ spaceId: 'leased' }])
  })

  test('that runs out releases everything, and events say so and why', async () => {
    const client = await started()
    const watching = server.client().ownership.watchEvents()
    const events = watching[Symbol.asyncIterator]()
    expect((await events.next()).value).toMatchObject({ watching: true })
    await client.ownership.keepAlive()

    await vi.advanceTimersByTimeAsync(LEASE_MS - 1)
    expect(isKept()).toBe(true)
    await vi.advanceTimersByTimeAsync(1)
    await until(() => !isKept())

    const { value: expired } = await events.next()
    expect(expired.happened).toMatchObject({
      kind: 'EVENT_KIND_LEASE_EXPIRED',
      client: `remote ${NAME}`,
      spaces: 1,
    })
    const { value } = await events.next()
    expect(value.happened).toMatchObject({
      kind: 'EVENT_KIND_RELEASED',
      client: `remote ${NAME}`,
      why: 'its lease ran out',
    })
    watching.cancel()
  })

  test('that ran out lets the client in again once all is released, under the same id', async () => {
    let finish = (): void => undefined
    const held = new Promise<void>((resolve) => {
      finish = resolve
    })
    const client = await started({ expireLease: () => held })
    const { clientId } = await client.ownership.whoAmI()
    await vi.advanceTimersByTimeAsync(LEASE_MS)
    await until(() => server.api.connections.size > 0)
    for (let turn = 0; turn < 4; turn += 1) await new Promise(setImmediate)

    const early = await refusal(client.ownership.whoAmI())
    finish()
    let again: unknown
    await until(() => {
      void client.ownership.whoAmI().then(
        (who) => {
          again = who.clientId
        },
        () => undefined,
      )
      return again !== undefined
    })

    expect(early).toMatchObject({ status: 'UNAVAILABLE', reason: 'RELEASING' })
    expect(again).toBe(clientId)
  })

  test('does not run while the daemon is at work on a call, however long that takes', async () => {
    let finish = (_groups: []): void => undefined
    let isBegun = false
    const groups = () =>
      new Promise<[]>((resolve) => {
        finish = resolve
        isBegun = true
      })
    const client = await started({ inventory: { groups, whyEmpty: () => 'it is a test' } })
    const call = client.inventory.listGroups()
    await until(() => isBegun)

    await vi.advanceTimersByTimeAsync(LEASE_MS * 5)

    expect(isKept()).toBe(true)
    finish([])
    await call
    await vi.advanceTimersByTimeAsync(LEASE_MS)
    await until(() => !isKept())
  })

  test('is not renewed by messages of a watch: no process may be reading them', async () => {
    let poke = (): void => undefined
    let sent = 0
    async function* watch(): AsyncGenerator<InventoryEvent, void> {
      for (;;) {
        yield { kind: 'removed', group: 5 }
        sent += 1
        await new Promise<void>((resolve) => {
          poke = resolve
        })
      }
    }
    const client = await started({ inventory: { watch } })
    const watching = (async () => {
      for await (const _ of client.inventory.watchGroups());
    })()
    const ended = refusal(watching)
    await until(() => sent === 1)

    await vi.advanceTimersByTimeAsync(MOST_OF_IT)
    poke()
    await until(() => sent === 2)
    await vi.advanceTimersByTimeAsync(MOST_OF_IT)

    await until(() => !isKept())
    poke()
    expect(await ended).toMatchObject({ reason: 'CANCELLED' })
  })
})

describe('an upload', () => {
  let taken = 0
  let isEnded = false
  /** What the device takes its time for. */
  let work: Promise<void> | undefined
  const write: Domain['migration']['write'] = async (_client, messages) => {
    taken = 0
    isEnded = false
    try {
      for await (const _message of messages) {
        taken += 1
        await work
      }
    } finally {
      isEnded = true
    }
    return { sessionId: 1, totalBytes: 0n }
  }

  /** Sends a message at each call. */
  const upload = (client: VfiodClient) => {
    const waiting: (() => void)[] = []
    let sent = 0
    async function* requests() {
      for (;;) {
        await new Promise<void>((resolve) => waiting.push(resolve))
        yield { name: 'x', data: Buffer.alloc(1000) }
      }
    }
    const answer = refusal(client.migration.writeSession(requests()))
    const send = async () => {
      sent += 1
      await until(() => waiting.length > 0)
      waiting.shift()?.()
      await until(() => taken === sent)
    }
    return { send, answer }
  }

  test('keeps the lease while its bytes flow; stalled, it ends with it, and says why', async () => {
    work = undefined
    const client = await started({ migration: { write } })
    const { send, answer } = upload(client)
    for (let n = 0; n < 6; n += 1) {
      await send()
      await vi.advanceTimersByTimeAsync(MOST_OF_IT)
    }
    expect(isKept()).toBe(true)

    await vi.advanceTimersByTimeAsync(LEASE_MS - MOST_OF_IT)
    await until(() => !isKept())

    await until(() => isEnded)
    expect(await answer).toMatchObject({ status: 'CANCELLED', reason: 'CANCELLED' })
    expect(released().at(-1)?.refusal).toContain('its lease ran out')
  })

  test('keeps the lease while the device takes its time over a message', async () => {
    let finish = (): void => undefined
    work = new Promise((resolve) => {
      finish = resolve
    })
    const client = await started({ migration: { write } })
    const { send } = upload(client)
    await send()

    await vi.advanceTimersByTimeAsync(LEASE_MS * 5)
    expect(isKept()).toBe(true)

    finish()
    await send()
    await vi.advanceTimersByTimeAsync(LEASE_MS)
    await until(() => !isKept())
  })
})

describe('a download', () => {
  const length = 1 << 20
  let given = 0
  let isEnded = false
  /** How many chunks the device has; more come as the test raises it. */
  let available = 0
  async function* read(
    _client: unknown,
    _request: unknown,
    signal: AbortSignal,
  ): AsyncGenerator<ReadEvent, void> {
    try {
      for (given = 0; !signal.aborted; given += 1) {
        await until(() => given < available || signal.aborted)
        const offset = BigInt(given * length)
        const buffer = Buffer.alloc(HEAD_ROOM + length)
        yield { kind: 'data', chunk: new Chunk({ buffer, headRoom: HEAD_ROOM, length, offset }) }
      }
    } finally {
      isEnded = true
    }
  }

  test('keeps the lease while its bytes flow', async () => {
    const client = await started({ migration: { read } })
    available = 0
    let received = 0
    const reading = (async () => {
      for await (const _message of client.migration.readSession({ name: 'x' })) received += 1
    })()
    const ended = refusal(reading)
    for (let n = 1; n <= 6; n += 1) {
      available = n
      await until(() => received === n && given === n)
      await vi.advanceTimersByTimeAsync(MOST_OF_IT)
    }

    expect(isKept()).toBe(true)
    await vi.advanceTimersByTimeAsync(LEASE_MS - MOST_OF_IT)
    await until(() => !isKept())
    expect(await ended).toMatchObject({ status: 'CANCELLED', reason: 'CANCELLED' })
  })

  test('that its client no longer reads loses it a lease after the last bytes went', async () => {
    const client = await started({ migration: { read } })
    available = Number.POSITIVE_INFINITY
    isEnded = false
    const reading = client.migration.readSession({ name: 'x' })[Symbol.asyncIterator]()
    await reading.next()
    // Until the windows and buffers on the way are full, bytes go without anybody reading them.
    let [seen, since] = [given, performance.now()]
    while (isKept()) {
      await vi.advanceTimersByTimeAsync(LEASE_MS / 10)
      for (let turn = 0; turn < 50; turn += 1) await new Promise(setImmediate)
      if (given > seen) [seen, since] = [given, performance.now()]
    }

    expect(performance.now() - since).toBeLessThanOrEqual(LEASE_MS * 1.2)
    expect(seen * length).toBeLessThan(64 << 20)
    await until(() => isEnded)
  })
})
