/** What the real kernel refuses, with the cause that vfiod finds out. */

import {
  closeSync,
  ftruncateSync,
  openSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { VfiodClient } from '../../src/client/client.ts'
import { registerMemory } from '../../src/client/verbs.ts'
import { type Daemon, eduDevices, groupOf, openIn, startDaemon } from '../system/world.ts'

const CONFIG = 7
const COMMAND = '4'
const PAGE = 4096

let daemon: Daemon
let client: VfiodClient
let name: string

beforeAll(async () => {
  daemon = await startDaemon()
  client = daemon.client()
  const [first] = await eduDevices(client)
  if (first === undefined) throw new Error('the machine has no edu device')
  name = first
  await client.inventory.bindDevices({ devices: [name] })
})

afterAll(async () => {
  await client?.inventory.unbindDevices({ devices: [name] })
  expect(await daemon?.stop()).toBe(0)
})

test('a BAR is DECODING_OFF while memory decoding is off in COMMAND, and answers afterwards', async () => {
  await openIn(client, 'decoding', name)
  const command = (bits: number) =>
    client.device.writeRegion({
      name,
      region: CONFIG,
      offset: COMMAND,
      data: Buffer.from([bits, 0]),
    })
  const read = () => client.device.readRegion({ name, region: 0, offset: '0', length: 4 })
  await command(0)

  await expect(read()).rejects.toMatchObject({
    reason: 'DECODING_OFF',
    details: { op: 'pread of a region', errno: 'EIO', causes: ['decoding-off'] },
  })

  await command(2)
  const { data } = await read()
  expect(data).toHaveLength(4)
  await client.addressSpace.destroySpace({ spaceId: 'decoding' })
})

test('a group whose node was taken away is NODE_MISSING, and works once it is back', async () => {
  const groupId = await groupOf(client, name)
  const node = `/dev/vfio/${groupId}`
  await client.addressSpace.createSpace({ spaceId: 'node' })
  renameSync(node, `${node}.away`)
  try {
    await expect(client.addressSpace.addGroup({ spaceId: 'node', groupId })).rejects.toMatchObject({
      reason: 'NODE_MISSING',
      details: { op: 'open /dev/vfio/GROUP', errno: 'ENOENT', causes: ['group-node-missing'] },
    })
  } finally {
    renameSync(`${node}.away`, node)
  }
  const { space } = await client.addressSpace.addGroup({ spaceId: 'node', groupId })
  expect(space).toMatchObject({ state: 'SPACE_STATE_READY' })
  await client.addressSpace.destroySpace({ spaceId: 'node' })
})

test('a mapping of a file that was cut says how long the file is by now', async () => {
  const path = '/dev/shm/vfiod-cut'
  writeFileSync(path, Buffer.alloc(4 * PAGE))
  const fd = openSync(path, 'r+')
  const memoryId = 'cut'
  await registerMemory(client, { memoryId, fd })
  await openIn(client, 'cut', name)
  ftruncateSync(fd, PAGE)

  const item = { length: String(4 * PAGE), memoryId, access: 'ACCESS_READ' } as const
  const mapped = client.addressSpace.map({ spaceId: 'cut', items: [item], allOrNothing: true })

  await expect(mapped).rejects.toMatchObject({
    reason: 'OUT_OF_MEMORY_OBJECT',
    message: expect.stringContaining('has 0x1000 bytes by now, and the range ends at 0x4000'),
    details: { errno: 'EFAULT', causes: ['file-cut'] },
  })
  await client.addressSpace.destroySpace({ spaceId: 'cut' })
  closeSync(fd)
})

test('huge pages that are used up say which pool, and how many are there', async () => {
  const pool = '/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages'
  writeFileSync(pool, '1')
  const total = BigInt(readFileSync(pool, 'utf8').trim())
  const length = String(2n ** 30n)

  const allocated = client.memory.allocateMemory({
    memoryId: 'huge',
    length,
    hugePage: 'HUGE_PAGE_2M',
  })

  await expect(allocated).rejects.toMatchObject({
    reason: 'LIMIT_REACHED',
    details: {
      causes: ['hugetlb-pool-empty'],
      quota: { limit: 'huge pages of 2 MiB', max: total, needed: 2n ** 9n },
    },
  })
  writeFileSync(pool, '0')
})
