/** A device found, bound, opened, and doing DMA into the client's own memory, all through gRPC. */

import { closeSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { VfiodClient } from '../../src/client/client.ts'
import { exportMemory, registerMemory } from '../../src/client/verbs.ts'
import { freeSegment, mapFd, memfdCreate, type Segment } from '../../src/os/memory.ts'
import { unless } from '../contract/backends.ts'
import { describeModes, TYPE1 } from '../modes.ts'
import type { Edu } from './edu.ts'
import { type ReadyDevice, readyDevice } from './ready-device.ts'

/** Less than edu's buffer of 4096 bytes: QEMU 7.2 ends the machine on a transfer of all of it. */
const BYTES = 2048
const LENGTH = 2n << 20n
const IOVA = 0x10_0000n
const SPACE = 'dma-test'

describeModes('DMA', (mode) => {
  const remapping = unless(mode !== TYPE1, 'iommufd has no VFIO_UPDATE_VADDR')
  let ready: ReadyDevice | undefined
  let client: VfiodClient
  let edu: Edu
  let memory: Segment
  let fd: number

  const pattern = (seed: number, length = BYTES): Buffer =>
    Buffer.from(Array.from({ length }, (_, n) => (n * 7 + seed) & 0xff))

  const map = (memoryId: string, iova: bigint) =>
    client.addressSpace.map({
      spaceId: SPACE,
      items: [
        {
          iova: iova.toString(),
          length: LENGTH.toString(),
          memoryId,
          offset: '0',
          access: 'ACCESS_READ_WRITE',
        },
      ],
    })

  beforeAll(async () => {
    ready = await readyDevice(mode, { spaceId: SPACE, length: LENGTH, iova: IOVA })
    const { client: its, edu: first, memory: mine, fd: memfd } = ready
    client = its
    edu = first
    memory = mine
    fd = memfd
  })

  afterAll(() => ready?.stop())

  // One story, told in order.
  describe('edu through gRPC', { shuffle: false }, () => {
    test('answers its identification register', async () => {
      expect(await edu.identification()).toBe(0x010000ed)
    })

    test("copies the client's bytes by DMA to another page of the client's memory", async () => {
      const bytes = pattern(1)
      memory.view(0, BYTES).set(bytes)
      memory.view(8192, BYTES).fill(0)

      await edu.copyIn(IOVA, BYTES)
      await edu.copyOut(IOVA + 8192n, BYTES)

      expect(Buffer.from(memory.view(8192, BYTES))).toEqual(bytes)
    })

    remapping(
      'goes on with DMA while the vaddr of its mapping is invalid, and after the update',
      async () => {
        const { space } = await client.addressSpace.getSpace({ spaceId: SPACE })
        expect(space).toMatchObject({ canRemap: true, remapBlocked: '' })
        const [before, meanwhile, after] = [pattern(2), pattern(3), pattern(4)]

        memory.view(0, BYTES).set(before)
        await edu.copyIn(IOVA, BYTES)
        await client.addressSpace.invalidateVaddr({ spaceId: SPACE, all: true })
        await edu.copyOut(IOVA + 4096n, BYTES)
        memory.view(0, BYTES).set(meanwhile)
        await edu.copyIn(IOVA, BYTES)
        const { results } = await client.addressSpace.updateVaddr({ spaceId: SPACE, all: true })
        await edu.copyOut(IOVA + 12288n, BYTES)
        memory.view(0, BYTES).set(after)
        await edu.copyIn(IOVA, BYTES)
        await edu.copyOut(IOVA + 16384n, BYTES)

        expect(results).toMatchObject([{ code: 0 }])
        expect(Buffer.from(memory.view(4096, BYTES))).toEqual(before)
        expect(Buffer.from(memory.view(12288, BYTES))).toEqual(meanwhile)
        expect(Buffer.from(memory.view(16384, BYTES))).toEqual(after)
      },
    )

    remapping(
      'goes on with the same file registered a second time, and refuses another file',
      async () => {
        const other = memfdCreate('other-memory', LENGTH)
        for (const [memoryId, what] of [
          ['ram-again', fd],
          ['not-ram', other],
        ] as const)
          await registerMemory(client, { memoryId, fd: what })
        const update = (memoryId: string) =>
          client.addressSpace.updateVaddr({
            spaceId: SPACE,
            items: [{ iova: IOVA.toString(), length: LENGTH.toString(), memoryId, offset: '0' }],
          })
        await client.addressSpace.invalidateVaddr({ spaceId: SPACE, all: true })

        const refused = await update('not-ram')
        const taken = await update('ram-again')
        const bytes = pattern(5)
        memory.view(0, BYTES).set(bytes)
        await edu.copyIn(IOVA, BYTES)
        await edu.copyOut(IOVA + 4096n, BYTES)

        expect(refused.results).toMatchObject([{ reason: 'DIFFERENT_MEMORY' }])
        expect(taken.results).toMatchObject([{ code: 0 }])
        expect(Buffer.from(memory.view(4096, BYTES))).toEqual(bytes)
        closeSync(other)
      },
    )

    test('reaches memory that the daemon allocated and exported', async () => {
      await client.memory.allocateMemory({ memoryId: 'pool', length: LENGTH.toString() })
      const poolFd = await exportMemory(client, 'pool')
      const pool = await mapFd(poolFd, { offset: 0n, length: LENGTH, access: 'read-write' })
      if (typeof pool === 'number') throw new Error(`mmap answered ${pool}`)
      const bytes = pattern(6)
      pool.view(0, BYTES).set(bytes)
      await map('pool', 0x100_0000n)

      await edu.copyIn(0x100_0000n, BYTES)
      await edu.copyOut(0x100_0000n + 4096n, BYTES)

      expect(Buffer.from(pool.view(4096, BYTES))).toEqual(bytes)
      freeSegment(pool)
      closeSync(poolFd)
    })

    test('refuses to map over a mapping, and says which one', async () => {
      const { results } = await map('ram', IOVA + 0x1000n)

      expect(results).toMatchObject([{ reason: 'IOVA_IN_USE' }])
      expect(results[0]?.message).toContain('0x100000..0x2fffff of memory')
    })

    test('counts what is unmapped, and a hole does not count', async () => {
      const { unmappedBytes, results } = await client.addressSpace.unmap({
        spaceId: SPACE,
        items: [{ iova: '0', length: 0x4000_0000n.toString() }],
      })

      expect(results).toMatchObject([{ code: 0 }])
      expect(BigInt(unmappedBytes)).toBe(2n * LENGTH)
      const { mappings } = await client.addressSpace.listMappings({ spaceId: SPACE })
      expect(mappings).toEqual([])
    })
  })
})
