/** A machine of vendor-like devices through gRPC: a migration, and faults that are asked for. */

import { createHash } from 'node:crypto'
import { closeSync, ftruncateSync, openSync, unlinkSync, writeFileSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { ENGINE } from '../../src/backends/sim/devices/profiles/engine.ts'
import type { VfiodClient } from '../../src/client/client.ts'
import { registerMemory } from '../../src/client/verbs.ts'
import type { MigrationState } from '../../src/proto/vfiod/v1/MigrationState.ts'
import { mlx5Like, SOURCE, TARGET } from './mlx5-like.ts'
import { backend, type Daemon, openIn, startDaemon } from './world.ts'

const LOST = '0000:00:0b.0'
const HELD = '0000:00:0c.0'
const STATE_BYTES = 0x40_0000

const device = (address: string, group: number): string =>
  mlx5Like(address, group, { bytes: STATE_BYTES, dirtyPagesPerStep: 1 })

describe.skipIf(backend !== 'sim')('a simulated machine through gRPC', () => {
  let daemon: Daemon
  let client: VfiodClient

  beforeAll(async () => {
    daemon = await startDaemon(
      device(SOURCE, 9) + device(TARGET, 10) + device(LOST, 11) + device(HELD, 12),
    )
    client = daemon.client()
    await openIn(client, 'source', SOURCE)
    await openIn(client, 'target', TARGET)
    await openIn(client, 'lost', LOST)
  })
  afterEach(async () => {
    await client.simulator.clearFaults()
  })
  afterAll(async () => {
    expect(await daemon?.stop()).toBe(0)
  })

  const set = (name: string, state: MigrationState) =>
    client.migration.setMigrationState({ name, state })
  const read = async (name: string): Promise<Buffer> => {
    const pieces: Buffer[] = []
    for await (const { data, end } of client.migration.readSession({ name }))
      if (!end) pieces.push(Buffer.from(data))
    return Buffer.concat(pieces)
  }
  const digest = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')
  const pieces = function* (bytes: Buffer) {
    for (let at = 0; at < bytes.length; at += 500_000)
      yield { name: TARGET, offset: String(at), data: bytes.subarray(at, at + 500_000) }
  }

  test('loses no byte of a session whose reader lost its connection', async () => {
    await set(SOURCE, 'MIGRATION_STATE_STOP_COPY')
    const first = daemon.client()
    const arrived: Buffer[] = []
    const reading = (async () => {
      for await (const { data } of first.migration.readSession({ name: SOURCE })) {
        arrived.push(Buffer.from(data))
        if (arrived.length === 2) first.close()
      }
    })()
    await reading.catch(() => undefined)
    const fromOffset = String(Buffer.concat(arrived).length)

    await expect(read(SOURCE)).rejects.toMatchObject({ reason: 'BAD_ARGUMENT' })
    let isComplete = false
    for await (const { data, end } of client.migration.readSession({ name: SOURCE, fromOffset })) {
      arrived.push(Buffer.from(data))
      isComplete ||= end?.complete === true
    }
    const whole: Buffer[] = []
    for await (const { data } of client.migration.readSession({ name: SOURCE, fromOffset: '0' }))
      whole.push(Buffer.from(data))

    expect(isComplete).toBe(true)
    expect(digest(Buffer.concat(arrived))).toBe(digest(Buffer.concat(whole)))
    expect(Buffer.concat(whole).length).toBeGreaterThanOrEqual(STATE_BYTES)
    await client.device.resetDevice({ name: SOURCE })
  })

  test('migrates a device that goes on changing until it is stopped', async () => {
    await set(SOURCE, 'MIGRATION_STATE_PRE_COPY')
    const first = await read(SOURCE)
    expect(await client.simulator.step({ steps: 5 })).toEqual({ happened: true })
    await set(SOURCE, 'MIGRATION_STATE_STOP_COPY')
    const stream = Buffer.concat([first, await read(SOURCE)])
    await set(TARGET, 'MIGRATION_STATE_RESUMING')
    await client.migration.writeSession([...pieces(stream)])
    await set(TARGET, 'MIGRATION_STATE_STOP')
    await set(SOURCE, 'MIGRATION_STATE_STOP')

    await set(SOURCE, 'MIGRATION_STATE_STOP_COPY')
    await set(TARGET, 'MIGRATION_STATE_STOP_COPY')

    expect(stream.length).toBeGreaterThan(STATE_BYTES)
    expect(digest(await read(TARGET))).toBe(digest(await read(SOURCE)))
  })

  test('has faults injected, listed and cleared', async () => {
    const fault = {
      fault: 'no info',
      request: 'VFIO_DEVICE_FEATURE',
      device: SOURCE,
      kind: 'FAULT_KIND_ERRNO',
      error: 'EIO',
    } as const
    await client.simulator.injectFault({ fault })

    await expect(client.migration.getMigrationState({ name: SOURCE })).rejects.toMatchObject({
      details: { errno: 'EIO' },
    })
    const { faults } = await client.simulator.listFaults()
    expect(faults).toMatchObject([{ fault: { ...fault, nth: 1 } }])
    expect(Number(faults[0]?.struck)).toBeGreaterThan(0)
    await client.simulator.clearFaults()

    await client.migration.getMigrationState({ name: SOURCE })
    expect((await client.simulator.listFaults()).faults).toEqual([])
  })

  test('has another process hold a group', async () => {
    const fault = {
      fault: 'vm',
      kind: 'FAULT_KIND_HOLD',
      target: '/dev/vfio/12',
      number: 812,
      command: 'qemu',
    } as const
    await client.simulator.injectFault({ fault })
    await client.addressSpace.createSpace({ spaceId: 'held' })

    const added = client.addressSpace.addGroup({ spaceId: 'held', groupId: 12 })

    await expect(added).rejects.toMatchObject({
      reason: 'GROUP_IN_USE',
      message: expect.stringContaining('pid 812 (qemu)'),
    })
    expect((await client.simulator.listFaults()).faults).toMatchObject([{ fault }])
    await client.simulator.clearFaults()
    await client.addressSpace.addGroup({ spaceId: 'held', groupId: 12 })
  })

  test('unplugs a device that no client has open, and plugs it in again', async () => {
    const names = async () =>
      (await client.inventory.listDevices({})).devices.map(({ name }) => name)
    const inject = async (kind: 'FAULT_KIND_UNPLUG' | 'FAULT_KIND_PLUG') => {
      await client.simulator.injectFault({ fault: { fault: 'slot', kind, target: HELD } })
      await client.inventory.listGroups({})
    }
    await client.addressSpace.destroySpace({ spaceId: 'held' })

    await inject('FAULT_KIND_UNPLUG')
    expect(await names()).not.toContain(HELD)
    await inject('FAULT_KIND_PLUG')

    expect(await names()).toContain(HELD)
  })

  test('lives when a client cuts a file that its devices write to', async () => {
    const path = `/dev/shm/vfiod-cut-${process.pid}`
    writeFileSync(path, Buffer.alloc(0x10_0000))
    const fd = openSync(path, 'r+')
    const range = { memoryId: 'cut', offset: '0' }
    const map = async (iova: string) =>
      (
        await client.addressSpace.map({
          spaceId: 'source',
          items: [{ ...range, length: String(0x10_0000), iova, access: 'ACCESS_READ_WRITE' }],
        })
      ).results
    try {
      await registerMemory(client, { memoryId: 'cut', fd })
      expect(await map('0')).toMatchObject([{ code: 0 }])
      ftruncateSync(fd, 0)
      const write = (region: number, offset: number, value: bigint, bytes = 8) => {
        const data = Buffer.alloc(8)
        data.writeBigUInt64LE(value)
        const at = { name: SOURCE, region, offset: String(offset) }
        return client.device.writeRegion({ ...at, data: data.subarray(0, bytes) })
      }
      await write(7, 4, 6n, 2)
      await write(0, ENGINE.start, 0n)
      await write(0, ENGINE.last, 0xf_ffffn)
      await write(0, ENGINE.pagesPerStep, 16n)
      await write(0, ENGINE.control, 1n)
      await client.simulator.step({ steps: 5 })

      expect((await map(String(0x1000_0000)))[0]?.code).not.toBe(0)
      expect((await client.addressSpace.listSpaces({})).spaces).not.toEqual([])
    } finally {
      closeSync(fd)
      unlinkSync(path)
    }
  })

  test('loses a device by surprise', async () => {
    const fault = { fault: 'gone', kind: 'FAULT_KIND_LOSE', target: LOST, call: 'ioctl' } as const
    await client.simulator.injectFault({ fault })
    await client.migration.getMigrationState({ name: SOURCE })

    await expect(client.migration.getMigrationState({ name: LOST })).rejects.toMatchObject({
      reason: 'DEVICE_GONE',
    })
    const { device } = await client.inventory.getDevice({ name: LOST })
    expect(device?.conditions.map(({ kind }) => kind)).toContain('DEVICE_CONDITION_KIND_LOST')
  })
})
