/**
 * A pid means another process once the former is reaped. The tests choose the pid of a new process
 * (clone3.2, set_tid), which is what a small pid_max brings about by chance.
 */

import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { VfiodClient } from '../../src/client/client.ts'
import { FORMER, needsCompiler, own, Relay, STRANGER, suffix, use, who } from './relay.ts'
import { type Daemon, ended, startDaemon, until } from './world.ts'

const isRoot = process.getuid?.() === 0

let daemon: Daemon
let watcher: VfiodClient
let relay: Relay

const nothingIsLeft = () =>
  until(async () => (await watcher.addressSpace.listSpaces()).spaces.length === 0)

beforeAll(async () => {
  daemon = await startDaemon()
  watcher = daemon.client()
})
afterEach(async () => {
  relay?.end()
  await nothingIsLeft()
})
afterAll(async () => {
  const code = await daemon.stop()
  expect(code, daemon.output()).toBe(0)
})

describe.skipIf(needsCompiler || !isRoot)(`a pid that is used again${suffix} (root)`, () => {
  test('is another client, and a connection of the former process speaks for no client', async () => {
    relay = await Relay.start(daemon.socket)
    const first = await Relay.start(daemon.socket)
    const held = await first.connectFor(relay)
    await own(held)
    const { clientId, pid } = await who(held)
    expect(pid).toBe(first.pid)
    await ended(first.child, () => first.end())

    const second = await relay.connect('pid', first.pid)

    expect(second.pid).toBe(first.pid)
    const reused = await who(second)
    expect(reused.pid).toBe(first.pid)
    expect(reused.clientId).not.toBe(clientId)
    await expect(who(held)).rejects.toMatchObject(FORMER)
    await nothingIsLeft()
  })

  test('does not inherit what waits for the adopter of its former process', async () => {
    relay = await Relay.start(daemon.socket)
    const first = await relay.connect('fork')
    await own(first)
    const { token } = await first.client.ownership.handOver({ deadlineMs: 0 })
    await relay.reap(first.pid)

    const second = await relay.connect('pid', first.pid)

    await expect(use(second)).rejects.toMatchObject(STRANGER)
    expect(await second.client.memory.listMemory()).toMatchObject({ memories: [] })
    await second.client.ownership.adopt({ token })
    await expect(use(second)).resolves.toMatchObject({ mappings: [] })
  })

  test('is not taken for its former process by a daemon that looks too late', async () => {
    relay = await Relay.start(daemon.socket)
    const first = await relay.connect('fork')
    await own(first)
    const { clientId } = await who(first)
    daemon.process.kill('SIGSTOP')
    await relay.reap(first.pid)
    const second = await relay.connect('pid', first.pid)
    const asked = who(second)
    daemon.process.kill('SIGCONT')

    expect((await asked).clientId).not.toBe(clientId)
    await nothingIsLeft()
  })

  test('is not who connected before it, when the daemon accepts too late', async () => {
    relay = await Relay.start(daemon.socket)
    daemon.process.kill('SIGSTOP')
    const first = await relay.connect('fork')
    await relay.reap(first.pid)
    const second = await relay.connect('pid', first.pid)
    const asked = who(second)
    daemon.process.kill('SIGCONT')

    expect((await asked).pid).toBe(first.pid)
    await until(() => daemon.output().includes('connection closed: its client has hung up'))
  })
})
