// The client's side of the fd channel, where there is no daemon, or a strange one.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { receiveFds, sendFds } from '../../src/client/fd-channel.ts'
import { listenSeqpacket, type SeqpacketListener } from '../../src/os/fd-passing.ts'
import { sys } from '../../src/os/libc.ts'
import { fileIdentity, memfdCreate } from '../../src/os/memory.ts'
import { refusal } from '../api/server.ts'

let directory: string
let listener: SeqpacketListener
const ticket = () => ({ ticket: 'text', socketPath: join(directory, 'fds') })

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'vfiod-client-'))
  const listening = listenSeqpacket(join(directory, 'fds'))
  if (typeof listening === 'number') throw new Error(`cannot listen: ${listening}`)
  listener = listening
})
afterEach(() => {
  listener.close()
  rmSync(directory, { recursive: true })
})

/** The answer of a daemon; undefined to close without one. */
const daemonAnswers = (answer: string | undefined, fds: readonly number[] = []): void => {
  listener.onConnection(async (connection) => {
    await connection.receive()
    if (answer !== undefined) connection.send(Buffer.from(answer), fds)
    connection.close()
  })
}

describe('the fd channel', () => {
  test('hands over what the daemon answers and passes', async () => {
    const memfd = memfdCreate('test', 4096n)
    daemonAnswers('{"ok":true,"name":"x"}', [memfd])

    const { reply, fds } = await receiveFds(ticket())

    expect(reply).toEqual({ ok: true, name: 'x' })
    expect(fds.map((fd) => fileIdentity(fd))).toEqual([fileIdentity(memfd)])
    for (const fd of [...fds, memfd]) sys.closeSync(fd)
  })

  test('throws the refusal of the daemon, with status and reason', async () => {
    daemonAnswers('{"ok":false,"status":"PERMISSION_DENIED","reason":"BAD_TICKET","message":"no"}')

    const error = await refusal(sendFds(ticket(), []))

    expect(error).toMatchObject({
      status: 'PERMISSION_DENIED',
      reason: 'BAD_TICKET',
      message: 'no',
    })
  })

  test('is UNAVAILABLE where no process listens', async () => {
    const error = await refusal(receiveFds({ ticket: 'x', socketPath: join(directory, 'nobody') }))

    expect(error).toMatchObject({
      status: 'UNAVAILABLE',
      message: expect.stringContaining('ENOENT'),
    })
  })

  test('is UNAVAILABLE when the daemon closes without an answer', async () => {
    daemonAnswers(undefined)

    const error = await refusal(receiveFds(ticket()))

    expect(error).toMatchObject({ status: 'UNAVAILABLE' })
  })

  test('closes fds that come with an answer to fds that were sent', async () => {
    const memfd = memfdCreate('test', 4096n)
    daemonAnswers('{"ok":true}', [memfd])

    await expect(sendFds(ticket(), [memfd])).resolves.toEqual({ ok: true })

    sys.closeSync(memfd)
  })
})
