// How long the native half of an HTTP/2 session is kept, and what it is kept for.

import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2'
import { createConnection } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { keepBehind, keepOpen, nativeOf } from '../../src/front/native-session.ts'
import { collectGarbage } from '../os/gc.ts'

const PROGRAM = fileURLToPath(new URL('./broken-headers.mjs', import.meta.url))

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vfiod-native-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

/** A session with one stream, both destroyed by now; what of their native halves is asked for. */
const destroyed = async <T>(
  look: (stream: ServerHttp2Stream, session: ServerHttp2Session) => T,
): Promise<T> => {
  const path = join(folder, 'socket')
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(path, resolve))
  const seen = new Promise<T>((resolve) => {
    server.on('session', (session) => session.on('error', () => undefined))
    server.on('stream', (stream) => {
      stream.on('error', () => undefined)
      const { session } = stream
      if (session === undefined) return
      const found = look(stream, session as ServerHttp2Session)
      session.once('close', () => resolve(found))
      setImmediate(() => session.destroy())
    })
  })
  const client = connect('http://localhost', { createConnection: () => createConnection(path) })
  client.on('error', () => undefined)
  client.request().on('error', () => undefined)
  const found = await seen
  client.destroy()
  await new Promise((resolve) => server.close(resolve))
  return found
}

const native = (owner: ServerHttp2Stream | ServerHttp2Session): object => {
  const found = nativeOf(owner)
  if (found === undefined) throw new Error('this Node shows no native half')
  return found
}

describe('the native half of a session', () => {
  test('is kept until that of its stream has been collected, and not longer', async () => {
    const held = await destroyed((stream, session) => {
      keepBehind(stream, session)
      return { stream: [native(stream)], session: new WeakRef(native(session)) }
    })

    await collectGarbage()
    expect(held.session.deref()).toBeDefined()

    held.stream.pop()
    await collectGarbage()
    await collectGarbage()
    expect(held.session.deref()).toBeUndefined()
  })

  test('is kept while the session is open, and not longer', async () => {
    const held = await destroyed((_stream, session) => {
      keepOpen(session)
      return new WeakRef(native(session))
    })

    await collectGarbage()
    await collectGarbage()
    expect(held.deref()).toBeUndefined()
  })
})

test('a server that keeps them survives clients that break off within a header block', async () => {
  const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', PROGRAM, 'kept'], {
    env: { ...process.env, TMPDIR: folder },
  })

  expect(stdout).toBe('survived\n')
})
