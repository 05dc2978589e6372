// The client by itself: errors with their reasons, signals, time-outs, streams that nobody reads.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Server, ServerCredentials, status } from '@grpc/grpc-js'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { connect, type VfiodClient } from '../../src/client/client.ts'
import { RpcError } from '../../src/client/rpc-error.ts'
import { methodsOf, type ServiceName, services } from '../../src/wire/protos.ts'
import { refusal } from '../api/server.ts'

let directory: string
let server: Server
let client: VfiodClient
/** What the server of a test does; it is not vfiod. */
let behaviour: Record<string, unknown>

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'vfiod-client-'))
  behaviour = {}
  server = new Server()
  server.addService(services.inventory, {
    ListGroups: (...args: unknown[]) =>
      (behaviour.ListGroups as (...a: unknown[]) => void)(...args),
    WatchGroups: (...args: unknown[]) =>
      (behaviour.WatchGroups as (...a: unknown[]) => void)(...args),
  })
  const socket = join(directory, 'socket')
  await new Promise((resolve) =>
    server.bindAsync(`unix:${socket}`, ServerCredentials.createInsecure(), resolve),
  )
  client = connect({ socket })
})
afterEach(() => {
  vi.useRealTimers()
  client.close()
  server.forceShutdown()
  rmSync(directory, { recursive: true })
})

const first = async (messages: AsyncIterable<unknown>): Promise<unknown> => {
  for await (const message of messages) return message
  return undefined
}

describe('the client', () => {
  test('has every method of every service, in lower camel case', () => {
    for (const service of Object.keys(services) as ServiceName[]) {
      const names = methodsOf(service).map(([name]) => name.charAt(0).toLowerCase() + name.slice(1))
      expect(Object.keys(client[service])).toEqual(names)
    }
  })
})

describe('a refused call', () => {
  test('of a server that is not vfiod has a status and a message, and no reason', async () => {
    behaviour.ListGroups = (_call: unknown, reply: (error: object) => void) =>
      reply({ code: status.ABORTED, details: 'somebody else' })

    const error = await refusal(client.inventory.listGroups())

    expect(error).toBeInstanceOf(RpcError)
    expect(error).toMatchObject({
      status: 'ABORTED',
      reason: '',
      message: 'somebody else',
      method: 'vfiod.v1.InventoryService/ListGroups',
      details: {},
    })
  })

  test('without a daemon is UNAVAILABLE', async () => {
    const nobody = connect({ socket: join(directory, 'nobody') })

    const error = await refusal(nobody.inventory.listGroups())

    expect(error).toMatchObject({ status: 'UNAVAILABLE', reason: '' })
    nobody.close()
  })

  test('by the patience of the client is DEADLINE_EXCEEDED, unless its stream has begun', async () => {
    const impatient = connect({
      socket: join(directory, 'socket'),
      patience: { answerMs: () => 50, answered: () => undefined },
    })
    behaviour.ListGroups = () => undefined
    behaviour.WatchGroups = () => undefined
    const late = { status: 'DEADLINE_EXCEEDED', reason: '' }

    expect(await refusal(impatient.inventory.listGroups())).toMatchObject(late)
    expect(await refusal(first(impatient.inventory.watchGroups()))).toMatchObject(late)

    let end = () => {}
    behaviour.WatchGroups = (call: { write(message: object): void; end(): void }) => {
      end = () => call.end()
      call.write({ presentSent: {} })
    }
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    const seen: unknown[] = []
    for await (const message of impatient.inventory.watchGroups()) {
      seen.push(message)
      // It is for the first message alone.
      vi.advanceTimersByTime(1000)
      end()
    }
    expect(seen).toHaveLength(1)
    impatient.close()
  })

  test('by its own time-out is DEADLINE_EXCEEDED', async () => {
    behaviour.ListGroups = () => undefined

    const error = await refusal(client.inventory.listGroups({}, { timeoutMs: 50 }))

    expect(error).toMatchObject({ status: 'DEADLINE_EXCEEDED' })
  })

  test('by its signal is CANCELLED, also when it was aborted before', async () => {
    behaviour.ListGroups = () => undefined
    const abort = new AbortController()

    const later = refusal(client.inventory.listGroups({}, { signal: abort.signal }))
    abort.abort()
    const before = refusal(client.inventory.listGroups({}, { signal: abort.signal }))

    expect(await later).toMatchObject({ status: 'CANCELLED' })
    expect(await before).toMatchObject({ status: 'CANCELLED' })
  })
})

describe('a stream of answers', () => {
  type Call = {
    write(message: object): void
    end(): void
    emit(event: string, error: object): void
  }

  test('ends with its last message', async () => {
    behaviour.WatchGroups = (call: Call) => {
      call.write({ removedGroupId: 1 })
      call.write({ removedGroupId: 2 })
      call.end()
    }
    const seen = []

    for await (const { removedGroupId } of client.inventory.watchGroups()) seen.push(removedGroupId)

    expect(seen).toEqual([1, 2])
  })

  test('that fails before anybody reads it fails when it is read, and only there', async () => {
    behaviour.WatchGroups = (call: Call) =>
      call.emit('error', { code: status.NOT_FOUND, details: 'gone' })

    const messages = client.inventory.watchGroups()
    await new Promise((resolve) => setTimeout(resolve, 100))
    const read = (async () => {
      for await (const _message of messages);
    })()

    expect(await refusal(read)).toMatchObject({ status: 'NOT_FOUND', message: 'gone' })
  })

  test('that is left is cancelled at the server', async () => {
    let isCancelled = (): void => undefined
    const cancelled = new Promise<void>((resolve) => {
      isCancelled = resolve
    })
    behaviour.WatchGroups = (call: Call & { on(event: string, f: () => void): void }) => {
      call.on('cancelled', isCancelled)
      call.write({ presentSent: true })
    }

    for await (const _message of client.inventory.watchGroups()) break

    await cancelled
  })

  test('that is aborted by its signal ends with CANCELLED', async () => {
    behaviour.WatchGroups = (call: Call) => call.write({ presentSent: true })
    const abort = new AbortController()

    const read = (async () => {
      const messages = client.inventory.watchGroups({}, { signal: abort.signal })
      for await (const _message of messages) abort.abort()
    })()

    expect(await refusal(read)).toMatchObject({ status: 'CANCELLED' })
  })
})
