// Connections that come faster than a front takes them.

import { afterEach, beforeEach, expect, test } from 'vitest'
import { GivenQueue } from '../../src/api/transport/given-queue.ts'
import type { GivenConnection } from '../../src/link/records.ts'
import { SeqpacketConnection } from '../../src/os/fd-passing.ts'
import { sys } from '../../src/os/libc.ts'
import { SOCK_SEQPACKET, socketPair } from '../../src/os/unix-socket.ts'
import { until } from './server.ts'

/** More than a socket has room for. */
const MANY = 600

const given = (connection: number): GivenConnection => ({
  connection,
  account: 'uid 0',
  speaks: 'grpc',
})

let owner: SeqpacketConnection
let front: SeqpacketConnection
let fd: number
let refused: number
let queue: GivenQueue

beforeEach(() => {
  const pair = socketPair(SOCK_SEQPACKET)
  if (typeof pair === 'number') throw new Error('no sockets')
  owner = new SeqpacketConnection(pair[0])
  front = new SeqpacketConnection(pair[1])
  fd = sys.openSync('/dev/null', 0)
  refused = 0
  queue = new GivenQueue(owner, () => {
    refused += 1
    queue.close()
  })
})
afterEach(() => {
  queue.close()
  owner.close()
  front.close()
  sys.closeSync(fd)
})

/** The numbers of the connections that come, each with its socket. */
const received = async (count: number): Promise<number[]> => {
  const came: number[] = []
  while (came.length < count) {
    const packet = await front.receive()
    if (typeof packet === 'number') throw new Error(`no packet: ${packet}`)
    came.push(JSON.parse(Buffer.from(packet.bytes).toString()).connection)
    expect(packet.fds).toHaveLength(1)
    for (const passed of packet.fds) sys.closeSync(passed)
  }
  return came
}

test('connections wait for a front that starts, and come in their order, each with its socket', async () => {
  for (let id = 1; id <= MANY; id += 1) queue.give(given(id), fd)
  expect(queue.size).toBeGreaterThan(0)

  expect(await received(MANY)).toEqual(Array.from({ length: MANY }, (_, index) => index + 1))
  await until(() => queue.size === 0)
  expect(refused).toBe(0)
})

test('a connection that is forgotten does not come', async () => {
  for (let id = 1; id <= MANY; id += 1) queue.give(given(id), fd)

  queue.forget(MANY)

  expect(await received(MANY - 1)).not.toContain(MANY)
  await until(() => queue.size === 0)
})

test('a front that is gone takes none, and that is said once', async () => {
  for (let id = 1; id <= MANY; id += 1) queue.give(given(id), fd)

  front.close()

  await until(() => refused > 0)
  expect(refused).toBe(1)
  expect(queue.size).toBe(0)
})
