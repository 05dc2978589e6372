// Which certificates of clients are taken, for how long, and what ends them.

import { once } from 'node:events'
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
import { type Certificates, RemoteListener } from '../../src/api/transport/remote-listener.ts'
import { Authority, lacksOpenssl, rsa } from './certificates.ts'

// The titles of skipped tests tell what was not tried.
const describe = lacksOpenssl ? describeAlways.skip : describeAlways

const DAY_MS = 86_400_000

let authority: Authority
let own: Certificates
let listener: RemoteListener
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
})

const listen = async (certificates: Certificates): Promise<void> => {
  accepted = []
  ended = []
  const silent = () => undefined
  const warn = ({ refusal }: Readonly<Record<string, unknown>>) => void ended.push(refusal)
  listener = new RemoteListener(
    { host: '127.0.0.1', port: 0, certificates, leaseMs: 1000 },
    (socket, name) => {
      sockets.push(socket)
      socket.on('error', silent)
      socket.resume()
      accepted.push(name)
    },
    { debug: silent, info: silent, warn, error: silent },
  )
  await listener.listen()
}

/** Resolves when the connection has ended; a client of TLS 1.3 learns of a refusal after the handshake. */
const present = (certificates: Certificates): { readonly end: Promise<unknown> } => {
  const { ca, cert, key } = certificates
  const socket = connect({
    port: listener.port,
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
    expect(ended).toEqual(['the certificate of a has expired'])
  })
})
