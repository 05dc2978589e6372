// The fd channel: what it passes, and everything that it refuses without losing an fd.

import { closeSync, openSync, readdirSync } from 'node:fs'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { ERRNO } from '../../src/base/errno.ts'
import type { VfiodClient } from '../../src/client/client.ts'
import { receiveFds, sendFds } from '../../src/client/fd-channel.ts'
import { connectSeqpacket, type SeqpacketConnection } from '../../src/os/fd-passing.ts'
import { sys } from '../../src/os/libc.ts'
import { fileIdentity, memfdCreate } from '../../src/os/memory.ts'
import type { Ticket__Output } from '../../src/proto/vfiod/v1/Ticket.ts'
import { ClientProcess } from './client-process.ts'
import { EVERYTHING, refusal, startServer, type TestServer, until } from './server.ts'

let server: TestServer
let client: VfiodClient
let memfd: number

beforeEach(async () => {
  server = await startServer()
  client = server.client()
  memfd = memfdCreate('test', 8192n)
})
afterEach(async () => {
  sys.closeSync(memfd)
  await server.stop()
})

const ticketFrom = (response: { readonly ticket: Ticket__Output | null }): Ticket__Output => {
  if (response.ticket === null) throw new Error('no ticket')
  return response.ticket
}

const registration = async (memoryId: string): Promise<Ticket__Output> =>
  ticketFrom(await client.memory.registerMemory({ memoryId }))

const open = (): SeqpacketConnection => {
  const connection = connectSeqpacket(server.fdSocket)
  if (typeof connection === 'number') throw new Error(`cannot connect: ${connection}`)
  return connection
}

const answerOf = async (connection: SeqpacketConnection) => {
  const packet = await connection.receive()
  if (typeof packet === 'number') throw new Error(`no answer: ${packet}`)
  return JSON.parse(Buffer.from(packet.bytes).toString())
}

/** A connection that the server has taken up, so that what it opened for it is open. */
const openAndHeard = async (): Promise<SeqpacketConnection> => {
  const connection = open()
  connection.send(Buffer.from('nothing'))
  await answerOf(connection)
  return connection
}

/** Server and client are one process here, so this counts the fds of both. */
const openFds = (): number => readdirSync('/proc/self/fd').length

describe('a ticket', () => {
  test('for sending takes the fd, and the answer tells what became of it', async () => {
    const reply = await sendFds(await registration('m'), [memfd])

    expect(reply).toEqual({ ok: true, memoryId: 'm', length: '8192' })
    expect((await client.memory.listMemory()).memories).toMatchObject([{ memoryId: 'm' }])
  })

  test('for receiving hands the fd out: the same file', async () => {
    await sendFds(await registration('m'), [memfd])

    const { fds } = await receiveFds(
      ticketFrom(await client.memory.exportMemory({ memoryId: 'm' })),
    )

    expect(fds).toHaveLength(1)
    expect(fileIdentity(fds[0] ?? -1)).toMatchObject({ size: 8192n, kind: 'memfd-or-shm' })
    expect(fileIdentity(fds[0] ?? -1)).toEqual(fileIdentity(memfd))
    sys.closeSync(fds[0] ?? -1)
  })

  test('works once', async () => {
    const ticket = await registration('m')
    await sendFds(ticket, [memfd])

    const error = await refusal(sendFds(ticket, [memfd]))

    expect(error).toMatchObject({ reason: 'BAD_TICKET', status: 'PERMISSION_DENIED' })
    expect(server.lines.at(-1)).toMatchObject({
      message: 'call refused',
      fields: { method: 'fd-channel/redeem', audit: true, reason: 'BAD_TICKET' },
    })
  })

  test('of another process is refused, and logged with who tried', async () => {
    const other = new ClientProcess(server.socket)
    const ticket = await registration('m')

    const { error } = await other.receiveFds(ticket)

    expect(error).toMatchObject({ reason: 'BAD_TICKET' })
    expect(server.lines.at(-1)?.fields.client).toMatch(new RegExp(`^${other.pid}-`))
    await expect(sendFds(ticket, [memfd])).resolves.toMatchObject({ ok: true })
    await other.kill()
  })

  test('of another process works there', async () => {
    const other = new ClientProcess(server.socket)
    await other.call('memory', 'allocateMemory', { memoryId: 'theirs', length: '4096' })
    const { result } = await other.call('memory', 'exportMemory', { memoryId: 'theirs' })

    const received = await other.receiveFds(result.ticket)

    expect(received).toEqual({ result: { fds: 1 } })
    await other.kill()
  })

  test('with the wrong number of fds is refused: BAD_ARGUMENT', async () => {
    const none = await refusal(sendFds(await registration('m'), []))
    const two = await refusal(sendFds(await registration('m'), [memfd, memfd]))

    expect(none).toMatchObject({ reason: 'BAD_ARGUMENT' })
    expect(two).toMatchObject({ reason: 'BAD_ARGUMENT' })
  })

  test('is not answered across a connection: each has its own', async () => {
    const [one, other] = [open(), open()]
    one.send(Buffer.from('nothing'))
    other.send(Buffer.from((await registration('m')).ticket), [memfd])

    expect(await answerOf(one)).toMatchObject({ ok: false })
    expect(await answerOf(other)).toMatchObject({ ok: true })
    one.close()
    other.close()
  })
})

describe('every fd that is refused', () => {
  test('is closed: 253 of them in one packet', async () => {
    const connection = await openAndHeard()
    const before = openFds()

    connection.send(
      Buffer.from('no such ticket'),
      Array.from({ length: 253 }, () => memfd),
    )

    expect(await answerOf(connection)).toMatchObject({ ok: false, reason: 'BAD_TICKET' })
    await until(() => openFds() <= before)
    connection.close()
  })

  test('is closed: a file that is not shared memory', async () => {
    const file = sys.openSync('/proc/self/status', 0)
    const ticket = await registration('m')
    const before = openFds()

    const error = await refusal(sendFds(ticket, [file]))

    expect(error).toMatchObject({ reason: 'BAD_ARGUMENT' })
    await until(() => openFds() === before)
    sys.closeSync(file)
  })

  test('is closed: fds that were sent where none are wanted', async () => {
    await sendFds(await registration('m'), [memfd])
    const ticket = ticketFrom(await client.memory.exportMemory({ memoryId: 'm' }))
    const connection = await openAndHeard()
    const before = openFds()

    connection.send(Buffer.from(ticket.ticket), [memfd, memfd])

    expect(await answerOf(connection)).toMatchObject({ ok: false, reason: 'BAD_ARGUMENT' })
    // A connection of an earlier test may be closed only now, so there may be fewer.
    await until(() => openFds() <= before)
    connection.close()
  })
})

describe('junk', () => {
  test('of any bytes is answered with a refusal, one packet each', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 2000 }), async (bytes) => {
        const connection = open()
        connection.send(bytes)
        expect(await answerOf(connection)).toMatchObject({ ok: false, reason: 'BAD_TICKET' })
        connection.close()
      }),
    )
  })

  test('costs its sender the connection after four packets; another client is served meanwhile', async () => {
    const ticket = await registration('m')
    const connection = open()
    for (let n = 0; n < 20; n += 1) connection.send(Buffer.from(`guess ${n}`))

    const served = sendFds(ticket, [memfd])
    await until(() => connection.send(Buffer.from('one more')) === -ERRNO.EPIPE)

    const refused = server.lines.filter(
      ({ fields }) => fields.method === 'fd-channel/redeem' && fields.reason !== undefined,
    )
    expect(refused.map(({ fields }) => fields.reason)).toEqual(
      Array.from({ length: 4 }, () => 'BAD_TICKET'),
    )
    await expect(served).resolves.toMatchObject({ ok: true })
    connection.close()
  })

  test('is taken one packet in a turn of the event loop', async () => {
    const perTurn: number[] = []
    let seen = server.lines.length
    const connection = open()
    for (let n = 0; n < 4; n += 1) connection.send(Buffer.from(`guess ${n}`))
    const isDone = () => server.lines.length >= 4

    while (!isDone()) {
      await new Promise((resolve) => setImmediate(resolve))
      perTurn.push(server.lines.length - seen)
      seen = server.lines.length
    }

    expect(Math.max(...perTurn)).toBe(1)
    connection.close()
  })

  test('of the longest packet is answered with a refusal', async () => {
    const connection = open()

    connection.send(Buffer.alloc(65_536, 'x'))

    expect(await answerOf(connection)).toMatchObject({ ok: false })
    connection.close()
  })

  test('from a peer that takes no answers costs it the connection, and no other client', async () => {
    const connection = open()
    let sent = 0
    for (let wait = 0; wait < 200; wait += 1) {
      while (connection.send(Buffer.from('junk'), [memfd]) >= 0) sent += 1
      await new Promise((resolve) => setImmediate(resolve))
    }

    await expect(sendFds(await registration('m'), [memfd])).resolves.toMatchObject({ ok: true })
    expect(sent).toBeGreaterThan(3)
    connection.close()
  })

  test('of many connections of one client is bounded', async () => {
    const connections = Array.from({ length: 40 }, open)
    const refused = () =>
      server.lines.filter(({ message }) => message === 'fd channel connection refused').length

    await until(() => refused() >= 8)

    for (const connection of connections) connection.close()
    await until(() => refused() === 8)
    await expect(sendFds(await registration('m'), [memfd])).resolves.toMatchObject({ ok: true })
  })
})

describe('packets', () => {
  test('count against the calls per second of their identity', async () => {
    await server.stop()
    const quota = { calls_per_second: 2n }
    server = await startServer({}, { grantOf: () => ({ ...EVERYTHING, quota }) })
    const connection = open()
    const reasons: string[] = []

    for (let n = 0; n < 4; n += 1) {
      connection.send(Buffer.from(`guess ${n}`))
      reasons.push((await answerOf(connection)).reason)
    }

    expect(reasons.slice(0, 2)).toEqual(['BAD_TICKET', 'BAD_TICKET'])
    expect(reasons).toContain('LIMIT_REACHED')
    connection.close()
  })

  test('of an identity that may not operate are refused, its ticket or not: ROLE_NEEDED', async () => {
    await server.stop()
    let role: 'admin' | 'observe' = 'admin'
    server = await startServer({}, { grantOf: () => ({ ...EVERYTHING, role }) })
    client = server.client()
    const ticket = await registration('m')
    role = 'observe'

    const error = await refusal(sendFds(ticket, [memfd]))

    expect(error).toMatchObject({ reason: 'ROLE_NEEDED', status: 'PERMISSION_DENIED' })
    expect(server.domain.state.memories()).toEqual([])
  })
})

describe('what happens on the fd channel', () => {
  const audited = () =>
    server.lines.filter(
      ({ fields }) => fields.method === 'fd-channel/redeem' && fields.audit === true,
    )

  test('leaves an audit line: who, what, on what, and how many fds; never the ticket', async () => {
    const ticket = await registration('m')

    await sendFds(ticket, [memfd])

    expect(audited().map(({ fields }) => fields)).toMatchObject([
      {
        client: expect.stringMatching(new RegExp(`^${process.pid}-`)),
        identity: `uid ${process.getuid?.()}`,
        object: { act: 'register memory', memoryId: 'm', fds: 1 },
      },
    ])
    expect(JSON.stringify(server.lines)).not.toContain(ticket.ticket)
  })

  test('leaves one as well when it is refused, with the reason', async () => {
    const ticket = await registration('m')
    const pipe = openSync('/dev/null', 'r')

    await refusal(sendFds(ticket, [pipe]))
    closeSync(pipe)

    expect(audited().map(({ fields }) => fields)).toMatchObject([
      { object: { act: 'register memory', memoryId: 'm', fds: 1 }, reason: expect.any(String) },
    ])
  })
})
