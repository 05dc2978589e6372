// How many connections an identity may have, what those beyond are told, and that they cost the
// others nothing.

import { readdirSync } from 'node:fs'
import type { ClientHttp2Session } from 'node:http2'
import { connect as connectSocket, type Socket } from 'node:net'
import { credentials } from '@grpc/grpc-js'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { Admission, hostOf } from '../../src/api/transport/admission.ts'
import { connect, type VfiodClient } from '../../src/client/client.ts'
import { receiveFds } from '../../src/client/fd-channel.ts'
import { Quotas } from '../../src/domain/identity/quotas.ts'
import { State } from '../../src/domain/state/state.ts'
import type { Ticket } from '../../src/proto/vfiod/v1/Ticket.ts'
import type { Quota } from '../../src/rules/policy.ts'
import { defaultQuotas } from '../../src/rules/policy.ts'
import { canBeOthers, noOtherUsers } from '../other-users.ts'
import { fdsOf } from '../system/world.ts'
import { Authority, lacksOpenssl } from './certificates.ts'
import { ClientProcess } from './client-process.ts'
import { framed, openSession, rawCall } from './raw-call.ts'
import { EVERYTHING, refusal, startServer, type TestServer, until } from './server.ts'

const UID = process.getuid?.() ?? 0
const OTHER_UID = 65534
const HEALTH = '/grpc.health.v1.Health/Check'

let server: TestServer
const sessions: ClientHttp2Session[] = []
const sockets: Socket[] = []
afterEach(async () => {
  vi.useRealTimers()
  for (const session of sessions.splice(0)) session.destroy()
  for (const socket of sockets.splice(0)) socket.destroy()
  await server.stop()
})

const limited = async (quota: Quota): Promise<void> => {
  server = await startServer({}, { grantOf: () => ({ ...EVERYTHING, quota }) })
}

const session = (): ClientHttp2Session => {
  const made = openSession(server.socket)
  made.on('error', () => undefined)
  sessions.push(made)
  return made
}

const idle = (): Socket => {
  const made = connectSocket(server.socket)
  made.on('error', () => undefined)
  made.resume()
  sockets.push(made)
  return made
}

/** Of the processes that this one holds on to. */
const pidfds = (): number =>
  fdsOf(process.pid, readdirSync('/proc/self/fd')).filter((link) => link.includes('pidfd')).length

const isOpen = (): number => server.api.connections.size
const refusals = () => server.lines.filter(({ message }) => message === 'connection refused')

/** Connected, and counted by the daemon. */
const connected = async (count: number): Promise<VfiodClient[]> => {
  const clients = Array.from({ length: count }, () => server.client())
  for (const client of clients) await client.inventory.listGroups()
  return clients
}

const TOO_MANY = {
  status: 'RESOURCE_EXHAUSTED',
  reason: 'LIMIT_REACHED',
  details: { quota: { limit: `connections of uid ${UID}`, max: 2n, current: 2n, needed: 1n } },
}

describe('a connection beyond the quota of its identity', () => {
  test('is told so at its first call, with limit, current and needed', async () => {
    await limited({ connections: 2n })
    await connected(2)

    const error = await refusal(server.client().inventory.listGroups())

    expect(error).toMatchObject(TOO_MANY)
    expect(String(error)).toContain('raise connections in the policy')
  })

  test('is told so by a stream of either kind, and by a method that does not exist', async () => {
    await limited({ connections: 2n })
    await connected(2)
    const watching = async () => {
      for await (const _ of server.client().inventory.watchGroups());
    }

    expect(await refusal(watching())).toMatchObject(TOO_MANY)
    const upload = server.client().migration.writeSession([{ name: 'x' }])
    expect(await refusal(upload)).toMatchObject(TOO_MANY)
    expect(await rawCall(session(), '/no.Service/No', framed(Buffer.of()))).toMatchObject({
      reason: TOO_MANY.reason,
    })
  })

  test('is closed behind the answer, health or not', async () => {
    await limited({ connections: 2n })
    await connected(2)
    const beyond = session()
    const goaway = new Promise((resolve) => beyond.once('goaway', resolve))
    const closed = new Promise((resolve) => beyond.once('close', resolve))

    const answer = await rawCall(beyond, HEALTH, framed(Buffer.of()))

    expect(answer).toMatchObject({ status: 8, reason: 'LIMIT_REACHED' })
    expect(await goaway).toBe(0)
    await closed
    await until(() => isOpen() === 2)
  })

  test('leaves those that are there alone, and one line in the log', async () => {
    await limited({ connections: 2n })
    const [one, two] = await connected(2)
    const before = refusals().length
    await refusal(server.client().inventory.listGroups())

    await expect(one?.inventory.listGroups()).resolves.toBeDefined()
    await expect(two?.inventory.listGroups()).resolves.toBeDefined()
    expect(refusals().slice(before)).toMatchObject([
      {
        level: 'warn',
        fields: {
          identity: `uid ${UID}`,
          reason: 'LIMIT_REACHED',
          limit: TOO_MANY.details.quota.limit,
          isHeard: true,
        },
      },
    ])
  })

  test('finds a place when another one is closed: the same client, calling again', async () => {
    await limited({ connections: 2n })
    const [one] = await connected(2)
    const late = server.client()
    await refusal(late.inventory.listGroups())

    one?.close()
    await until(() => isOpen() === 1)

    await expect(late.inventory.listGroups()).resolves.toBeDefined()
  })

  test('that calls nothing is closed after a while', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    await limited({ connections: 0n })
    const closed = new Promise((resolve) => idle().once('close', resolve))
    while (isOpen() === 0) await new Promise(setImmediate)

    vi.advanceTimersByTime(5000)

    await closed
    while (isOpen() > 0) await new Promise(setImmediate)
  })

  test('is closed unheard when eight others of its identity wait for their answer', async () => {
    await limited({ connections: 0n })
    for (let n = 0; n < 8; n += 1) idle()
    await until(() => isOpen() === 8)

    await new Promise((resolve) => idle().once('close', resolve))

    expect(isOpen()).toBe(8)
    expect(refusals().map(({ fields }) => fields.isHeard)).toEqual([
      ...Array.from({ length: 8 }, () => true),
      false,
    ])
  })

  test('leaves no fd when it is closed unheard, whatever its role', async () => {
    const grant = { ...EVERYTHING, role: 'none', quota: { connections: 0n } } as const
    server = await startServer({}, { grantOf: () => grant })
    for (let n = 0; n < 8; n += 1) idle()
    await until(() => isOpen() === 8)
    const before = pidfds()

    for (let n = 0; n < 8; n += 1)
      await new Promise((resolve) => {
        const unheard = idle()
        unheard.once('close', () => {
          sockets.splice(sockets.indexOf(unheard), 1)
          resolve(undefined)
        })
      })

    await until(() => pidfds() === before)
  })

  test('to the fd channel is told so when it sends its ticket', async () => {
    await limited({ connections: 1n })
    const [client] = await connected(1)
    await client?.memory.allocateMemory({ memoryId: 'm', length: '4096' })
    const exported = await client?.memory.exportMemory({ memoryId: 'm' })

    const error = await refusal(receiveFds(exported?.ticket as Ticket))

    expect(error).toMatchObject({ status: 'RESOURCE_EXHAUSTED', reason: 'LIMIT_REACHED' })
    expect(String(error)).toContain(`the quota of uid ${UID} is 1 connections and 1 are in use`)
  })

  test('does not make its process a client', async () => {
    await limited({ connections: 1n })
    const [admin] = await connected(1)
    const stranger = new ClientProcess(server.socket)
    expect((await stranger.call('inventory', 'listGroups')).error?.reason).toBe('LIMIT_REACHED')

    const { clients = [] } = (await admin?.admin.listClients()) ?? {}

    expect(clients.map(({ pid }) => pid)).toEqual([process.pid])
    await stranger.kill()
  })
})

describe('connections', () => {
  test('are counted in the usage of their identity and of all, idle ones too', async () => {
    await limited({ connections: 7n })
    const [client] = await connected(2)
    idle()
    await until(() => isOpen() === 3)

    const whole = (await client?.admin.getUsage())?.usage.find(isConnections)
    const own = (await client?.ownership.whoAmI())?.usage.find(isConnections)

    expect(whole).toMatchObject({ current: '3', max: '1024' })
    expect(own).toMatchObject({ current: '3', max: '7' })
  })

  test('are 256 of one identity where the policy says nothing, and the others have theirs', async () => {
    server = await startServer()
    for (let n = 0; n < 256; n += 1) idle()
    await until(() => isOpen() === 256)

    const error = await refusal(server.client().inventory.listGroups())

    expect(error).toMatchObject({ details: { quota: { max: 256n, current: 256n } } })
  })

  test.skipIf(!canBeOthers)(
    `of one uid leave another its own: however many it tries${noOtherUsers}`,
    async () => {
      await limited({ connections: 3n })
      for (let n = 0; n < 50; n += 1) idle()
      await until(() => refusals().length === 47)
      const other = new ClientProcess(server.socket, { uid: OTHER_UID, gid: OTHER_UID })

      const answer = await other.call('ownership', 'whoAmI')

      expect(answer.result).toMatchObject({ identity: `uid ${OTHER_UID}` })
      await other.kill()
    },
  )

  test.skipIf(lacksOpenssl)('of one certificate’s name leave another name its own', async () => {
    const authority = new Authority()
    const certificates = authority.issue('DNS:localhost')
    const remote = { host: '127.0.0.1', port: 0, certificates, leaseMs: 60_000 }
    const grant = { ...EVERYTHING, quota: { connections: 1n } }
    server = await startServer({}, { grantOf: () => grant, remote })
    const clientOf = (name: string): VfiodClient => {
      const { ca, cert, key } = authority.issue(`URI:${name}`)
      const tls = credentials.createSsl(Buffer.from(ca), Buffer.from(key), Buffer.from(cert))
      return connect({ address: `localhost:${server.api.remotePort}`, credentials: tls })
    }
    const [first, second, other] = [clientOf('spiffe://a'), clientOf('spiffe://a'), clientOf('b')]
    await first.inventory.listGroups()

    expect(await refusal(second.inventory.listGroups())).toMatchObject({
      reason: 'LIMIT_REACHED',
      details: { quota: { limit: 'connections of remote spiffe://a', max: 1n, current: 1n } },
    })
    await expect(other.inventory.listGroups()).resolves.toBeDefined()
    for (const client of [first, second, other]) client.close()
    authority.remove()
  })
})

const isConnections = ({ name }: { readonly name: string }): boolean => name === 'connections'

describe('connections that come too fast', () => {
  const grant = { ...EVERYTHING, quota: { connections: 10_000n } }
  const crowd = { identity: 'uid 1', account: 'uid 1', grant }
  const victim = { identity: 'uid 2', account: 'uid 2', grant }
  const quotas = new Quotas(new State(), () => ({ connections: 10_000n }), defaultQuotas(1n << 30n))

  test('are closed unheard, 512 at once and 128 a second of one identity; the others have theirs', () => {
    let now = 0
    const warnings: string[] = []
    const warn = (_fields: object, message: string) => void warnings.push(message)
    const log = { debug: warn, info: warn, warn, error: warn }
    const admission = new Admission({ quotas, log, now: () => now })
    const admitted = () =>
      Array.from({ length: 1000 }, () => admission.admit(crowd)).filter(
        (each) => each !== undefined,
      ).length

    const atOnce = admitted()
    const others = admission.admit(victim)
    now = 1000
    const aSecondLater = admitted()

    expect([atOnce, aSecondLater]).toEqual([512, 128])
    expect(others?.refusal).toBeUndefined()
    expect(warnings).toEqual(
      Array.from({ length: 2 }, () => 'connections refused: too many in a short time'),
    )
  })

  test('from one host are closed before they shake hands, as many; other hosts have theirs', () => {
    let now = 0
    const say = () => undefined
    const log = { debug: say, info: say, warn: say, error: say }
    const admission = new Admission({ quotas, log, now: () => now })
    const heard = (host: string) =>
      Array.from({ length: 1000 }, () => admission.hears(host)).filter(Boolean).length

    expect([heard('192.0.2.1'), heard('192.0.2.2')]).toEqual([512, 512])
    now = 1000
    expect(heard('192.0.2.1')).toBe(128)
  })

  test.each([
    ['192.0.2.1', '192.0.2.1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['2001:db8::6', '2001:db8:0:0::/64'],
    ['2001:db8:1:2::', '2001:db8:1:2::/64'],
    ['fe80::1%eth0', 'fe80:0:0:0::/64'],
    ['::1', '0:0:0:0::/64'],
  ])('from %s are those of %s', (address, host) => {
    expect(hostOf(address)).toBe(host)
  })

  test('of many identities together: 2048 at once and 1024 a second, and administrators get in', () => {
    let now = 0
    const say = () => undefined
    const log = { debug: say, info: say, warn: say, error: say }
    const admission = new Admission({ quotas, log, now: () => now })
    const everybody = Array.from({ length: 4096 }, (_, n) => ({
      identity: `uid ${n}`,
      account: `uid ${n}`,
      grant: { ...grant, role: 'observe' as const },
    }))
    const admitted = () =>
      everybody
        .map((each) => admission.admit(each))
        .filter((each) => each !== undefined)
        .map((each) => each.leave()).length

    const atOnce = admitted()
    const admin = admission.admit(victim)
    now = 1000

    expect([atOnce, admitted()]).toEqual([2048, 1024])
    expect(admin?.refusal).toBeUndefined()
  })
})
