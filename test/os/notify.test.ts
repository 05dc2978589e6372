/** sd_notify(3) and sd_listen_fds(3), with this test as the service manager. */

import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { ERRNO } from '../../src/base/errno.ts'
import { sameFile } from '../../src/os/file-identity.ts'
import { sys } from '../../src/os/libc.ts'
import { memfdCreate } from '../../src/os/memory.ts'
import { listenFds, notify } from '../../src/os/notify.ts'
import { listenUnix, type Message, receiveMessage, SOCK_DGRAM } from '../../src/os/unix-socket.ts'
import { openFds } from './fds.ts'

afterEach(() => {
  vi.unstubAllEnvs()
})

const managerAt = (path: string): number => {
  vi.stubEnv('NOTIFY_SOCKET', path)
  return listenUnix(SOCK_DGRAM, path)
}

const text = (message: Message | number): string =>
  Buffer.from((message as Message).bytes).toString()

describe('notify', () => {
  test('does nothing without a service manager', () => {
    vi.stubEnv('NOTIFY_SOCKET', undefined)

    expect(notify('READY=1')).toBe(0)
  })

  test('tells the manager at a path', () => {
    const manager = managerAt(join(mkdtempSync(join(tmpdir(), 'vfiod-notify-')), 'socket'))
    const before = openFds()

    const answer = notify('READY=1\nSTATUS=serving')

    expect(answer).toBe(22)
    expect(text(receiveMessage(manager))).toBe('READY=1\nSTATUS=serving')
    expect(openFds()).toBe(before)
    sys.closeSync(manager)
  })

  test('hands fds to the store of a manager at an abstract address', () => {
    const manager = managerAt(`@vfiod-notify-${process.pid}`)
    const memfd = memfdCreate('vfiod-test', 4096n)

    notify('FDSTORE=1\nFDNAME=memory', [memfd])
    const message = receiveMessage(manager) as Message

    expect(text(message)).toBe('FDSTORE=1\nFDNAME=memory')
    expect(message.fds.map((fd) => sameFile(fd, memfd))).toEqual([true])
    sys.closeSync(manager)
  })

  test('answers that the queue of the manager is full: EAGAIN', () => {
    const manager = managerAt(`@vfiod-notify-${process.pid}`)
    let answer = 1

    while (answer > 0) answer = notify('WATCHDOG=1')

    expect(answer).toBe(-ERRNO.EAGAIN)
    sys.closeSync(manager)
  })

  test('answers that no process listens: ECONNREFUSED', () => {
    vi.stubEnv('NOTIFY_SOCKET', '@vfiod-nobody')

    expect(notify('READY=1')).toBe(-ERRNO.ECONNREFUSED)
  })
})

describe('listenFds', () => {
  const stub = (pid: number | string, fds: string, names?: string): void => {
    vi.stubEnv('LISTEN_PID', String(pid))
    vi.stubEnv('LISTEN_FDS', fds)
    vi.stubEnv('LISTEN_FDNAMES', names)
  }

  test('names the fds from number 3 on', () => {
    stub(process.pid, '3', 'api:fds')

    expect(listenFds()).toEqual([
      { fd: 3, name: 'api' },
      { fd: 4, name: 'fds' },
      { fd: 5, name: 'unknown' },
    ])
  })

  test('finds none that were meant for another process', () => {
    stub(process.pid + 1, '1')
    expect(listenFds()).toEqual([])
  })

  test('finds none where the number is missing or makes no sense', () => {
    stub(process.pid, '')
    expect(listenFds()).toEqual([])
    stub(process.pid, '-1')
    expect(listenFds()).toEqual([])
    stub('', '1')
    expect(listenFds()).toEqual([])
  })
})
