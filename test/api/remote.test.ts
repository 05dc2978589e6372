// Clients of other hosts: mutual TLS 1.3 or nothing, identity from the certificate, ownership by lease.

import { connect as connectTcp, type Socket } from 'node:net'
import { connect as connectTls, type SecureVersion } from 'node:tls'
import { credentials } from '@grpc/grpc-js'
import {
  afterAll,
  beforeAll,
  beforeEach,
  describe as describeAlways,
  expect,
  test as testAlways,
} from 'vitest'
import { connect, type VfiodClient } from '../../src/client/client.ts'
import { nameIn } from '../../src/front/tls-handshakes.ts'
import type { Certificates } from '../../src/link/records.ts'
import { type Grant, grantOf, type Policy } from '../../src/rules/policy.ts'
import { Authority, lacksOpenssl } from './certificates.ts'
import { EVERYTHING, startServer, type TestServer, until } from './server.ts'

// The titles of skipped tests tell what was not tried.
const describe = lacksOpenssl ? describeAlways.skip : describeAlways
const test = lacksOpenssl ? testAlways.skip : testAlways

const OPERATE: Grant = { ...EVERYTHING, role: 'operate' }

let authority: Authority
let daemon: Certificates
let server: TestServer
let policy: Policy
const clients: VfiodClient[] = []

const remote = (certificates: Certificates): VfiodClient => {
  const { ca, cert, key } = certificates
  const client = connect({
    address: `localhost:${server.api.remotePort}`,
    credentials: credentials.createSsl(Buffer.from(ca), Buffer.from(key), Buffer.from(cert)),
  })
  clients.push(client)
  return client
}

beforeAll(async () => {
  if (lacksOpenssl) return
  authority = new Authority()
  daemon = authority.issue('DNS:localhost')
  server = await startServer(
    {},
    {
      grantOf: (identity) => grantOf(policy, identity),
      remote: { host: '127.0.0.1', port: 0, certificates: daemon, leaseMs: 60_000 },
    },
  )
})
beforeEach(() => {
  policy = {
    rules: [
      { who: { kind: 'remote', name: 'spiffe://host-b' }, ...OPERATE },
      { who: { kind: 'local' }, ...EVERYTHING },
    ],
    total: {},
  }
})
afterAll(async () => {
  for (const client of clients) client.close()
  await server?.stop()
  authority?.remove()
})

describe('connections without a name', () => {
  const idle = (from: string, count: number): Promise<Socket[]> =>
    Promise.all(
      Array.from(
        { length: count },
        () =>
          new Promise<Socket>((resolve) => {
            const { remotePort: port = 0 } = server.api
            const socket = connectTcp({ host: '127.0.0.1', port, localAddress: from })
            socket.on('error', () => undefined)
            socket.on('connect', () => resolve(socket))
            socket.resume()
          }),
      ),
    )
  const given = () =>
    server.lines.filter(({ fields }) => fields.refusal === 'no name yet, and others wait').length

  test('are 32 of one address: the oldest makes room, and a client from there is served', async () => {
    const before = given()
    const sockets = await idle('127.0.0.1', 40)
    await until(() => given() - before === 8)

    const client = remote(authority.issue('URI:spiffe://host-b'))

    await expect(client.inventory.listGroups()).resolves.toBeDefined()
    for (const socket of sockets) socket.destroy()
  })

  test('are 128 in all, and those who have shown their name go on', async () => {
    const client = remote(authority.issue('URI:spiffe://host-b'))
    await client.inventory.listGroups()
    const before = given()
    const sockets: Socket[] = []
    for (let n = 2; n < 7; n += 1) sockets.push(...(await idle(`127.0.0.${n}`, 30)))
    await until(() => given() - before >= 22)

    await expect(client.inventory.listGroups()).resolves.toBeDefined()
    for (const socket of sockets) socket.destroy()
  })
})

describe('a remote client', () => {
  test('is who its certificate says, whatever its metadata says', async () => {
    const client = remote(authority.issue('URI:spiffe://host-b,DNS:other'))

    const who = await client.ownership.whoAmI({}, { headers: { 'x-vfiod-identity': 'uid 0' } })

    expect(who).toMatchObject({
      identity: 'remote spiffe://host-b',
      pid: 0,
      role: 'ROLE_OPERATE',
    })
    expect(who.leaseMs).toBeGreaterThan(0)
  })

  test('owns in its own name: no process of this host is said to be the owner', async () => {
    const client = remote(authority.issue('URI:spiffe://host-b'))
    const { clientId } = await client.ownership.whoAmI()

    const { space } = await client.addressSpace.createSpace({ spaceId: 'far' })
    await client.addressSpace.destroySpace({ spaceId: 'far' })

    expect(space?.owner).toMatchObject({
      clientId,
      identity: 'remote spiffe://host-b',
      process: null,
    })
    expect(clientId).toMatch(/^remote-[0-9a-f]{20}$/)
  })

  test('without a rule in the policy may do nothing', async () => {
    const client = remote(authority.issue('URI:spiffe://stranger'))

    await expect(client.inventory.listGroups()).rejects.toMatchObject({ reason: 'ROLE_NEEDED' })
  })

  test('is refused from the next call on when the policy no longer has it', async () => {
    const client = remote(authority.issue('URI:spiffe://host-b'))
    await client.inventory.listGroups()
    policy = { rules: [], total: {} }

    await expect(client.inventory.listGroups()).rejects.toMatchObject({ reason: 'ROLE_NEEDED' })
  })

  test('gets no ticket: fds do not pass to another host', async () => {
    const client = remote(authority.issue('URI:spiffe://host-b'))

    await expect(client.memory.registerMemory({})).rejects.toMatchObject({ reason: 'UNSUPPORTED' })
  })
})

describe('the port for remote clients refuses', () => {
  const refused = (client: VfiodClient) =>
    expect(client.inventory.listGroups({}, { timeoutMs: 5000 })).rejects.toMatchObject({
      status: 'UNAVAILABLE',
    })

  test('a client without a certificate', async () => {
    const client = connect({
      address: `localhost:${server.api.remotePort}`,
      credentials: credentials.createSsl(Buffer.from(daemon.ca)),
    })
    clients.push(client)

    await refused(client)
  })

  test('a certificate of another authority', async () => {
    const other = new Authority()
    const { cert, key } = other.issue('URI:spiffe://host-b')

    await refused(remote({ ca: daemon.ca, cert, key }))
    other.remove()
  })

  test('a certificate without a name', async () => {
    await refused(remote(authority.issue('IP:127.0.0.1')))
  })

  test('plain text', async () => {
    const socket = connectTcp({ host: '127.0.0.1', port: server.api.remotePort ?? 0 })
    socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')

    await new Promise((resolve) => socket.once('close', resolve).once('error', () => {}))
    expect(socket.destroyed).toBe(true)
  })

  test('TLS 1.2', async () => {
    const { ca, cert, key } = authority.issue('URI:spiffe://host-b')
    const maxVersion: SecureVersion = 'TLSv1.2'
    const port = server.api.remotePort ?? 0
    const socket = connectTls({ ca, cert, key, port, host: 'localhost', maxVersion })

    const error = await new Promise<Error>((resolve) => socket.once('error', resolve))
    expect(error.message).toMatch(/protocol version|alert/)
  })
})

test('new certificates hold from then on, and the weakest version stays', async () => {
  const old = remote(authority.issue('URI:spiffe://host-b'))
  await old.inventory.listGroups()
  const other = new Authority()
  server.api.setCertificates(other.issue('DNS:localhost'))

  await expect(old.inventory.listGroups()).rejects.toMatchObject({ status: 'UNAVAILABLE' })
  const { ca, cert, key } = other.issue('URI:spiffe://host-b')
  await remote({ ca, cert, key }).inventory.listGroups()
  const socket = connectTls({
    ca,
    cert,
    key,
    port: server.api.remotePort ?? 0,
    host: 'localhost',
    maxVersion: 'TLSv1.2',
  })
  const error = await new Promise<Error>((resolve) => socket.once('error', resolve))

  expect(error.message).toMatch(/protocol version|alert/)
  server.api.setCertificates(daemon)
  other.remove()
})

describeAlways('nameIn', () => {
  testAlways.each([
    ['DNS:a, URI:spiffe://b', 'spiffe://b'],
    ['IP Address:127.0.0.1, DNS:a, DNS:b', 'a'],
    ['IP Address:127.0.0.1', undefined],
    ['', undefined],
    [undefined, undefined],
    ['URI:"spiffe://a, DNS:b"', undefined],
  ])('of %s is %s', (subjectAltName, name) => {
    expect(nameIn(subjectAltName)).toBe(name)
  })
})
