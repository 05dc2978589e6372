// Credentials belong to the connection, ownership to the mm: a process that becomes another user is
// judged by what it was when it made each connection, and keeps what it owns.

import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { GrantOf } from '../../src/api/identity/connection-peer.ts'
import { canBeOthers, noOtherUsers } from '../other-users.ts'
import { ClientProcess } from './client-process.ts'
import { EVERYTHING, startServer, type TestServer } from './server.ts'

const OPERATOR = 20_001
const STRANGER = 20_002

const grantOf: GrantOf = (identity) => {
  const uid = identity.kind === 'local' ? identity.uid : STRANGER
  if (uid === STRANGER) return { ...EVERYTHING, role: 'none' }
  return uid === OPERATOR ? { ...EVERYTHING, role: 'operate' } : EVERYTHING
}

let server: TestServer
let child: ClientProcess
beforeEach(async () => {
  server = await startServer({}, { grantOf })
  child = new ClientProcess(server.socket)
})
afterEach(async () => {
  await child.kill()
  await server.stop()
})

describe.skipIf(!canBeOthers)(`a process that drops root${noOtherUsers}`, () => {
  test('is not an admin on a connection that it makes afterwards', async () => {
    expect((await child.call('admin', 'listClients')).result.clients).toHaveLength(1)
    await child.become(OPERATOR)

    const { result } = await child.call('ownership', 'whoAmI', {}, { on: 1 })
    const { error } = await child.call('admin', 'listClients', {}, { on: 1 })

    expect(result).toMatchObject({
      identity: `uid ${OPERATOR}`,
      uid: OPERATOR,
      role: 'ROLE_OPERATE',
    })
    expect(error).toMatchObject({ reason: 'ROLE_NEEDED' })
  })

  test('is not an admin on a new connection when the former ones are closed', async () => {
    await child.call('admin', 'listClients')
    await child.disconnect()
    await child.become(STRANGER)

    const { error } = await child.call('admin', 'listClients', {}, { on: 1 })

    expect(error).toMatchObject({ reason: 'ROLE_NEEDED' })
    expect(error?.message).toContain(`grants uid ${STRANGER} none`)
  })

  test('is the same client over both, and owns what it owned', async () => {
    const { result: before } = await child.call('ownership', 'whoAmI')
    await child.call('memory', 'allocateMemory', { memoryId: 'm', length: '4096' })
    await child.become(OPERATOR)

    const { result: after } = await child.call('ownership', 'whoAmI', {}, { on: 1 })
    const released = await child.call('memory', 'releaseMemory', { memoryId: 'm' }, { on: 1 })

    expect(after.clientId).toBe(before.clientId)
    expect(released.result).toEqual({})
  })

  test('pays with the quota of the connection, and each gets back what it paid', async () => {
    await child.call('memory', 'allocateMemory', { memoryId: 'by-root', length: '4096' })
    await child.become(OPERATOR)
    await child.call(
      'memory',
      'allocateMemory',
      { memoryId: 'by-other', length: '4096' },
      { on: 1 },
    )
    const memoriesOf = async (on: number) => {
      const { result } = await child.call('ownership', 'whoAmI', {}, { on })
      return result.usage.find(({ name }: { name: string }) => name === 'memories').current
    }
    expect([await memoriesOf(0), await memoriesOf(1)]).toEqual(['1', '1'])

    await child.call('memory', 'releaseMemory', { memoryId: 'by-root' }, { on: 1 })

    expect([await memoriesOf(0), await memoriesOf(1)]).toEqual(['0', '1'])
  })
})
