// The sockets as files: their owner and mode, stale ones, and those of somebody else.

import {
  existsSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { Api } from '../../src/api/api.ts'
import { placeSocket } from '../../src/api/transport/socket-file.ts'
import { createSim } from '../../src/backends/sim/sim.ts'
import { defaultMachine } from '../../src/backends/sim/spec/default-machine.ts'
import { connect } from '../../src/client/client.ts'
import { createDomain } from '../../src/domain/domain.ts'
import { startInside } from '../../src/front/inside.ts'
import { sys } from '../../src/os/libc.ts'
import { listenUnix, SOCK_SEQPACKET } from '../../src/os/unix-socket.ts'
import { isRoot } from './client-process.ts'
import { EVERYTHING, NO_ADMINISTRATION, refusal } from './server.ts'

let directory: string
const started: Api[] = []

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'vfiod-sockets-'))
})
afterEach(async () => {
  for (const api of started.splice(0)) await api.close()
  rmSync(directory, { recursive: true })
})

const pathOf = (name: string): string => join(directory, name)

const silent = () => undefined
const log = { debug: silent, info: silent, warn: silent, error: silent }

const start = async (
  file: { readonly mode?: number; readonly gid?: number } = {},
): Promise<Api> => {
  const { kernel } = createSim(defaultMachine, { time: 'auto' })
  const { mode = 0o600, gid } = file
  const api = await Api.start({
    startFront: startInside,
    domain: createDomain({ kernel }),
    log,
    socket: { path: pathOf('vfiod.sock'), mode, gid },
    fdSocket: { path: pathOf('fds.sock'), mode, gid },
    grantOf: () => EVERYTHING,
    administration: NO_ADMINISTRATION,
  })
  started.push(api)
  return api
}

const answers = async (): Promise<boolean> => {
  const client = connect({ socket: pathOf('vfiod.sock') })
  try {
    await client.inventory.listGroups({}, { timeoutMs: 5000 })
    return true
  } finally {
    client.close()
  }
}

/** What a killed daemon leaves: a file that nobody listens on. */
const leaveStale = (name: string): void => {
  sys.closeSync(listenUnix(SOCK_SEQPACKET, pathOf(name)))
  expect(lstatSync(pathOf(name)).isSocket()).toBe(true)
}

describe('the sockets', () => {
  test('have the mode that is asked for', async () => {
    await start({ mode: 0o640 })

    for (const name of ['vfiod.sock', 'fds.sock'])
      expect(lstatSync(pathOf(name)).mode & 0o777).toBe(0o640)
  })

  test.runIf(isRoot)('have the group that is asked for', async () => {
    await start({ gid: 12_345 })

    for (const name of ['vfiod.sock', 'fds.sock']) expect(lstatSync(pathOf(name)).gid).toBe(12_345)
  })

  test('are gone once the daemon is closed', async () => {
    const api = await start()

    await api.close()

    expect(existsSync(pathOf('vfiod.sock'))).toBe(false)
    expect(existsSync(pathOf('fds.sock'))).toBe(false)
  })

  test('with a path that is too long are refused before anything is made', async () => {
    const name = 'x'.repeat(108 - directory.length)
    const bind = () => Promise.reject(new Error('bound'))

    await expect(
      placeSocket({ path: pathOf(name), mode: 0o600 }, { bind, answers: async () => false }),
    ).rejects.toThrow(/the kernel takes 107 bytes of a path, and the temporary name .* has 1\d\d/)
    expect(readdirSync(directory)).toEqual([])
  })

  test('of a daemon that was killed are replaced', async () => {
    leaveStale('vfiod.sock')
    leaveStale('fds.sock')

    await start()

    expect(await answers()).toBe(true)
  })

  test('of a daemon that runs are left to it', async () => {
    await start()

    const error = await refusal(start())

    expect(String(error)).toContain('another process listens there')
    expect(await answers()).toBe(true)
    expect(existsSync(pathOf('fds.sock'))).toBe(true)
  })

  test.each(['vfiod.sock', 'fds.sock'])('do not replace a file: %s', async (name) => {
    writeFileSync(pathOf(name), 'precious')

    const error = await refusal(start())

    expect(String(error)).toContain('not a socket')
    expect(readFileSync(pathOf(name), 'utf8')).toBe('precious')
  })
})
