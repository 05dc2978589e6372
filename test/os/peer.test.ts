import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ERRNO } from '../../src/base/errno.ts'
import { eventfdCreate } from '../../src/os/eventfd.ts'
import { sys } from '../../src/os/libc.ts'
import { type Peer, peerOf } from '../../src/os/peer.ts'
import { isAlive, processName, startTimeOf } from '../../src/os/process.ts'
import { openFds } from './fds.ts'

const isRoot = process.getuid?.() === 0
const directory = mkdtempSync(join(tmpdir(), 'vfiod-peer-'))
const path = join(directory, 'socket')
const server = createServer()

beforeAll(async () => {
  server.listen(path)
  await once(server, 'listening')
  chmodSync(directory, 0o755)
  chmodSync(path, 0o666)
})
afterAll(() => {
  server.close()
})

/** A process that becomes whoever `become` says, connects, and stays until its input ends. */
const connectFrom = async (become: string): Promise<{ child: ChildProcess; socket: Socket }> => {
  const script = `${become}; require('net').connect(${JSON.stringify(path)}); process.stdin.resume()`
  const child = spawn(process.execPath, ['-e', script], { stdio: ['pipe', 'ignore', 'inherit'] })
  const [socket] = await once(server, 'connection')
  return { child, socket }
}

// What the daemon does: Node has no public name for the fd of a connection.
const fdOf = (socket: Socket): number =>
  (socket as unknown as { _handle: { fd: number } })._handle.fd

const leave = async (child: ChildProcess): Promise<void> => {
  const exited = once(child, 'exit')
  child.kill('SIGKILL')
  await exited
}

test('a peer is the process at the other end', async () => {
  const { child, socket } = await connectFrom('')

  const peer = peerOf(fdOf(socket)) as Peer

  expect(peer).toMatchObject({
    pid: child.pid,
    uid: process.getuid?.(),
    gid: process.getgid?.(),
    groups: process.getgroups?.().filter((group) => group !== process.getgid?.()),
    startTime: startTimeOf(child.pid as number),
    comm: processName(child.pid as number),
  })
  expect(isAlive(peer.pidfd)).toBe(true)
  await leave(child)
  expect(isAlive(peer.pidfd)).toBe(false)
  sys.closeSync(peer.pidfd)
})

test.skipIf(!isRoot)('a peer has the user and the groups it had when it connected', async () => {
  const become = 'process.setgroups([7, 8, 9]); process.setgid(1234); process.setuid(2345)'
  const { child, socket } = await connectFrom(become)

  const peer = peerOf(fdOf(socket)) as Peer

  expect(peer).toMatchObject({ uid: 2345, gid: 1234, groups: [7, 8, 9] })
  await leave(child)
  sys.closeSync(peer.pidfd)
})

test('a peer that is gone is refused and no fd is left behind: ESRCH', async () => {
  const { child, socket } = await connectFrom('')
  const fd = sys.dup(fdOf(socket))
  await leave(child)
  const before = openFds()

  const peer = peerOf(fd)

  expect(peer).toBe(-ERRNO.ESRCH)
  expect(openFds()).toBe(before)
  sys.closeSync(fd)
})

test('an fd that is not a socket has no peer: ENOTSOCK', () => {
  const ENOTSOCK = 88

  expect(peerOf(eventfdCreate())).toBe(-ENOTSOCK)
})
