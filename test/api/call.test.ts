// What happens around every call: errors, the log, cancellation, back pressure, draining.

import { connect as connectHttp2 } from 'node:http2'
import { connect as connectSocket } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { Chunk, HEAD_ROOM } from '../../src/base/chunk.ts'
import { VfiodError } from '../../src/base/error.ts'
import { LIMITS } from '../../src/base/limits.ts'
import type { Domain } from '../../src/domain/domain.ts'
import type { InventoryEvent } from '../../src/domain/host/inventory.ts'
import type { ReadEvent } from '../../src/domain/migration/migration.ts'
import { refusal, startServer, type TestServer, until } from './server.ts'

let server: TestServer
afterEach(() => server.stop())

/** What the death of a client looks like from here. */
const breakConnections = ({ sockets }: TestServer): void => {
  for (const socket of sockets()) socket.destroy()
}

const calls = () => server.lines.filter(({ fields }) => 'method' in fields)

describe('a call', () => {
  test('that succeeds is one line in the log: method, client, time', async () => {
    server = await startServer()

    await server.client().inventory.listGroups()

    expect(calls()).toHaveLength(1)
    expect(calls()[0]).toMatchObject({
      level: 'debug',
      fields: {
        method: 'vfiod.v1.InventoryService/ListGroups',
        client: expect.any(String),
        ms: expect.any(Number),
      },
    })
  })

  test('that is refused is one line in the log, with reason and errno', async () => {
    const refuse = () => {
      throw new VfiodError('GROUP_IN_USE', 'Cannot open', { errno: 'EBUSY', op: 'open' })
    }
    server = await startServer({ inventory: { groups: refuse } })

    await refusal(server.client().inventory.listGroups())

    expect(calls()).toHaveLength(1)
    expect(calls()[0]?.fields).toMatchObject({ reason: 'GROUP_IN_USE', errno: 'EBUSY' })
  })

  test.each([
    ['EBUSY', 16],
    ['EINVAL', 22],
    ['EPERM', 1],
    ['EAGAIN', 11],
  ])('that fails with %s as its numeric code is INTERNAL, not status %i', async (_name, code) => {
    const fail = () => Promise.reject(Object.assign(new Error('/root/secret'), { code }))
    server = await startServer({ inventory: { groups: fail } })

    const error = await refusal(server.client().inventory.listGroups())

    expect(error).toMatchObject({ status: 'INTERNAL', reason: 'BUG' })
    expect(String(error)).not.toContain('secret')
    expect(calls()[0]).toMatchObject({
      level: 'error',
      fields: { err: { message: '/root/secret', stack: expect.stringContaining('call.test.ts') } },
    })
  })

  test('of a no-IOMMU group says that it is not viable, and why', async () => {
    const group = { group: 3, isNoIommu: true, viability: 'viable', blockers: [], holders: [] }
    const groups = async () => [{ ...group, devices: [], spaceId: undefined }]
    server = await startServer({ inventory: { groups } })

    expect((await server.client().inventory.listGroups()).groups).toMatchObject([
      {
        viability: 'VIABILITY_NOT_VIABLE',
        blockers: [{ subject: 'group 3', fix: expect.stringContaining('switch on the IOMMU') }],
      },
    ])
  })

  test('that fails with a value that is not an Error is INTERNAL as well', async () => {
    server = await startServer({ inventory: { groups: () => Promise.reject(7) } })

    const error = await refusal(server.client().inventory.listGroups())

    expect(error).toMatchObject({ status: 'INTERNAL', reason: 'BUG' })
  })

  test('that is refused tells blockers, field and owner to the client', async () => {
    const details = {
      blockers: [{ subject: '0000:01:00.1', found: 'bound to nvidia', fix: 'bind it to vfio-pci' }],
      field: 'group_id',
      resource: { type: 'group', name: '26', owner: 'pid 7' },
      quota: { limit: 'groups', max: 1n, current: 1n, needed: 1n },
      retryAfterMs: 250,
      op: 'VFIO_GROUP_SET_CONTAINER',
      errno: 'EPERM',
    }
    const refuse = () => Promise.reject(new VfiodError('GROUP_NOT_VIABLE', 'Cannot', details))
    server = await startServer({ inventory: { groups: refuse } })

    const error = await refusal(server.client().inventory.listGroups())

    expect(error).toMatchObject({
      status: 'FAILED_PRECONDITION',
      reason: 'GROUP_NOT_VIABLE',
      details,
    })
  })

  test('with a message that cannot be encoded is answered all the same', async () => {
    const refuse = () => Promise.reject(new VfiodError('BAD_ARGUMENT', `\ud800 ${'x'.repeat(1e5)}`))
    server = await startServer({ inventory: { groups: refuse } })

    const error = await refusal(server.client().inventory.listGroups())

    expect(error).toMatchObject({ status: 'INVALID_ARGUMENT', reason: 'BAD_ARGUMENT' })
  })
})

describe('a server stream', () => {
  test('that the client leaves aborts its source', async () => {
    let signal: AbortSignal | undefined
    async function* watch(
      _client: unknown,
      given: AbortSignal,
    ): AsyncGenerator<InventoryEvent, void> {
      signal = given
      yield { kind: 'present-sent' }
      await new Promise((resolve) => given.addEventListener('abort', resolve))
    }
    server = await startServer({ inventory: { watch } })

    for await (const _message of server.client().inventory.watchGroups()) break

    await until(() => signal?.aborted === true)
    await until(() => calls().length === 1)
    expect(calls()[0]?.fields).toMatchObject({ reason: 'CANCELLED' })
  })

  test('sends the messages before a refusal, then the refusal', async () => {
    async function* watch(): AsyncGenerator<InventoryEvent, void> {
      yield { kind: 'removed', group: 5 }
      throw new VfiodError('LIMIT_REACHED', 'Cannot go on')
    }
    server = await startServer({ inventory: { watch } })
    const seen: number[] = []

    const error = await refusal(
      (async () => {
        for await (const { removedGroupId } of server.client().inventory.watchGroups())
          seen.push(removedGroupId ?? -1)
      })(),
    )

    expect(seen).toEqual([5])
    expect(error).toMatchObject({ status: 'RESOURCE_EXHAUSTED', reason: 'LIMIT_REACHED' })
  })

  test('waits for a client that does not read, and takes up no more memory for it', async () => {
    let taken = 0
    async function* read(): AsyncGenerator<ReadEvent, void> {
      const buffer = Buffer.alloc(HEAD_ROOM + LIMITS.chunkBytes)
      for (;;) {
        const offset = BigInt(taken) * BigInt(LIMITS.chunkBytes)
        yield {
          kind: 'data',
          chunk: new Chunk({ buffer, headRoom: HEAD_ROOM, length: LIMITS.chunkBytes, offset }),
        }
        taken += 1
      }
    }
    server = await startServer({ migration: { read } })

    const messages = server.client().migration.readSession({ name: 'x' })

    // The client's queue of 16 messages, its window of 4 MiB, what the socket holds.
    await until(() => taken > 2)
    await new Promise((resolve) => setTimeout(resolve, 300))
    expect(taken).toBeLessThan(40)
    messages.cancel()
    await until(() => calls().length === 1)
  })

  test('hands a buffer back only when its bytes are being sent', async () => {
    const length = 200_000
    const buffers = [1, 2].map(() => Buffer.alloc(HEAD_ROOM + length))
    async function* read(): AsyncGenerator<ReadEvent, void> {
      for (let n = 0; n < 300; n += 1) {
        const buffer = buffers[n % 2] as Buffer
        buffer.fill(n & 0xff, HEAD_ROOM)
        yield {
          kind: 'data',
          chunk: new Chunk({ buffer, headRoom: HEAD_ROOM, length, offset: BigInt(n * length) }),
        }
        // What a source does that reads the next bytes into it.
        buffer.fill(0xee)
      }
      yield { kind: 'end', sessionId: 4, totalBytes: BigInt(300 * length), isComplete: true }
    }
    server = await startServer({ migration: { read } })

    let n = 0
    for await (const message of server.client().migration.readSession({ name: 'x' })) {
      if (message.end !== null) {
        expect(message.end).toEqual({
          sessionId: '4',
          totalBytes: String(300 * length),
          complete: true,
        })
        continue
      }
      expect(message.offset).toBe(String(n * length))
      expect(message.data.equals(Buffer.alloc(length, n & 0xff))).toBe(true)
      n += 1
    }
    expect(n).toBe(300)
  })
})

describe('a client stream', () => {
  test('arrives in order, in chunks that are not copied on the way out', async () => {
    const arrived: { offset: bigint; first: number | undefined; length: number }[] = []
    const write: Domain['migration']['write'] = async (_client, messages) => {
      for await (const { offset, data } of messages)
        arrived.push({ offset, first: data[0], length: data.length })
      return { sessionId: 2, totalBytes: 7n }
    }
    server = await startServer({ migration: { write } })
    const buffer = Buffer.alloc(HEAD_ROOM + 1000)
    async function* requests() {
      yield { name: 'x', offset: '0', data: Buffer.of(9) }
      for (let n = 0; n < 50; n += 1) {
        buffer.fill(n, HEAD_ROOM)
        yield new Chunk({ buffer, headRoom: HEAD_ROOM, length: 1000, offset: BigInt(1 + n * 1000) })
      }
    }

    const answer = await server.client().migration.writeSession(requests())

    expect(answer).toEqual({ sessionId: '2', totalBytes: '7' })
    expect(arrived).toHaveLength(51)
    expect(arrived[50]).toEqual({ offset: 49_001n, first: 49, length: 1000 })
  })

  test('that is refused while it is sent tells the client why', async () => {
    const write: Domain['migration']['write'] = async (_client, messages) => {
      for await (const { data } of messages)
        if (data.length > 0) throw new VfiodError('STATE_REFUSED_BY_DEVICE', 'Cannot take it')
      return { sessionId: 1, totalBytes: 0n }
    }
    server = await startServer({ migration: { write } })
    function* endless() {
      for (;;) yield { name: 'x', data: Buffer.alloc(100_000) }
    }

    const error = await refusal(server.client().migration.writeSession(endless()))

    expect(error).toMatchObject({ status: 'DATA_LOSS', reason: 'STATE_REFUSED_BY_DEVICE' })
  })

  describe('that breaks off', () => {
    let failure: unknown
    let hasBegun = false
    let hasEnded = false
    const write: Domain['migration']['write'] = async (_client, messages) => {
      try {
        for await (const _message of messages) hasBegun = true
      } catch (error) {
        failure = error
        throw error
      } finally {
        hasEnded = true
      }
      return { sessionId: 1, totalBytes: 0n }
    }
    async function* unfinished() {
      yield { name: 'x' }
      await new Promise(() => undefined)
    }
    beforeEach(() => {
      failure = undefined
      hasBegun = false
      hasEnded = false
    })

    test('with its connection never looks complete to its taker', async () => {
      server = await startServer({ migration: { write } })
      const refused = refusal(server.client().migration.writeSession(unfinished()))
      await until(() => hasBegun)

      breakConnections(server)

      expect(await refused).toMatchObject({ status: 'UNAVAILABLE' })
      await until(() => hasEnded)
      expect(failure).toMatchObject({ reason: 'CANCELLED' })
      await until(() => calls().length === 1)
      expect(calls()[0]?.fields).toMatchObject({ reason: 'CANCELLED' })
    })

    // A Node client that cancels sends the end of its stream and then the reset, so what the daemon
    // sees first may be the end: whoever wants to be sure compares the bytes in the answer.
    test('because the client cancels ends its taker, and is not answered', async () => {
      server = await startServer({ migration: { write } })
      const abort = new AbortController()
      const { signal } = abort
      const refused = refusal(server.client().migration.writeSession(unfinished(), { signal }))
      await until(() => hasBegun)

      abort.abort()

      expect(await refused).toMatchObject({ status: 'CANCELLED' })
      await until(() => hasEnded)
    })
  })

  test('has a window of 4 MiB for the call and for the connection, not of 64 KiB', async () => {
    server = await startServer()
    const session = connectHttp2('http://localhost', {
      createConnection: () => connectSocket(server.socket),
    })

    const settings = await new Promise<{ initialWindowSize?: number | undefined }>((resolve) =>
      session.once('remoteSettings', resolve),
    )

    expect(settings.initialWindowSize).toBe(4 << 20)
    await until(() => (session.state.remoteWindowSize ?? 0) >= 4 << 20)
    session.close()
  })
})

describe('draining', () => {
  test('refuses new calls with DRAINING, ends watches with it, and waits for the others', async () => {
    let finish = (_value: []): void => undefined
    let isRunning = false
    let isWatching = false
    const groups = () =>
      new Promise<[]>((resolve) => {
        isRunning = true
        finish = resolve
      })
    async function* watch(
      _client: unknown,
      signal: AbortSignal,
    ): AsyncGenerator<InventoryEvent, void> {
      yield { kind: 'present-sent' }
      isWatching = true
      await new Promise((resolve) => signal.addEventListener('abort', resolve))
    }
    server = await startServer({ inventory: { groups, watch, whyEmpty: () => 'it is a test' } })
    const client = server.client()
    const watching = (async () => {
      for await (const _message of client.inventory.watchGroups());
    })()
    const running = client.inventory.listGroups()
    const watchEnd = refusal(watching)
    await until(() => isRunning && isWatching)

    const drained = server.api.drain(5000)

    expect(await watchEnd).toMatchObject({ status: 'UNAVAILABLE', reason: 'DRAINING' })
    expect(await refusal(client.inventory.listDevices())).toMatchObject({ reason: 'DRAINING' })
    finish([])
    await expect(running).resolves.toEqual({ groups: [], whyEmpty: 'it is a test' })
    await drained
  })
})
