/**
 * A daemon whose first edu is bound, open in a space, and has memory of this process mapped: what most
 * whole-system tests begin with.
 *
 *     const ready = await readyDevice(mode, { spaceId: 'dma', length: 2n << 20n, iova: 0x10_0000n })
 */

import { closeSync } from 'node:fs'
import { expect } from 'vitest'
import type { VfiodClient } from '../../src/client/client.ts'
import { mapAll, registerMemory } from '../../src/client/verbs.ts'
import { freeSegment, mapFd, memfdCreate, type Segment } from '../../src/os/memory.ts'
import type { Mode } from '../modes.ts'
import { Edu } from './edu.ts'
import { type Daemon, eduDevices, openIn, startDaemon } from './world.ts'

export interface ReadyDevice {
  readonly daemon: Daemon
  readonly client: VfiodClient
  readonly edu: Edu
  readonly name: string
  /** The memory "ram" as this process sees it. */
  readonly memory: Segment
  readonly fd: number
  /** Gives everything back; the daemon ends with 0. */
  stop(): Promise<void>
}

export async function readyDevice(
  mode: Mode,
  { spaceId, length, iova }: { spaceId: string; length: bigint; iova: bigint },
): Promise<ReadyDevice> {
  const daemon = await startDaemon(mode)
  const client = daemon.client()
  const [name] = await eduDevices(client)
  if (name === undefined) throw new Error('the machine has no edu device')
  await client.inventory.bindDevices({ devices: [name] })
  await openIn(client, spaceId, name)
  const edu = new Edu(client, name)
  await edu.enable()
  const fd = memfdCreate('client-memory', length)
  await registerMemory(client, { memoryId: 'ram', fd })
  const memory = await mapFd(fd, { offset: 0n, length, access: 'read-write' })
  if (typeof memory === 'number') throw new Error(`mmap answered ${memory}`)
  await mapAll(client, spaceId, [{ iova, length, memoryId: 'ram' }])
  const stop = async () => {
    await client.addressSpace.destroySpace({ spaceId })
    await client.inventory.unbindDevices({ devices: [name] })
    freeSegment(memory)
    closeSync(fd)
    expect(await daemon.stop()).toBe(0)
  }
  return { daemon, client, edu, name, memory, fd, stop }
}
