// A daemon whose looks a helper makes: the helper may go at any time, and no client loses anything.

import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { ClientProcess } from '../api/client-process.ts'
import { DaemonProcess, until } from '../daemon/daemon-process.ts'
import { HelperProcess } from './helper-process.ts'

let helper: HelperProcess
let daemon: DaemonProcess
const children: ClientProcess[] = []

beforeEach(async () => {
  helper = new HelperProcess('looks')
  await helper.start()
  daemon = new DaemonProcess()
  await daemon.start({ looks_socket: helper.socket })
})
afterEach(async () => {
  await Promise.all(children.splice(0).map((child) => child.kill()))
  await daemon.remove()
  await helper.remove()
})

const newClient = (): ClientProcess => {
  const child = new ClientProcess(daemon.socket)
  children.push(child)
  return child
}

const owner = async (): Promise<ClientProcess> => {
  const child = newClient()
  const made = await child.call('memory', 'allocateMemory', { memoryId: 'ram', length: '4096' })
  expect(made.error).toBeUndefined()
  return child
}

describe('while the helper is gone', () => {
  test('calls are refused with what is missing, and nothing is released', async () => {
    const child = await owner()
    await helper.kill()

    const refused = await child.call('memory', 'listMemory')
    const stranger = await newClient().call('memory', 'listMemory')
    await helper.start()
    const { result } = await child.call('memory', 'listMemory')

    for (const { error } of [refused, stranger])
      expect(error).toMatchObject({ status: 'UNAVAILABLE', reason: 'PEER_NOT_CHECKED' })
    expect(refused.error?.message).toContain(helper.socket)
    expect(result.memories).toMatchObject([{ memoryId: 'ram' }])
    expect(daemon.logged('released')).toEqual([])
  })

  test('a client that exits is released all the same', async () => {
    const child = await owner()
    await helper.kill()

    await child.kill()

    await until(() => daemon.logged('released').length > 0)
  })
})

test('a client that runs another image is released, as the helper says', async () => {
  const child = await owner()

  child.exec()

  // The loss of its connection is when it is looked at.
  await until(() => daemon.logged('released').length > 0)
})

test('many clients call while the helper is killed again and again; each keeps what it has', async () => {
  const owners = await Promise.all(
    Array.from({ length: 4 }, async (_, n) => {
      const child = newClient()
      await child.call('memory', 'allocateMemory', { memoryId: `ram-${n}`, length: '4096' })
      return child
    }),
  )
  let isOver = false
  const wrong: unknown[] = []
  const calls = owners.map(async (child) => {
    while (!isOver) {
      const { result, error } = await child.call('memory', 'listMemory')
      if (error !== undefined && error.reason !== 'PEER_NOT_CHECKED') wrong.push(error)
      if (result !== undefined && result.memories.length !== 1) wrong.push(result)
    }
  })
  for (let n = 0; n < 5; n += 1) {
    await helper.kill()
    await helper.start()
  }
  isOver = true
  await Promise.all(calls)
  const last = await Promise.all(owners.map((child) => child.call('memory', 'listMemory')))

  expect(wrong).toEqual([])
  expect(last.map(({ result }) => result?.memories.length)).toEqual([1, 1, 1, 1])
  expect(daemon.logged('released')).toEqual([])
})
