import { existsSync, mkdtempSync, readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { ERRNO } from '../../src/base/errno.ts'
import { eventfdCreate, eventfdRead, eventfdSignal } from '../../src/os/eventfd.ts'
import {
  connectSeqpacket,
  listenSeqpacket,
  type Packet,
  type SeqpacketConnection,
  type SeqpacketListener,
} from '../../src/os/fd-passing.ts'
import { sameFile } from '../../src/os/file-identity.ts'
import { sys } from '../../src/os/libc.ts'
import { type ResourceLimit, rlimit, setRlimit } from '../../src/os/limits.ts'
import { memfdCreate } from '../../src/os/memory.ts'
import { openFds, until } from './fds.ts'

const directory = mkdtempSync(join(tmpdir(), 'vfiod-passing-'))
const F_GETFD = 1
const FD_CLOEXEC = 1
const open: { close(): void }[] = []
let listeners = 0

afterEach(() => {
  for (const socket of open.splice(0)) socket.close()
})

const listenerAt = (path: string): SeqpacketListener => {
  const listener = listenSeqpacket(path)
  if (typeof listener === 'number') throw new Error(`Cannot listen: errno ${-listener}`)
  open.push(listener)
  return listener
}

const connectionTo = (path: string): SeqpacketConnection => {
  const connection = connectSeqpacket(path)
  if (typeof connection === 'number') throw new Error(`Cannot connect: errno ${-connection}`)
  open.push(connection)
  return connection
}

const connected = async (): Promise<{ near: SeqpacketConnection; far: SeqpacketConnection }> => {
  listeners += 1
  const path = join(directory, `${listeners}`)
  const listener = listenerAt(path)
  const accepted = new Promise<SeqpacketConnection>((resolve) => listener.onConnection(resolve))
  const near = connectionTo(path)
  const far = await accepted
  open.push(far)
  return { near, far }
}

const text = (packet: Packet | number): string => Buffer.from((packet as Packet).bytes).toString()

describe('a connection', () => {
  test('carries fds to the same open files, close-on-exec, and the sender keeps its own', async () => {
    const { near, far } = await connected()
    const [memfd, eventfd] = [memfdCreate('vfiod-test', 4096n), eventfdCreate()]

    const sent = near.send(Buffer.from('two fds'), [memfd, eventfd])
    const packet = (await far.receive()) as Packet
    const [receivedMemfd, receivedEventfd] = packet.fds as [number, number]
    eventfdSignal(receivedEventfd)

    expect(sent).toBe(7)
    expect(text(packet)).toBe('two fds')
    expect(sameFile(receivedMemfd, memfd)).toBe(true)
    expect(eventfdRead(eventfd)).toBe(1n)
    expect(packet.fds.map((fd) => sys.fcntl(fd, F_GETFD))).toEqual([FD_CLOEXEC, FD_CLOEXEC])
  })

  test('carries 253 fds in one packet', async () => {
    const { near, far } = await connected()
    const eventfd = eventfdCreate()
    const before = openFds()

    near.send(Buffer.from('x'), Array(253).fill(eventfd))
    const packet = (await far.receive()) as Packet

    expect(packet.fds).toHaveLength(253)
    expect(openFds() - before).toBe(253)
    for (const fd of packet.fds) sys.closeSync(fd)
  })

  test('keeps packets apart and in order, both ways', async () => {
    const { near, far } = await connected()

    near.send(Buffer.from('one'))
    near.send(Buffer.from('two'))
    far.send(Buffer.from('back'))

    expect([text(await far.receive()), text(await far.receive())]).toEqual(['one', 'two'])
    expect(text(await near.receive())).toBe('back')
  })

  test('answers those who wait in their order', async () => {
    const { near, far } = await connected()

    const waiting = Promise.all([far.receive(), far.receive(), far.receive()])
    near.send(Buffer.from('a'))
    near.send(Buffer.from('b'))
    near.send(Buffer.from('c'))

    expect((await waiting).map(text)).toEqual(['a', 'b', 'c'])
  })

  test('closes all fds of a packet when some did not fit: EMSGSIZE', async () => {
    const { near, far } = await connected()
    const fds = [eventfdCreate(), eventfdCreate(), eventfdCreate()]
    near.send(Buffer.from('x'), fds)
    const limit = rlimit('nofile') as ResourceLimit
    const before = openFds()

    // Room for the fd that counting them takes, and for two of the three.
    const highest = Math.max(...readdirSync('/proc/self/fd').map(Number))
    const holes = Array.from({ length: highest }, () => eventfdCreate())
    const full = openFds() - 1
    setRlimit('nofile', { ...limit, current: BigInt(full + 2) })
    const receiving = far.receive()
    setRlimit('nofile', limit)
    for (const fd of holes) sys.closeSync(fd)

    expect(await receiving).toBe(-ERRNO.EMSGSIZE)
    expect(openFds()).toBe(before)
  })

  test('says that the peer has closed by an empty packet, each time', async () => {
    const { near, far } = await connected()

    const waiting = far.receive()
    near.close()

    expect(await waiting).toEqual({ bytes: new Uint8Array(), fds: [] })
    expect(await far.receive()).toEqual({ bytes: new Uint8Array(), fds: [] })
    expect(far.send(Buffer.from('x'))).toBe(-ERRNO.EPIPE)
  })

  test('refuses to send an empty packet, which would mean closed: EINVAL', async () => {
    const { near } = await connected()

    expect(near.send(new Uint8Array())).toBe(-ERRNO.EINVAL)
  })

  test('answers those who wait when this side closes: EBADF', async () => {
    const { near, far } = await connected()

    const waiting = far.receive()
    far.close()
    far.close()

    expect(await waiting).toBe(-ERRNO.EBADF)
    expect(await far.receive()).toBe(-ERRNO.EBADF)
    expect(far.send(Buffer.from('x'))).toBe(-ERRNO.EBADF)
    expect(text(await near.receive())).toBe('')
  })

  test('works at an abstract address', async () => {
    const listener = listenerAt(`@vfiod-test-${process.pid}`)
    listener.onConnection((connection) => {
      connection.send(Buffer.from('hello'))
      connection.close()
    })

    expect(text(await connectionTo(`@vfiod-test-${process.pid}`).receive())).toBe('hello')
  })
})

describe('a listener', () => {
  test('refuses a path that exists: EADDRINUSE', () => {
    const path = join(directory, 'taken')
    listenerAt(path)

    expect(listenSeqpacket(path)).toBe(-ERRNO.EADDRINUSE)
  })

  test('removes its socket file when it closes, and leaves no fd', async () => {
    const path = join(directory, 'removed')
    const before = openFds()
    const listener = listenerAt(path)
    listener.onConnection((connection) => connection.close())
    const connection = connectionTo(path)
    await connection.receive()

    connection.close()
    listener.close()
    listener.close()

    expect(existsSync(path)).toBe(false)
    expect(openFds()).toBe(before)
  })

  test('accepts again after there were no fd numbers left', async () => {
    const path = join(directory, 'full')
    const accepted: SeqpacketConnection[] = []
    const listener = listenerAt(path)
    listener.onConnection((connection) => {
      accepted.push(connection)
      open.push(connection)
    })
    connectionTo(path)
    const limit = rlimit('nofile') as ResourceLimit

    setRlimit('nofile', { ...limit, current: 3n })
    await new Promise((resolve) => setImmediate(resolve))
    await new Promise((resolve) => setImmediate(resolve))
    const whileFull = accepted.length
    setRlimit('nofile', limit)
    await until(() => accepted.length === 1)

    expect(whileFull).toBe(0)
  })
})
