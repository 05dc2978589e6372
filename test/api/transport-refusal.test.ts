// What is refused before a handler runs explains itself as every refusal does: status, reason,
// details. The calls are made by hand, for no gRPC library would send such bytes.

import type { ClientHttp2Session } from 'node:http2'
import { gzipSync } from 'node:zlib'
import { status } from '@grpc/grpc-js'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { REASONS, type Reason } from '../../src/base/error.ts'
import { LIMITS } from '../../src/base/limits.ts'
import type { Domain } from '../../src/domain/domain.ts'
import type { Client } from '../../src/domain/identity/clients.ts'
import { methodsOf, type ServiceName, services } from '../../src/wire/protos.ts'
import { STATUS } from '../../src/wire/status.ts'
import { framed, openSession, rawCall } from './raw-call.ts'
import { startServer, type TestServer } from './server.ts'

const LIST = '/vfiod.v1.InventoryService/ListGroups'
const MAP = '/vfiod.v1.AddressSpaceService/Map'
const WATCH = '/vfiod.v1.InventoryService/WatchGroups'
const UPLOAD = '/vfiod.v1.MigrationService/WriteSession'
const HEALTH = '/grpc.health.v1.Health/Check'

/** A field of wire type 7, which there is none of. */
const UNDECODABLE = Buffer.from('0f', 'hex')

let server: TestServer
let session: ClientHttp2Session

beforeAll(async () => {
  server = await startServer()
  session = openSession(server.socket)
})
afterAll(async () => {
  session.destroy()
  await server.stop()
})

const CREATE_SPACE = '/vfiod.v1.AddressSpaceService/CreateSpace'

const rpcs = (Object.keys(services) as ServiceName[]).flatMap((service) => methodsOf(service))

describe('bytes that are not a message of the type of the method', () => {
  test.each(rpcs)('%s refuses: INVALID_ARGUMENT, BAD_ARGUMENT', async (_name, { path }) => {
    const answer = await rawCall(session, path, framed(UNDECODABLE))

    expect(answer).toMatchObject({ status: status.INVALID_ARGUMENT, reason: 'BAD_ARGUMENT' })
    expect(answer.message).toMatch(/^Cannot decode the request: .*; send a vfiod\.v1\.\w+$/)
    expect(answer.details?.field).toMatch(/^\w+Request$/)
  })

  test('are refused where a field ends beyond the message', async () => {
    const answer = await rawCall(session, CREATE_SPACE, framed(Buffer.from('0affffffff0f', 'hex')))

    expect(answer).toMatchObject({ status: status.INVALID_ARGUMENT, reason: 'BAD_ARGUMENT' })
    expect(answer.message).toContain('it ends in the middle of a field')
  })

  test('leave a line in the log that says who sent them', async () => {
    const from = server.lines.length
    await rawCall(session, MAP, framed(UNDECODABLE))

    expect(server.lines.slice(from)).toMatchObject([
      {
        message: 'call refused',
        fields: {
          method: MAP.slice(1),
          identity: `uid ${process.getuid?.()}`,
          reason: 'BAD_ARGUMENT',
        },
      },
    ])
  })

  test('are refused in the middle of a stream of good ones as well', async () => {
    let taken = 0
    const write: Domain['migration']['write'] = async (_client, messages) => {
      for await (const _message of messages) taken += 1
      return { sessionId: 1, totalBytes: 0n }
    }
    const patient = await startServer({ migration: { write } })
    const one = openSession(patient.socket)
    const good = framed(Buffer.from('0a0178', 'hex'))

    const answer = await rawCall(one, UPLOAD, Buffer.concat([good, good, framed(UNDECODABLE)]))

    expect(answer).toMatchObject({ status: status.INVALID_ARGUMENT, reason: 'BAD_ARGUMENT' })
    expect(taken).toBe(2)
    one.destroy()
    await patient.stop()
  })

  test('are refused by the services that are not vfiod’s, too', async () => {
    const answer = await rawCall(session, HEALTH, framed(UNDECODABLE))

    expect(answer).toMatchObject({ status: status.INVALID_ARGUMENT, reason: 'BAD_ARGUMENT' })
  })
})

describe('a method that does not exist', () => {
  test.each([
    { path: '/vfiod.v1.InventoryService/No' },
    { path: '/other.Service/ListGroups' },
    { path: '/' },
    { path: `/${'%c3%a4'.repeat(500)}/"\\` },
  ])('is UNIMPLEMENTED, UNSUPPORTED: $path', async ({ path }) => {
    const answer = await rawCall(session, path, framed(Buffer.of()))

    expect(answer).toMatchObject({ status: status.UNIMPLEMENTED, reason: 'UNSUPPORTED' })
    expect(answer.message).toContain('no such method')
  })

  test('is refused whatever is sent to it, and however much', async () => {
    const answer = await rawCall(session, '/other.Service/Upload', framed(Buffer.alloc(1 << 20)))

    expect(answer).toMatchObject({ status: status.UNIMPLEMENTED, reason: 'UNSUPPORTED' })
  })
})

describe('a message that is too large', () => {
  const max = BigInt(LIMITS.messageBytes)

  test.each([
    { path: LIST, max: BigInt(LIMITS.requestBytes) },
    { path: WATCH, max: BigInt(LIMITS.requestBytes) },
    { path: HEALTH, max: BigInt(LIMITS.requestBytes) },
    { path: UPLOAD, max: BigInt(LIMITS.messageBytes) },
    { path: MAP, max: BigInt(LIMITS.messageBytes) },
    { path: '/other.Service/Call', max: 0n },
  ])('is refused with the limit of the method and what it needs: $path', async ({ path, max }) => {
    const claimed = Number(max) + 1
    const answer = await rawCall(session, path, framed(Buffer.alloc(100), { claimed }))

    if (path.startsWith('/other')) expect(answer.reason).toBe('UNSUPPORTED')
    else {
      expect(answer).toMatchObject({ status: status.RESOURCE_EXHAUSTED, reason: 'LIMIT_REACHED' })
      expect(answer.details?.quota).toEqual({
        limit: 'bytes of one message',
        max,
        current: 0n,
        needed: max + 1n,
      })
    }
  })

  test('is not unpacked when it is packed small: UNSUPPORTED', async () => {
    const packed = gzipSync(Buffer.alloc(LIMITS.messageBytes * 2))
    const body = framed(packed, { compressed: 1 })
    const answer = await rawCall(session, LIST, body, { 'grpc-encoding': 'gzip' })

    expect(answer).toMatchObject({ status: status.UNIMPLEMENTED, reason: 'UNSUPPORTED' })
    expect(answer.message).toContain('send identity')
  })

  test('that the daemon would have to send is refused as well', async () => {
    const huge = { id: 'x'.repeat(LIMITS.messageBytes), length: 0n, mappings: 0 }
    const full = await startServer({
      memories: {
        list: (owner: Client) => [{ ...huge, owner, isAllocated: true, isSealed: true }],
        views: () => 1,
      },
    })
    const one = openSession(full.socket)

    const answer = await rawCall(one, '/vfiod.v1.MemoryService/ListMemory', framed(Buffer.of()))

    expect(answer).toMatchObject({ status: status.RESOURCE_EXHAUSTED, reason: 'LIMIT_REACHED' })
    expect(answer.details?.quota?.needed).toBeGreaterThan(max)
    one.destroy()
    await full.stop()
  })
})

describe('a call that breaks the rules of gRPC', () => {
  const encoded = (encoding: string) => ({ 'grpc-encoding': encoding })
  const packed = framed(Buffer.from('not packed'), { compressed: 1 })
  const faults: readonly {
    fault: string
    body: Buffer
    headers: Readonly<Record<string, string>>
    reason: Reason
  }[] = [
    {
      fault: 'an encoding that nobody knows',
      body: packed,
      headers: encoded('zebra'),
      reason: 'UNSUPPORTED',
    },
    {
      fault: 'bytes that cannot be unpacked',
      body: packed,
      headers: encoded('gzip'),
      reason: 'UNSUPPORTED',
    },
    {
      fault: 'a deadline that is none',
      body: framed(Buffer.of()),
      headers: { 'grpc-timeout': 'soon' },
      reason: 'BAD_ARGUMENT',
    },
    { fault: 'no message', body: Buffer.of(), headers: {}, reason: 'BAD_ARGUMENT' },
    {
      fault: 'half a message',
      body: framed(Buffer.of(), { claimed: 10 }),
      headers: {},
      reason: 'BAD_ARGUMENT',
    },
    {
      fault: 'two messages',
      body: Buffer.concat([framed(Buffer.of()), framed(Buffer.of())]),
      headers: {},
      reason: 'BAD_ARGUMENT',
    },
  ]

  describe.each(faults)('$fault', ({ body, headers, reason }) => {
    test.each([{ path: LIST }, { path: WATCH }])(
      `is refused with ${reason}: $path`,
      async ({ path }) => {
        const answer = await rawCall(session, path, body, headers)

        expect(answer).toMatchObject({ status: STATUS[reason], reason })
        expect(answer.message).toMatch(/^Cannot .*: .*; /)
      },
    )
  })

  test('leaves the daemon as it was', async () => {
    await expect(server.client().inventory.listGroups()).resolves.toBeDefined()
    expect(server.lines.filter(({ level }) => level === 'error')).toEqual([])
    const reasons = server.lines.flatMap(({ fields: { reason } }) => (reason ? [reason] : []))
    expect(reasons.filter((reason) => !(String(reason) in REASONS))).toEqual([])
  })
})
