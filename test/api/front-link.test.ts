// What a front may say to the owner: one that was taken over speaks for the connections that it was given,
// within bounds, and is ended when it tries more. Beside it an honest front serves another account.

import { Socket } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { GrantOf } from '../../src/api/identity/connection-peer.ts'
import type { StartFront } from '../../src/api/transport/running-front.ts'
import { LIMITS } from '../../src/base/limits.ts'
import { startInside } from '../../src/front/inside.ts'
import { FROM_FRONT, FROM_OWNER } from '../../src/link/frames.ts'
import { LINK_MEMORY } from '../../src/link/slots.ts'
import { channelsOf, openChannels } from '../../src/os/channels.ts'
import { sys } from '../../src/os/libc.ts'
import { METHODS } from '../../src/wire/methods.ts'
import { openFds } from '../os/fds.ts'
import { canBeOthers, noOtherUsers } from '../other-users.ts'
import { ClientProcess } from './client-process.ts'
import { HostileFront } from './hostile-front.ts'
import { EVERYTHING, startServer, type TestServer, until } from './server.ts'

const OWN = process.getuid?.() ?? 0
const VICTIM = 20_003

const place = (path: string): Buffer => {
  const payload = Buffer.alloc(2)
  payload.writeUInt16LE(METHODS.findIndex((method) => method.path === path))
  return payload
}

const WHO = place('/vfiod.v1.OwnershipService/WhoAmI')
const WRITE = place('/vfiod.v1.MigrationService/WriteSession')
const EVENTS = place('/vfiod.v1.OwnershipService/WatchEvents')

let server: TestServer
let front: HostileFront
let hasStarted = false
afterEach(async () => {
  vi.useRealTimers()
  hasStarted = false
  front?.end()
  await server.stop()
})

/** The first front that is started is the hostile one; the next are honest. */
const start = async (grantOf: GrantOf = () => EVERYTHING): Promise<void> => {
  const startFront: StartFront = (onExit) => {
    if (hasStarted) return startInside(onExit)
    hasStarted = true
    const { owner, other } = openChannels()
    front = new HostileFront(other)
    return {
      ...channelsOf(owner),
      memory: Buffer.alloc(LINK_MEMORY),
      kill: () => front.end(),
    }
  }
  server = await startServer({}, { grantOf, startFront })
}

/** A connection that the hostile front was given. */
const connected = async (): Promise<number> => {
  const socket = new Socket()
  socket.on('error', () => undefined)
  socket.connect(server.socket)
  await until(() => hasStarted)
  const { connection, fd } = await front.given()
  sys.closeSync(fd)
  return connection
}

const endings = () => server.lines.filter(({ message }) => message === 'front ended')

/** The front is ended, the log says why, and nothing of its connections is left. */
const isEnded = async (why: string): Promise<void> => {
  await until(() => front.isKilled && endings().length > 0)
  expect(endings()).toMatchObject([
    { level: 'warn', fields: { front: `uid ${OWN}`, why: expect.stringContaining(why) } },
  ])
  await until(() => server.api.connections.size === 0)
}

type Lie = readonly [what: string, why: string, tell: (connection: number) => void]

const LIES: readonly Lie[] = [
  [
    'a call on a connection that it was not given',
    'was not given to it',
    (connection) => front.say(FROM_FRONT.open, connection + 1, 1, WHO),
  ],
  [
    'a frame of a kind that there is not',
    'a frame of kind 200',
    (connection) => front.say(200, connection, 1),
  ],
  [
    'a frame that only the owner sends',
    `a frame of kind ${FROM_OWNER.reply}`,
    (connection) => front.say(FROM_OWNER.reply, connection, 1),
  ],
  [
    'a frame without end',
    'has a payload of',
    () => front.channels.outgoing.write(Buffer.from('ffffffff0a0100000001000000', 'hex')),
  ],
  [
    'a method that there is not',
    'a call is of no method',
    (connection) => front.say(FROM_FRONT.open, connection, 1, Buffer.from('ffff', 'hex')),
  ],
  [
    'the same call twice',
    'is under way already',
    (connection) => {
      front.say(FROM_FRONT.open, connection, 1, WHO)
      front.say(FROM_FRONT.open, connection, 1, WHO)
    },
  ],
  [
    'two requests for one call',
    'has two requests',
    (connection) => {
      front.say(FROM_FRONT.open, connection, 1, EVENTS)
      front.say(FROM_FRONT.request, connection, 1)
      front.say(FROM_FRONT.request, connection, 1)
    },
  ],
  [
    'a request that is larger than its method takes',
    'bytes',
    (connection) => {
      front.say(FROM_FRONT.open, connection, 1, WHO)
      front.say(FROM_FRONT.request, connection, 1, Buffer.alloc(LIMITS.requestBytes + 1))
    },
  ],
  [
    'messages that were not asked for',
    'was not asked for',
    (connection) => {
      front.say(FROM_FRONT.open, connection, 1, WRITE)
      for (let n = 0; n < 4; n += 1) front.say(FROM_FRONT.message, connection, 1)
    },
  ],
  [
    'that a message was taken which was not sent',
    'was not sent',
    (connection) => {
      front.say(FROM_FRONT.open, connection, 1, EVENTS)
      front.say(FROM_FRONT.request, connection, 1)
      front.say(FROM_FRONT.taken, connection, 1)
    },
  ],
  [
    'calls faster than an account may make them',
    'too fast',
    (connection) => {
      for (let call = 1; call <= 70_000; call += 1) {
        front.say(FROM_FRONT.open, connection, call, WHO)
        front.say(FROM_FRONT.cancel, connection, call)
      }
    },
  ],
  [
    'the name of a remote client',
    'was given a name',
    (connection) => front.say(FROM_FRONT.named, connection, 0, Buffer.from('spiffe://host-b')),
  ],
  [
    'a ticket on a connection that speaks gRPC',
    'that speaks gRPC',
    (connection) => front.say(FROM_FRONT.ticket, connection, 1, Buffer.from('0000', 'hex')),
  ],
  [
    'a slot free that was not in use',
    'not in use',
    (connection) => front.say(FROM_FRONT.slotFree, connection, 0, Buffer.of(0)),
  ],
  [
    'a message in a slot that there is not',
    'lies in no slot',
    (connection) =>
      front.say(FROM_FRONT.messageAt, connection, 1, Buffer.from('63ffffffff', 'hex')),
  ],
  [
    'a record that is not JSON',
    'not JSON',
    (connection) => front.say(FROM_FRONT.refused, connection, 0, Buffer.from('{')),
  ],
]

describe('a front that was taken over is ended when it says', () => {
  test.each(LIES)('%s', async (_what, why, tell) => {
    // A rate is exceeded however slowly this machine reads, and no ping is due meanwhile.
    vi.useFakeTimers({ toFake: ['performance', 'setInterval', 'clearInterval'] })
    await start()
    const connection = await connected()

    tell(connection)

    await isEnded(why)
  })

  test('fds that were not asked for: they are closed', async () => {
    await start()
    await connected()
    const before = openFds()
    const fd = sys.openSync('/dev/null', 0)

    front.channels.uplink.send(Buffer.from('00000000'), [fd, fd, fd])

    await isEnded('fds that were not asked for')
    sys.closeSync(fd)
    await until(() => openFds() <= before)
  })
})

describe('a front that is asked whether it runs', () => {
  beforeEach(() => {
    vi.useFakeTimers({
      toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'performance'],
    })
  })

  test('is ended where it has run and does not answer for 15 s', async () => {
    await start()
    const connection = await connected()
    front.say(FROM_FRONT.open, connection, 1, WHO)
    front.say(FROM_FRONT.request, connection, 1)
    await until(() => front.heard.some(({ kind }) => kind === FROM_OWNER.reply))

    vi.advanceTimersByTime(5000)
    vi.advanceTimersByTime(15_000)

    await isEnded('it does not run')
  })

  test('is waited for while it starts, for two minutes', async () => {
    await start()
    await connected()

    vi.advanceTimersByTime(5000)
    vi.advanceTimersByTime(119_999)
    for (let turn = 0; turn < 10; turn += 1) await setImmediate()
    expect(endings()).toEqual([])
    vi.advanceTimersByTime(1)

    await isEnded('it has not started')
  })
})

describe('where no front can be started', () => {
  test('connections are closed, and the log says why', async () => {
    let canStart = false
    const startFront: StartFront = (onExit) => {
      if (canStart) return startInside(onExit)
      throw new Error('Cannot start a front: no reason')
    }
    server = await startServer({}, { startFront })

    await expect(server.client().ownership.whoAmI()).rejects.toMatchObject({
      status: 'UNAVAILABLE',
    })

    expect(server.lines).toContainEqual({
      level: 'error',
      message: 'front not started',
      fields: { front: `uid ${OWN}`, why: 'Cannot start a front: no reason', waitMs: 50 },
    })
    canStart = true
    await expect(server.client().ownership.whoAmI()).resolves.toMatchObject({ pid: process.pid })
  })
})

test('calls beyond those that a connection may have are refused, and the front goes on', async () => {
  await start()
  const connection = await connected()
  for (let call = 1; call <= 130; call += 1) front.say(FROM_FRONT.open, connection, call, WHO)

  await until(() => front.heard.filter(({ kind }) => kind === FROM_OWNER.status).length === 2)

  expect(front.heard.map(({ call }) => call)).toEqual([129, 130])
  expect(endings()).toEqual([])
})

describe('a front that ends', () => {
  test('costs its connections, and the next connection gets another one', async () => {
    await start()
    await connected()

    front.end()
    await isEnded('its link is closed')

    await expect(server.client().ownership.whoAmI()).resolves.toMatchObject({ pid: process.pid })
  })

  test.skipIf(!canBeOthers)(`costs other accounts nothing${noOtherUsers}`, async () => {
    await start()
    await connected()
    const victim = new ClientProcess(server.socket, { uid: VICTIM, gid: VICTIM })
    await victim.call('addressSpace', 'createSpace', { spaceId: 'victim' })

    front.say(200, 1, 1)
    await isEndedKeeping(1)

    const { result } = await victim.call('addressSpace', 'listSpaces', {})
    expect(result.spaces).toMatchObject([{ spaceId: 'victim' }])
    await victim.kill()
  })
})

const isEndedKeeping = (count: number): Promise<void> =>
  until(() => front.isKilled && server.api.connections.size === count)
