// Which certificates of clients are taken, for how long, and what ends them.

import { once } from 'node:events'
import { type AddressInfo, createServer, type Server } from 'node:net'
import { connect, type TLSSocket } from 'node:tls'
import {
  afterAll,
  afterEach,
  beforeAll,
  describe as describeAlways,
  expect,
  test,
  vi,
} from 'vitest'
import { TlsHandshakes } from '../../src/front/tls-handshakes.ts'
import type { Certificates } from '../../src/link/records.ts'
import { Authority, lacksOpenssl, rsa } from './certificates.ts'

// The titles of skipped tests tell what was not tried.
const describe = lacksOpenssl ? describeAlways.skip : describeAlways

const DAY_MS = 86_400_000

let authority: Authority
let own: Certificates
let listener: TlsHandshakes
let server: Server
let accepted: string[] = []
let ended: unknown[] = []
const sockets: TLSSocket[] = []

beforeAll(() => {
  if (lacksOpenssl) return
  authority = new Authority()
  own = authority.issue('DNS:localhost')
})
afterAll(() => authority?.remove())
afterEach(() => {
  vi.useRealTimers()
  for (const socket of sockets.splice(0)) socket.destroy()
  listener.close()
  server.close()
})

const listen = async (certificates: Certificates): Promise<void> => {
  accepted = []
  ended = []
  listener = new TlsHandshakes({
    named: (_connection, name) => void accepted.push(name),
    refused: (_connection, why) => void ended.push(why),
  })
  listener.setCertificates(certificates)
  server = createServer((below) =>
    listener.shakeHands(1, below, (socket) => {
      sockets.push(socket)
      socket.on('error', () => undefined)
      socket.resume()
    }),
  )
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
}

/** Resolves when the connection has ended; a client of TLS 1.3 learns of a refusal after the handshake. */
const present = (certificates: Certificates): { readonly end: Promise<unknown> } => {
  const { ca, cert, key } = certificates
  const socket = connect({
    port: (server.address() as AddressInfo).port,
    host: 'localhost',
    ca,
    cert,
    key,
    ciphers: 'DEFAULT:@SECLEVEL=0',
    ALPNProtocols: ['h2'],
  })
  sockets.push(socket)
  socket.on('error', () => undefined)
  socket.resume()
  return { end: once(socket, 'close') }
}

const until = (holds: () => boolean) => vi.waitUntil(holds, { timeout: 60_000, interval: 5 })

describe('a certificate of a client', () => {
  test('is refused with a weak key', async () => {
    await listen(own)

    await present(authority.issue('URI:weak', rsa(1024))).end
    present(authority.issue('URI:strong', rsa(2048)))

    await until(() => accepted.length > 0)
    expect(accepted).toEqual(['strong'])
  })

  test('is refused once it is revoked, and others are not', async () => {
    const [lost, good] = [authority.issue('URI:lost'), authority.issue('URI:good')]
    await listen({ ...own, crl: authority.revoke(lost) })

    await present(lost).end
    present(good)

    await until(() => accepted.length > 0)
    expect(accepted).toEqual(['good'])
  })

  test('that is revoked later ends its connection', async () => {
    const lost = authority.issue('URI:lost')
    await listen(own)
    const { end } = present(lost)
    await until(() => accepted.length === 1)

    listener.setCertificates({ ...own, crl: authority.revoke(lost) })

    await end
    expect(ended).toEqual(['certificates are judged anew'])
  })

  test('keeps its connection when only the certificate of the daemon is new', async () => {
    await listen(own)
    let isOpen = true
    void present(authority.issue('URI:a')).end.then(() => {
      isOpen = false
    })
    await until(() => accepted.length === 1)

    listener.setCertificates(authority.issue('DNS:localhost'))
    present(authority.issue('URI:b'))

    await until(() => accepted.length === 2)
    expect([isOpen, ended]).toEqual([true, []])
  })

  test('ends its connection when it expires', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] })
    await listen(own)
    const { end } = present(authority.issue('URI:a'))
    while (accepted.length === 0) await new Promise(setImmediate)

    vi.advanceTimersByTime(29 * DAY_MS)
    expect(ended).toEqual([])
    vi.advanceTimersByTime(2 * DAY_MS)

    await end
    expect(ended).toEqual(['its certificate has expired'])
  })
})
