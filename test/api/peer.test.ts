// Who is who: clients are told apart by the kernel, whatever they say; they are released when their
// process is gone, and only then.

import { readlinkSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { canBeOthers, noOtherUsers } from '../other-users.ts'
import { ClientProcess } from './client-process.ts'
import { startServer, type TestServer, until } from './server.ts'

let server: TestServer
const children: ClientProcess[] = []

beforeEach(async () => {
  server = await startServer()
})
afterEach(async () => {
  await Promise.all(children.splice(0).map((child) => child.kill()))
  await server.stop()
})

const newProcess = (user: { uid?: number; gid?: number } = {}): ClientProcess => {
  const child = new ClientProcess(server.socket, user)
  children.push(child)
  return child
}

const memories = () => server.domain.state.memories()

describe('a client', () => {
  test('is its process: pid, uid and command as the kernel has them', async () => {
    const { memory } = await server.client().memory.allocateMemory({ length: '4096' })

    expect(memory?.owner?.process).toMatchObject({ pid: process.pid, uid: process.getuid?.() })
  })

  test('is the same over every connection of its process', async () => {
    const [one, other] = [server.client(), server.client()]

    await one.memory.allocateMemory({ memoryId: 'm', length: '4096' })

    expect((await other.memory.listMemory()).memories).toMatchObject([{ memoryId: 'm' }])
    await expect(other.memory.releaseMemory({ memoryId: 'm' })).resolves.toEqual({})
  })

  test('has the same id for a daemon that is started anew', async () => {
    const before = await server.client().ownership.whoAmI()
    await server.stop()
    server = await startServer()

    const after = await server.client().ownership.whoAmI()

    expect(after.clientId).toBe(before.clientId)
    expect(after.clientId).toMatch(new RegExp(`^${process.pid}-[0-9a-f]{10}$`))
  })

  test('does not see or touch what another process has', async () => {
    await server.client().memory.allocateMemory({ memoryId: 'm', length: '4096' })
    const other = newProcess()

    const listed = await other.call('memory', 'listMemory')
    const released = await other.call('memory', 'releaseMemory', { memoryId: 'm' })

    expect(listed.result).toMatchObject({ memories: [] })
    expect(released.error).toMatchObject({ status: 'PERMISSION_DENIED', reason: 'NOT_MM_OWNER' })
    expect(memories()).toHaveLength(1)
  })

  test('cannot say that it is another client', async () => {
    await server.client().memory.allocateMemory({ memoryId: 'm', length: '4096' })
    const headers = {
      'x-vfiod-uid': '0',
      'x-vfiod-pid': String(process.pid),
      'x-forwarded-for': 'connection:1',
      forwarded: 'for=connection:1',
      'remote-addr': 'connection:1',
      authorization: 'Bearer root',
    }

    const released = await newProcess().call(
      'memory',
      'releaseMemory',
      { memoryId: 'm' },
      { headers },
    )

    expect(released.error).toMatchObject({ reason: 'NOT_MM_OWNER' })
  })

  test.runIf(canBeOthers)(
    `of each user is itself, also when many call at once${noOtherUsers}`,
    async () => {
      const users = Array.from({ length: 6 }, (_, n) => ({ uid: 20_000 + n, gid: 30_000 + n }))
      const spoof = { 'x-vfiod-uid': '0', 'x-peer': 'connection:1' }

      const wrong = await Promise.all(
        users.map(async ({ uid, gid }) => {
          const child = newProcess({ uid, gid })
          const strangers: unknown[] = []
          for (let n = 0; n < 30; n += 1) {
            const on = n % 5
            const { result } = await child.call(
              'memory',
              'allocateMemory',
              { length: '4096' },
              { headers: spoof, on },
            )
            const { owner } = result.memory
            if (owner.process.uid !== uid || owner.process.pid !== child.pid) strangers.push(owner)
          }
          const { result } = await child.call('memory', 'listMemory')
          return [...strangers, ...(result.memories.length === 30 ? [] : [result])]
        }),
      )

      expect(wrong.flat()).toEqual([])
    },
  )
})

describe('the end of a client', () => {
  const ownsSomething = async (): Promise<ClientProcess> => {
    const child = newProcess()
    await child.call('memory', 'allocateMemory', { length: '4096' })
    await child.call('addressSpace', 'createSpace', {})
    expect(memories()).toHaveLength(1)
    return child
  }
  const nothingIsLeft = () => memories().length === 0 && server.domain.spaces.list().length === 0

  test('by SIGKILL releases what it owned', async () => {
    const child = await ownsSomething()

    await child.kill()

    await until(nothingIsLeft)
  })

  test('by exec releases what it owned, although the process lives on', async () => {
    const child = await ownsSomething()

    child.exec()

    await until(nothingIsLeft)
    expect(readlinkSync(`/proc/${child.pid}/exe`)).toMatch(/sleep|busybox|coreutils/)
  })

  test('is not the loss of its connection', async () => {
    const child = await ownsSomething()

    await child.disconnect()
    await until(() => server.api.connections.size === 0)
    const { result } = await child.call('memory', 'listMemory')

    expect(result.memories).toHaveLength(1)
  })

  test('leaves the others alone', async () => {
    const { memory } = await server.client().memory.allocateMemory({ length: '4096' })
    const child = newProcess()
    await child.call('memory', 'allocateMemory', { length: '4096' })

    await child.kill()

    await until(() => memories().length === 1)
    expect(memories()[0]?.id).toBe(memory?.memoryId)
  })
})

describe('an upload', () => {
  test('of a client that dies in the middle never looks complete', async () => {
    await server.stop()
    let outcome: unknown
    let hasBegun = false
    const write = async (_client: unknown, messages: AsyncIterable<unknown>) => {
      try {
        for await (const _message of messages) hasBegun = true
        outcome = 'complete'
      } catch (error) {
        outcome = error
      }
      return 0n
    }
    server = await startServer({ migration: { write } })
    const child = newProcess()
    await child.upload('x')
    await until(() => hasBegun)

    await child.kill()

    await until(() => outcome !== undefined)
    expect(outcome).toMatchObject({ reason: 'CANCELLED' })
  })
})

describe('a connection with no process behind it', () => {
  test('has no client: UNKNOWN_PEER', () => {
    // What grpc-js says of a peer once the connection is gone.
    expect(() => server.api.connections.peerOf('unknown')).toThrow('Cannot identify the caller')
  })
})
