// What a call costs before it is known that it may be made: its head, and not one byte of its body.
// Beside each attack a victim calls, and is answered.

import { type ClientHttp2Session, constants } from 'node:http2'
import { status } from '@grpc/grpc-js'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { GrantOf } from '../../src/api/identity/connection-peer.ts'
import { LIMITS } from '../../src/base/limits.ts'
import { canBeOthers, noOtherUsers } from '../other-users.ts'
import { ClientProcess } from './client-process.ts'
import { framed, openSession, rawCall } from './raw-call.ts'
import { EVERYTHING, startServer, type TestServer } from './server.ts'

const MAP = '/vfiod.v1.AddressSpaceService/Map'
const VICTIM = 20_003

let role: 'none' | 'operate' = 'none'
const grantOf: GrantOf = (identity) =>
  identity.kind === 'local' && identity.uid === VICTIM ? EVERYTHING : { ...EVERYTHING, role }

let server: TestServer
let session: ClientHttp2Session
beforeEach(async () => {
  role = 'none'
  server = await startServer({}, { grantOf })
  session = openSession(server.socket)
  session.on('error', () => undefined)
})
afterEach(async () => {
  vi.useRealTimers()
  session.destroy()
  await server.stop()
})

/** The status of a call of which only the head was sent. */
const headOnly = (path: string): Promise<{ code: number; sent: number }> =>
  new Promise((resolve) => {
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
    })
    stream.on('error', () => undefined)
    stream.on('response', (headers) => {
      resolve({ code: Number(headers['grpc-status']), sent: 0 })
      stream.close()
    })
  })

describe('a call', () => {
  test('without the role that it needs is refused before anything of it arrives', async () => {
    expect(await headOnly(MAP)).toEqual({ code: status.PERMISSION_DENIED, sent: 0 })
    expect(server.lines.at(-1)?.fields).toMatchObject({
      method: MAP.slice(1),
      identity: `uid ${process.getuid?.()}`,
      reason: 'ROLE_NEEDED',
      audit: true,
    })
  })

  test('beyond the rate is refused before anything of it arrives', async () => {
    await server.stop()
    const quota = { calls_per_second: 1n }
    server = await startServer({}, { grantOf: () => ({ ...EVERYTHING, quota }) })
    session = openSession(server.socket)
    await rawCall(session, MAP, framed(Buffer.of()))

    expect((await headOnly(MAP)).code).toBe(status.RESOURCE_EXHAUSTED)
  })

  test('with nothing but empty items is refused by their number, before one is made', async () => {
    role = 'operate'
    const bomb = Buffer.alloc(LIMITS.messageBytes - 16)
    for (let at = 0; at < bomb.length; at += 2) bomb[at] = 0x12

    const answer = await rawCall(session, MAP, framed(bomb))

    expect(answer).toMatchObject({ status: status.INVALID_ARGUMENT, reason: 'BATCH_TOO_LARGE' })
    expect(answer.message).toContain(`more than ${LIMITS.batchItems} items`)
  })

  test('with one item more than a batch may have is refused the same; a full batch is decoded', async () => {
    role = 'operate'
    const items = (count: number) => framed(Buffer.from('1200'.repeat(count), 'hex'))

    const full = await rawCall(session, MAP, items(LIMITS.batchItems))
    const more = await rawCall(session, MAP, items(LIMITS.batchItems + 1))

    expect(full.reason).not.toBe('BATCH_TOO_LARGE')
    expect(more.details?.quota).toMatchObject({ max: 8192n, needed: 8193n })
  })

  test('whose items are full of fields is refused by their number', async () => {
    role = 'operate'
    const item = Buffer.concat([
      Buffer.from('12d00f', 'hex'),
      Buffer.from('0800'.repeat(1000), 'hex'),
    ])

    const answer = await rawCall(session, MAP, framed(Buffer.concat(Array(100).fill(item))))

    expect(answer).toMatchObject({ reason: 'BATCH_TOO_LARGE' })
    expect(answer.message).toContain('fields')
  })
})

describe.skipIf(!canBeOthers)(`an identity that floods${noOtherUsers}`, () => {
  test('the daemon with streams loses the connection; another is served', async () => {
    // The clock stands still, so no new tokens come.
    vi.useFakeTimers({ toFake: ['performance'] })
    const victim = new ClientProcess(server.socket, { uid: VICTIM, gid: VICTIM })
    await victim.call('inventory', 'listGroups')
    let answered = 0
    const goneAway = new Promise<number>((resolve) => session.once('goaway', resolve))
    const flood = async () => {
      while (!session.destroyed && !session.closed) {
        await headOnly(MAP)
        answered += 1
      }
    }
    void flood().catch(() => undefined)

    expect(await goneAway).toBe(constants.NGHTTP2_ENHANCE_YOUR_CALM)
    const { result } = await victim.call('inventory', 'listGroups')

    expect(result.groups.length).toBeGreaterThan(0)
    expect(answered).toBe(LIMITS.streamsPerSecondUngranted * 2)
    await victim.kill()
  })
})
