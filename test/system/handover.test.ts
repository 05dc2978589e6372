/** Ownership between real processes: an mm owns, not a pid, not a user, not a connection. */

import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { VfiodClient } from '../../src/client/client.ts'
import { describeModes } from '../modes.ts'
import { type Answer, Owner } from './owner.ts'
import { type Daemon, eduDevices, startDaemon, until } from './world.ts'

describeModes('handing over', (mode) => {
  let daemon: Daemon
  let client: VfiodClient
  let name: string
  const owners: Owner[] = []

  const start = async (...args: string[]): Promise<{ owner: Owner; first: Answer }> => {
    const owner = new Owner(daemon.socket, ...args)
    owners.push(owner)
    return { owner, first: await owner.next() }
  }

  const spaces = async (): Promise<string[]> =>
    (await client.addressSpace.listSpaces()).spaces.map(({ spaceId }) => spaceId)

  beforeAll(async () => {
    daemon = await startDaemon(mode)
    client = daemon.client()
    const [first] = await eduDevices(client)
    if (first === undefined) throw new Error('the machine has no edu device')
    name = first
    await client.inventory.bindDevices({ devices: [name] })
  })

  afterAll(async () => {
    for (const { child } of owners) child.kill('SIGKILL')
    await until(async () => (await spaces()).length === 0 || undefined)
    await client.inventory.unbindDevices({ devices: [name] })
    const code = await daemon.stop()
    expect(code, daemon.output()).toBe(0)
  })

  describe('a handover between processes', () => {
    test('leaves mappings and the open device to the next owner, and nothing to the former', async () => {
      const { owner: first } = await start()
      await first.tell({ command: 'own', name })
      const offered = await first.tell({ command: 'offer', deadlineMs: 0 })

      const { owner: second, first: adopted } = await start(offered.result.token)

      expect(adopted.result).toEqual({ spaces: 1, memories: 1 })
      expect((await second.tell({ command: 'mappings' })).result.mappings).toHaveLength(1)
      expect(await first.tell({ command: 'mappings' })).toMatchObject({ reason: 'NOT_MM_OWNER' })
      first.child.kill('SIGKILL')
      expect((await second.tell({ command: 'mappings' })).result.mappings).toHaveLength(1)
      second.child.kill('SIGKILL')
      await until(async () => (await spaces()).length === 0 || undefined)
    })

    test('outlives its owner until the deadline, and is then released with an event', async () => {
      const stream = client.ownership.watchEvents()
      const events = stream[Symbol.asyncIterator]()
      await events.next()
      const { owner } = await start()
      await owner.tell({ command: 'own', name })
      await owner.tell({ command: 'offer', deadlineMs: 2000 })
      expect((await events.next()).value.happened.kind).toBe('EVENT_KIND_HANDOVER_OFFERED')

      owner.child.kill('SIGKILL')

      expect((await events.next()).value.happened.kind).toBe('EVENT_KIND_HANDOVER_EXPIRED')
      const { value } = await events.next()
      expect(value.happened).toMatchObject({ kind: 'EVENT_KIND_RELEASED', spaces: 1, memories: 1 })
      expect(value.happened.why).toContain('exited, and no client adopted within 2000 ms')
      expect(await spaces()).toEqual([])
      stream.cancel()
    })

    test('goes on in the same process after an exec: the new image adopts', async () => {
      const { owner, first } = await start()
      await owner.tell({ command: 'own', name })

      const adopted = await owner.tell({ command: 'exec', deadlineMs: 0 })

      expect(adopted.result).toEqual({ spaces: 1, memories: 1 })
      const { result } = await owner.tell({ command: 'who' })
      expect(result.pid).toBe(first.result.pid)
      expect(result.clientId).not.toBe(first.result.clientId)
      expect((await owner.tell({ command: 'mappings' })).result.mappings).toHaveLength(1)
      owner.child.kill('SIGKILL')
      await until(async () => (await spaces()).length === 0 || undefined)
    })
  })

  test('root in another process is not the owner', async () => {
    const { owner } = await start()
    await owner.tell({ command: 'own', name })

    await expect(client.addressSpace.listMappings({ spaceId: 'handed' })).rejects.toMatchObject({
      reason: 'NOT_MM_OWNER',
    })
    await expect(client.device.closeDevice({ name })).rejects.toMatchObject({
      reason: 'NOT_MM_OWNER',
    })
  })

  test('an administrator sees who owns what, and may end it', async () => {
    const { clients } = await client.admin.listClients()
    const holder = clients.find(({ spaceIds }) => spaceIds.includes('handed'))
    expect(holder).toMatchObject({ memoryIds: ['handed'], devices: [name] })

    await client.admin.releaseClient({ clientId: holder?.clientId ?? '' })

    expect(await spaces()).toEqual([])
    const { usage } = await client.admin.getUsage()
    expect(usage.find(({ name: quota }) => quota === 'mappings')).toMatchObject({ current: '0' })
  })
})
