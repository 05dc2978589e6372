// The processes that speak with clients: what they may do, and what their end costs.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { type AddressInfo, connect as connectSocket, createServer, type Socket } from 'node:net'
import { dirname, join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { connect, type VfiodClient } from '../../src/client/client.ts'
import { type Daemon, ended, startDaemon, until } from './world.ts'

const LINGERING = new URL('./lingering.mjs', import.meta.url).pathname

let daemon: Daemon
let client: VfiodClient

beforeAll(async () => {
  daemon = await startDaemon()
  client = daemon.client()
})
afterAll(async () => {
  const code = await daemon.stop()
  expect(code, daemon.output()).toBe(0)
})

/** The children of a process, by what the kernel says of its threads. */
const childrenOf = (pid: number): number[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .trim()
    .split(' ')
    .filter((text) => text !== '')
    .map(Number)

const fronts = (): number[] => childrenOf(daemon.process.pid ?? 0)

const statusOf = (pid: number): Readonly<Record<string, string>> =>
  Object.fromEntries(
    readFileSync(`/proc/${pid}/status`, 'utf8')
      .split('\n')
      .map((line) => line.split(/:\s*/) as [string, string]),
  )

const logged = (text: string): number => daemon.output().split(text).length - 1

describe('a front', () => {
  test('has given up its rights, and is not root where the daemon may choose', async () => {
    await client.ownership.whoAmI()

    const [pid] = fronts()
    const { Seccomp, NoNewPrivs, Uid = '', CapEff } = statusOf(pid as number)

    expect([Seccomp, NoNewPrivs]).toEqual(['2', '1'])
    if (process.getuid?.() === 0) {
      expect(Uid.split('\t')).toEqual(Array(4).fill('65534'))
      expect(CapEff).toBe('0000000000000000')
    }
  })

  test.each(['SIGKILL', 'SIGABRT'] as const)(
    'that ends by %s costs its connections, and nothing that a client owns',
    async (signal) => {
      await client.addressSpace.createSpace({ spaceId: 'kept' })
      const watching = async () => {
        for await (const _ of client.ownership.watchEvents());
      }
      const watch = watching()
      watch.catch(() => undefined)
      const before = logged('front ended')

      process.kill(fronts()[0] as number, signal)

      await expect(watch).rejects.toMatchObject({ status: 'UNAVAILABLE' })
      await until(() => logged('front ended') === before + 1)
      const again = daemon.client()
      expect((await again.addressSpace.listSpaces()).spaces).toMatchObject([{ spaceId: 'kept' }])
      await again.addressSpace.destroySpace({ spaceId: 'kept' })
    },
  )
})

/** Runs test/system/lingering.mjs to its end. */
const leaveLingering = async (socket: string, ...numbers: readonly number[]): Promise<void> => {
  const { port } = unread.address() as AddressInfo
  const words = [LINGERING, socket, port, ...numbers].map(String)
  const child = spawn(process.execPath, words, { stdio: ['ignore', 'ignore', 'inherit'] })
  const [, signal] = await once(child, 'exit')
  expect(signal).toBe('SIGKILL')
}

/** Takes connections and reads nothing of them. */
const unread = createServer({ pauseOnConnect: true }, (peer) => peers.add(peer))
const peers = new Set<Socket>()
beforeAll(() => once(unread.listen(0, '127.0.0.1'), 'listening'))
afterAll(() => {
  unread.close()
  for (const peer of peers) peer.destroy()
})

describe('sockets whose last close sleeps for minutes, from a client that is gone', () => {
  test.each(['vfiod.sock', 'fds.sock'])(
    'hold up no other client, when they wait in a connection to %s that was not accepted yet',
    async (name) => {
      const socket = join(dirname(daemon.socket), name)
      process.kill(daemon.process.pid as number, 'SIGSTOP')
      await leaveLingering(socket, 4, 3)
      process.kill(daemon.process.pid as number, 'SIGCONT')

      await expect(client.ownership.whoAmI()).resolves.toMatchObject({ pid: process.pid })
      await expect(
        client.memory.allocateMemory({ memoryId: `m-${name}`, length: '4096' }),
      ).resolves.toBeDefined()
      await client.memory.releaseMemory({ memoryId: `m-${name}` })
    },
  )

  test.each(['vfiod.sock', 'fds.sock'])(
    'do not hold up the end of the daemon, when they wait in a connection to %s that is never accepted',
    async (name) => {
      const ending = await startDaemon()
      const pid = ending.process.pid as number
      process.kill(pid, 'SIGSTOP')
      // More than are accepted before the signal is looked at.
      await leaveLingering(join(dirname(ending.socket), name), 2, 40)
      const code = await ended(ending.process, () => {
        process.kill(pid, 'SIGTERM')
        process.kill(pid, 'SIGCONT')
      })

      expect(code, ending.output()).toBe(0)
      await ending.stop()
    },
  )
})

describe('a client that connects while the queue of connections is full', () => {
  /** Whether a connection found a place; it is left there, closed. */
  const takesPlace = (): Promise<boolean> =>
    new Promise((resolve) => {
      const socket = connectSocket(daemon.socket)
      socket.once('error', () => resolve(false))
      socket.once('connect', () => {
        socket.destroy()
        resolve(true)
      })
    })

  test('is answered when there is a place again', async () => {
    const { pid = 0 } = daemon.process
    process.kill(pid, 'SIGSTOP')
    while (await takesPlace());
    const late = daemon.client()
    const answer = late.ownership.whoAmI()
    const first = await Promise.race([answer, pause(500).then(() => 'waits')])
    const hasty = connect({
      socket: daemon.socket,
      patience: { answerMs: () => 200, answered() {} },
    })
    const refused = hasty.ownership.whoAmI().catch((error) => `refused: ${error.message}`)
    const second = await Promise.race([answer.catch(() => 'given up'), refused])
    process.kill(pid, 'SIGCONT')

    hasty.close()
    expect(first).toBe('waits')
    // A client waits no longer than it has patience.
    expect(second).toMatch(/^refused: .*connect EAGAIN/)
    expect((await answer).role).toBe('ROLE_ADMIN')
  })
})
