/**
 * Who is who among relatives. A client is an mm: threads and CLONE_VM children share it, fork
 * children and new images have another. A connection speaks for the process that connected it,
 * whoever holds it now, and for nobody once that process has another mm.
 */

import { readFileSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { VfiodClient } from '../../src/client/client.ts'
import {
  FORMER,
  needsCompiler,
  own,
  type Place,
  type Relation,
  Relay,
  STRANGER,
  suffix,
  use,
  who,
} from './relay.ts'
import { type Daemon, startDaemon, until } from './world.ts'

const isRoot = process.getuid?.() === 0

let daemon: Daemon
let watcher: VfiodClient
const relays: Relay[] = []

const start = async (): Promise<Relay> => {
  const relay = await Relay.start(daemon.socket)
  relays.push(relay)
  return relay
}

const spaces = async (): Promise<string[]> =>
  (await watcher.addressSpace.listSpaces()).spaces.map(({ spaceId }) => spaceId)
const nothingIsLeft = () => until(async () => (await spaces()).length === 0)
/** proc(5): `T` is stopped. */
const stateOf = (pid: number): string | undefined =>
  readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.[0]
const clientIds = async (): Promise<string[]> =>
  (await watcher.admin.listClients()).clients.map(({ clientId }) => clientId)

/** A process that owns something, by a connection of its first thread. */
const startOwner = async (): Promise<{ relay: Relay; owner: Place; id: string }> => {
  const relay = await start()
  const owner = await relay.connect('thread')
  await own(owner)
  return { relay, owner, id: (await who(owner)).clientId }
}

beforeAll(async () => {
  daemon = await startDaemon()
  watcher = daemon.client()
})
afterEach(async () => {
  for (const relay of relays.splice(0)) relay.end()
  await nothingIsLeft()
  // Of all those processes only this one is left.
  await until(async () => (await clientIds()).length === 1)
})
afterAll(async () => {
  const code = await daemon.stop()
  expect(code, daemon.output()).toBe(0)
})

describe.skipIf(needsCompiler)(`what shares the mm of the owner${suffix}`, () => {
  test.each<{ relation: Relation; text: string }>([
    { relation: 'thread', text: 'another thread, by a second connection' },
    { relation: 'share', text: 'a CLONE_VM child' },
    { relation: 'vfork', text: 'a vfork child' },
  ])('is the owner: $text', async ({ relation }) => {
    const { relay, id } = await startOwner()

    const relative = await relay.connect(relation)

    expect(await who(relative)).toMatchObject({ clientId: id })
    await expect(use(relative)).resolves.toMatchObject({ mappings: [] })
    await relative.client.memory.releaseMemory({ memoryId: 'owned' })
  })

  test('is the owner also when it came first, and the process it came from later', async () => {
    const relay = await start()
    const child = await relay.connect('share')
    await own(child)

    const parent = await relay.connect('thread')

    await expect(use(parent)).resolves.toMatchObject({ mappings: [] })
  })

  test('keeps everything while the process that it came from is killed', async () => {
    const { relay, id } = await startOwner()
    const child = await relay.connect('share')
    await who(child)

    relay.child.kill('SIGKILL')
    await until(() => relay.child.signalCode !== null)

    expect(await who(child)).toMatchObject({ clientId: id })
    await expect(use(child)).resolves.toMatchObject({ mappings: [] })
    process.kill(child.pid, 'SIGKILL')
    await nothingIsLeft()
  })
})

describe.skipIf(needsCompiler)(`what has an mm of its own${suffix}`, () => {
  test.each<{ relation: Relation; text: string }>([
    { relation: 'fork', text: 'a fork child' },
    { relation: 'double', text: 'a child of a child that has exited' },
  ])('is refused, and told who the owner is: $text', async ({ relation }) => {
    const { relay, id } = await startOwner()

    const child = await relay.connect(relation)

    await expect(use(child)).rejects.toMatchObject(STRANGER)
    await expect(use(child)).rejects.toThrow(`it belongs to pid ${relay.pid} `)
    await expect(
      child.client.addressSpace.destroySpace({ spaceId: 'owned' }),
    ).rejects.toMatchObject(STRANGER)
    await expect(child.client.memory.releaseMemory({ memoryId: 'owned' })).rejects.toMatchObject(
      STRANGER,
    )
    expect(await child.client.memory.listMemory()).toMatchObject({ memories: [] })
    const stranger = await who(child)
    expect(stranger.pid).toBe(child.pid)
    expect(stranger.clientId).not.toBe(id)
  })

  test('is a separate client, whose end takes nothing from its parent', async () => {
    const { relay, owner } = await startOwner()
    const child = await relay.connect('fork')
    await child.client.addressSpace.createSpace({ spaceId: 'child' })

    await relay.reap(child.pid)

    await until(async () => !(await spaces()).includes('child'))
    await expect(use(owner)).resolves.toMatchObject({ mappings: [] })
  })

  test('outlives its parent, and what the parent owned is released all the same', async () => {
    const { relay } = await startOwner()
    const child = await relay.connect('fork')
    await child.client.addressSpace.createSpace({ spaceId: 'child' })

    relay.child.kill('SIGKILL')

    await until(async () => (await spaces()).join() === 'child')
    await expect(
      child.client.addressSpace.listMappings({ spaceId: 'child' }),
    ).resolves.toBeDefined()
  })

  test.skipIf(!isRoot)('is known by its pid here when it has a pid namespace (root)', async () => {
    const relay = await start()

    const child = await relay.connect('newpid')

    expect(child.pid).toBe(1)
    expect((await who(child)).pid).toBeGreaterThan(1)
  })
})

describe.skipIf(needsCompiler)(`a connection${suffix}`, () => {
  test('speaks for the process that made it while a fork child holds it', async () => {
    const { relay, id } = await startOwner()

    const child = await relay.connect('inherit')

    expect(child.pid).not.toBe(relay.pid)
    expect(await who(child)).toMatchObject({ clientId: id, pid: relay.pid })
    relay.child.kill('SIGKILL')
    await nothingIsLeft()
    await expect(use(child)).rejects.toMatchObject(FORMER)
  })

  test('speaks for the process that made it when it is passed by SCM_RIGHTS', async () => {
    const { relay, id } = await startOwner()
    const other = await start()

    const passed = await relay.connectFor(other)

    expect(passed.pid).toBe(other.pid)
    expect(await who(passed)).toMatchObject({ clientId: id, pid: relay.pid })
    await expect(use(await other.connect('thread'))).rejects.toMatchObject(STRANGER)
    relay.end()
    await nothingIsLeft()
    await expect(use(passed)).rejects.toMatchObject(FORMER)
  })

  test('speaks for no client after an exec of that process', async () => {
    const { relay, owner } = await startOwner()

    await relay.exec()

    await expect(use(owner)).rejects.toMatchObject(FORMER)
    await nothingIsLeft()
  })
})

describe.skipIf(needsCompiler)(`a new image${suffix}`, () => {
  test('is refused what its process owned until it adopts, once', async () => {
    const { relay, owner, id } = await startOwner()
    const { token } = await owner.client.ownership.handOver({ deadlineMs: 0 })

    await relay.exec()

    await expect(use(owner)).rejects.toMatchObject(FORMER)
    const image = await relay.connect('thread')
    await expect(use(image)).rejects.toMatchObject(STRANGER)
    const { pid, clientId } = await who(image)
    expect(pid).toBe(relay.pid)
    expect(clientId).not.toBe(id)
    expect(await image.client.ownership.adopt({ token })).toMatchObject({ spaces: 1, memories: 1 })
    await expect(use(image)).resolves.toMatchObject({ mappings: [] })
    await expect(image.client.ownership.adopt({ token })).rejects.toMatchObject({
      reason: 'BAD_TICKET',
    })
  })

  test('inherits nothing when nothing was handed over', async () => {
    const { relay } = await startOwner()

    await relay.exec()
    const image = await relay.connect('thread')

    await who(image)
    await nothingIsLeft()
  })
})

describe.skipIf(needsCompiler)(`an owner${suffix}`, () => {
  test('that is stopped keeps its resources, and goes on with them', async () => {
    const { relay, owner, id } = await startOwner()
    const other = await (await start()).connect('thread')
    const stopped = () => until(() => stateOf(relay.pid) === 'T')

    relay.child.kill('SIGSTOP')
    await stopped()
    await expect(use(other)).rejects.toMatchObject(STRANGER)
    const { clients } = await watcher.admin.listClients()
    relay.child.kill('SIGCONT')

    expect(clients.find(({ clientId }) => clientId === id)).toMatchObject({ spaceIds: ['owned'] })
    await expect(use(owner)).resolves.toMatchObject({ mappings: [] })
  })

  test('that is stopped and killed loses everything, with an event that says why', async () => {
    const stream = watcher.ownership.watchEvents()
    const events = stream[Symbol.asyncIterator]()
    await events.next()
    const { relay } = await startOwner()

    relay.child.kill('SIGSTOP')
    await until(() => stateOf(relay.pid) === 'T')
    relay.child.kill('SIGKILL')

    const { value } = await events.next()
    expect(value.happened).toMatchObject({ kind: 'EVENT_KIND_RELEASED', spaces: 1, memories: 1 })
    expect(value.happened.why).toContain('exited')
    await nothingIsLeft()
    stream.cancel()
  })
})
