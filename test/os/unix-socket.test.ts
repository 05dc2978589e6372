import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { ERRNO } from '../../src/base/errno.ts'
import { eventfdCreate } from '../../src/os/eventfd.ts'
import { sys } from '../../src/os/libc.ts'
import {
  acceptUnix,
  closeAll,
  connectUnix,
  listenUnix,
  type Message,
  PACKET_MAX,
  receiveMessage,
  SOCK_SEQPACKET,
  sendMessage,
} from '../../src/os/unix-socket.ts'
import { openFds } from './fds.ts'

const directory = mkdtempSync(join(tmpdir(), 'vfiod-socket-'))
let sockets = 0

const pair = (): [number, number] => {
  sockets += 1
  const path = join(directory, `${sockets}`)
  const listener = listenUnix(SOCK_SEQPACKET, path)
  const near = connectUnix(SOCK_SEQPACKET, path)
  const far = acceptUnix(listener)
  sys.closeSync(listener)
  return [near, far]
}

describe('receiveMessage', () => {
  test('reports fds that did not fit, and gives those that did', async () => {
    const [near, far] = pair()
    sendMessage(near, Buffer.from('x'), [eventfdCreate(), eventfdCreate(), eventfdCreate()])
    const before = openFds()

    const message = receiveMessage(far, { fdsMax: 1 }) as Message

    // The kernel rounds the room up to 8 bytes, so a second one may fit.
    expect(message.isTruncated).toBe(true)
    expect(openFds() - before).toBe(message.fds.length)
    await closeAll(message.fds)
    expect(openFds()).toBe(before)
  })

  test('reports bytes that did not fit', () => {
    const [near, far] = pair()
    sendMessage(near, Buffer.from('abcdef'))

    const message = receiveMessage(far, { dataMax: 3 }) as Message

    expect(message.isTruncated).toBe(true)
    expect(Buffer.from(message.bytes).toString()).toBe('abc')
  })

  test('does not wait: EAGAIN', () => {
    const [, far] = pair()

    expect(receiveMessage(far)).toBe(-ERRNO.EAGAIN)
  })

  test('gives nothing of an earlier message', () => {
    const [near, far] = pair()
    sendMessage(near, Buffer.alloc(1000, 'a'), [eventfdCreate()])
    receiveMessage(far)
    sendMessage(near, Buffer.from('b'))

    const message = receiveMessage(far) as Message

    expect(Buffer.from(message.bytes).toString()).toBe('b')
    expect(message.fds).toEqual([])
  })
})

describe('sendMessage', () => {
  test('sends a packet of the greatest length and refuses a longer one: EMSGSIZE', () => {
    const [near, far] = pair()

    const longest = Buffer.alloc(PACKET_MAX, 5)

    expect(sendMessage(near, longest)).toBe(PACKET_MAX)
    expect(sendMessage(near, new Uint8Array(PACKET_MAX + 1))).toBe(-ERRNO.EMSGSIZE)
    expect(longest.equals((receiveMessage(far) as Message).bytes)).toBe(true)
  })

  test('refuses an fd that is not open, and more than the kernel takes: EBADF, EINVAL', () => {
    const [near] = pair()

    expect(sendMessage(near, Buffer.from('x'), [9999])).toBe(-ERRNO.EBADF)
    expect(sendMessage(near, Buffer.from('x'), Array(254).fill(0))).toBe(-ERRNO.EINVAL)
  })

  test('does not wait for a peer that takes nothing: EAGAIN', () => {
    const [near] = pair()
    let answer = 0

    while (answer >= 0) answer = sendMessage(near, new Uint8Array(1024))

    expect(answer).toBe(-ERRNO.EAGAIN)
  })
})

describe('an address', () => {
  test('of a name that is too long is refused, and no fd is left: EINVAL', () => {
    const before = openFds()

    expect(listenUnix(SOCK_SEQPACKET, `/tmp/${'x'.repeat(108)}`)).toBe(-ERRNO.EINVAL)
    expect(connectUnix(SOCK_SEQPACKET, '')).toBe(-ERRNO.EINVAL)
    expect(openFds()).toBe(before)
  })

  test('without a listener is refused, and no fd is left: ECONNREFUSED, ENOENT', () => {
    const before = openFds()

    expect(connectUnix(SOCK_SEQPACKET, '@vfiod-nobody')).toBe(-ERRNO.ECONNREFUSED)
    expect(connectUnix(SOCK_SEQPACKET, join(directory, 'nobody'))).toBe(-ERRNO.ENOENT)
    expect(openFds()).toBe(before)
  })
})
