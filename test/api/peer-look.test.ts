// Nothing of a client is released unless its end is proved: a look at its process that fails for
// want of fds or memory refuses the call and changes nothing.

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { ERRNO } from '../../src/base/errno.ts'
import { sys } from '../../src/os/libc.ts'
import type { Quota } from '../../src/rules/policy.ts'
import { ClientProcess } from './client-process.ts'
import { EVERYTHING, startServer, type TestServer, until } from './server.ts'

let server: TestServer
let quota: Quota = {}
let role: 'none' | 'operate' = 'operate'
const children: ClientProcess[] = []

beforeEach(async () => {
  quota = {}
  role = 'operate'
  server = await startServer({}, { grantOf: () => ({ ...EVERYTHING, role, quota }) })
})
afterEach(async () => {
  vi.restoreAllMocks()
  await Promise.all(children.splice(0).map((child) => child.kill()))
  await server.stop()
})

const newProcess = (): ClientProcess => {
  const child = new ClientProcess(server.socket)
  children.push(child)
  return child
}

const victim = async (): Promise<ClientProcess> => {
  const child = newProcess()
  await child.call('memory', 'allocateMemory', { memoryId: 'ram', length: '4096' })
  return child
}

/** Every open of a file of a process fails from here on. */
const failLooks = (errno: number): void => {
  const { openSync } = sys
  vi.spyOn(sys, 'openSync').mockImplementation((path, flags, mode) =>
    path.startsWith('/proc/self/fd/') ? -errno : openSync(path, flags, mode),
  )
}

const processesInUse = (): bigint | undefined =>
  server.domain.quotas.totalUsage().find(({ name }) => name === 'processes')?.current

describe('a look at the process of a client that fails', () => {
  test.each([
    { errno: 'EMFILE' },
    { errno: 'ENFILE' },
    { errno: 'ENOMEM' },
    { errno: 'EACCES' },
  ] as const)('refuses the call and releases nothing: $errno', async ({ errno }) => {
    const child = await victim()
    failLooks(ERRNO[errno])

    const refused = await child.call('memory', 'listMemory')
    await child.disconnect()
    await until(() => server.api.connections.size === 0)
    vi.restoreAllMocks()
    const { result } = await child.call('memory', 'listMemory')

    expect(refused.error).toMatchObject({ status: 'UNAVAILABLE', reason: 'PEER_NOT_CHECKED' })
    expect(refused.error?.message).toContain(errno)
    expect(result.memories).toMatchObject([{ memoryId: 'ram' }])
    expect(server.lines.some(({ message }) => message === 'released')).toBe(false)
    expect(server.lines).toContainEqual(
      expect.objectContaining({ level: 'error', message: 'peer not checked' }),
    )
  })

  test('does not hide the end of the process: it is released when it exits', async () => {
    const child = await victim()
    failLooks(ERRNO.EMFILE)

    await child.kill()

    await until(() => server.domain.state.memories().length === 0)
  })
})

describe('the processes of an identity', () => {
  test('are as many as its quota says; those beyond are told so, and the others go on', async () => {
    quota = { processes: 1n }
    const child = await victim()
    const second = newProcess()

    const refused = await second.call('memory', 'listMemory')
    const { result } = await child.call('memory', 'listMemory')

    expect(refused.error).toMatchObject({ reason: 'LIMIT_REACHED' })
    expect(refused.error?.message).toContain('1 processes that have connected')
    expect(result.memories).toHaveLength(1)
  })

  test('count until they exit, and then another has the place on the connection that it has', async () => {
    quota = { processes: 1n }
    const child = await victim()
    const second = newProcess()
    await child.disconnect()
    expect((await second.call('memory', 'listMemory')).error?.reason).toBe('LIMIT_REACHED')

    await child.kill()
    await until(() => processesInUse() === 0n)

    expect((await second.call('memory', 'listMemory')).result).toMatchObject({ memories: [] })
    expect(processesInUse()).toBe(1n)
  })

  test('are limited without a word in the policy', async () => {
    await victim()

    const usage = server.domain.quotas.totalUsage().find(({ name }) => name === 'processes')

    expect(usage).toEqual({ name: 'processes', current: 1n, max: 1024n })
  })

  test('are not remembered while the policy grants them nothing; they are answered all the same', async () => {
    role = 'none'
    const child = newProcess()

    const refused = await child.call('memory', 'listMemory')
    const who = await child.call('ownership', 'whoAmI')
    const before = processesInUse()
    role = 'operate'
    const granted = await child.call('memory', 'listMemory')

    expect(refused.error).toMatchObject({ reason: 'ROLE_NEEDED' })
    expect(who.result).toMatchObject({ pid: child.pid, role: 'ROLE_NONE' })
    expect(before ?? 0n).toBe(0n)
    expect(granted.result).toMatchObject({ memories: [] })
    expect(processesInUse()).toBe(1n)
  })
})
