/** What happens to a client's things when it dies, and to everything when the daemon ends. */

import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { VfiodClient } from '../../src/client/client.ts'
import { describeModes, TYPE1 } from '../modes.ts'
import {
  backend,
  type Daemon,
  eduDevices,
  ended,
  fdsOf,
  groupOf,
  startDaemon,
  until,
} from './world.ts'

describeModes('life and death', (mode) => {
  let daemon: Daemon
  let client: VfiodClient
  let name: string

  const pid = (): number => daemon.process.pid ?? 0
  const openFiles = (): string[] => fdsOf(pid(), readdirSync(`/proc/${pid()}/fd`))
  const lockedKib = (): number =>
    Number(/VmLck:\s+(\d+)/.exec(readFileSync(`/proc/${pid()}/status`, 'utf8'))?.[1])
  const memfds = (): string[] => openFiles().filter((link) => link.includes('held-memory'))

  async function startHolder(): Promise<ChildProcess> {
    const script = new URL('./holder.mjs', import.meta.url).pathname
    const child = spawn(process.execPath, [script, daemon.socket, name])
    let output = ''
    await new Promise<void>((resolve, reject) => {
      child.stderr?.on('data', (bytes) => {
        output += bytes
      })
      child.stdout?.on('data', (bytes) => {
        output += bytes
        if (String(bytes).includes('holding')) resolve()
      })
      child.on('exit', () => reject(new Error(`the holder ended: ${output}`)))
    })
    child.removeAllListeners('exit')
    return child
  }

  beforeAll(async () => {
    daemon = await startDaemon(mode)
    client = daemon.client()
    const [first] = await eduDevices(client)
    if (first === undefined) throw new Error('the machine has no edu device')
    name = first
    await client.inventory.bindDevices({ devices: [name] })
  })

  afterAll(async () => {
    daemon.process.kill('SIGKILL')
  })

  describe('a client that is killed', () => {
    test('is named while it holds a group, and loses everything at once when it is SIGKILLed', async () => {
      const group = await groupOf(client, name)
      const lockedBefore = lockedKib()
      const holder = await startHolder()
      await client.addressSpace.createSpace({ spaceId: 'mine' })

      const refused = client.addressSpace.addGroup({ spaceId: 'mine', groupId: group })
      await expect(refused).rejects.toMatchObject({ reason: 'GROUP_IN_USE' })
      await expect(refused).rejects.toThrow(new RegExp(`pid ${holder.pid} `))
      expect(memfds()).toHaveLength(1)
      if (backend === 'linux') {
        expect(openFiles()).toContain(`/dev/vfio/${group}`)
        if (mode === TYPE1) expect(lockedKib() - lockedBefore).toBe(8 << 10)
      }

      await ended(holder, () => holder.kill('SIGKILL'))

      await until(async () => {
        const { spaces } = await client.addressSpace.listSpaces()
        return spaces.every(({ spaceId }) => spaceId !== 'held') || undefined
      })
      await until(() => memfds().length === 0 || undefined)
      expect(openFiles()).not.toContain(`/dev/vfio/${group}`)
      expect(lockedKib()).toBe(lockedBefore)
      const { space } = await client.addressSpace.addGroup({ spaceId: 'mine', groupId: group })
      expect(space).toMatchObject({ state: 'SPACE_STATE_READY', mappings: 0 })
      await client.device.openDevice({ spaceId: 'mine', name })
      await client.addressSpace.destroySpace({ spaceId: 'mine' })
    })

    test('keeps its resources while only its connection is lost', async () => {
      const passing = daemon.client()
      await passing.addressSpace.createSpace({ spaceId: 'kept' })
      passing.close()

      const { spaces } = await client.addressSpace.listSpaces()

      expect(spaces.map(({ spaceId }) => spaceId)).toContain('kept')
      await client.addressSpace.destroySpace({ spaceId: 'kept' })
    })
  })

  describe('a daemon that is terminated', () => {
    test('releases what clients hold, and ends with 0', async () => {
      const group = await groupOf(client, name)
      const holder = await startHolder()

      const code = await daemon.stop()

      expect(code).toBe(0)
      expect(existsSync(daemon.socket)).toBe(false)
      holder.kill('SIGKILL')
      // A new daemon takes the same group at once.
      daemon = await startDaemon(mode)
      client = daemon.client()
      await client.inventory.bindDevices({ devices: [name] })
      await client.addressSpace.createSpace({ spaceId: 'next' })
      const { space } = await client.addressSpace.addGroup({ spaceId: 'next', groupId: group })
      expect(space).toMatchObject({ state: 'SPACE_STATE_READY' })
      await client.addressSpace.destroySpace({ spaceId: 'next' })
      await client.inventory.unbindDevices({ devices: [name] })
      expect(await daemon.stop()).toBe(0)
    })
  })
})
