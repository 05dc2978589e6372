/**
 * Dirty bits of the IOMMU under the DMA of a device at work: what they say is what memory says, in
 * each step of time.
 */

import { afterEach, expect, test } from 'vitest'
import {
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_GET_DIRTY_BITMAP,
  IOMMU_HWPT_SET_DIRTY_TRACKING,
  iommu_hwpt_get_dirty_bitmap,
  iommu_hwpt_set_dirty_tracking,
} from '../../src/abi/iommufd.ts'
import { createSim, type Sim } from '../../src/backends/sim/sim.ts'
import { amdV1, intelVtd, smmuV3 } from '../../src/backends/sim/spec/iommu-models.ts'
import type { IommuSpec, WorkloadSpec } from '../../src/backends/sim/spec/machine-spec.ts'
import type { Segment } from '../../src/os/memory.ts'
import { describeModelled } from './backends.ts'
import { attach, bound, type Iommufd, openIommufd, PAGE } from './iommufd-calls.ts'
import { Machine } from './machine.ts'
import { VendorDriver, vendorMachine } from './vendor-machine.ts'

const describe = describeModelled('the test machine has no device of these vendors')

const BASE = 0x100_0000n
const PAGES = 256
const LENGTH = BigInt(PAGES) * PAGE
const RANGE = { start: BASE, last: BASE + LENGTH - 1n }

const MODELS: [string, IommuSpec][] = [
  ['a VT-d', intelVtd(48)],
  ['an AMD IOMMU', amdV1],
  ['an SMMUv3', smmuV3({ granule: 0x1000, addressBits: 48 })],
]
const PATTERNS: WorkloadSpec['pattern'][] = ['sequential', 'random', 'hot']

for (const [name, iommu] of MODELS)
  describe(`dirty bits of ${name}`, () => {
    let machine: Machine
    let sim: Sim
    let iommufd: Iommufd
    let hwpt: number
    let driver: VendorDriver
    let memory: Segment
    let bitmap: Segment

    const ready = async (pattern: WorkloadSpec['pattern']): Promise<void> => {
      const workload = { range: RANGE, pagesPerStep: 7, pattern }
      const spec = vendorMachine([['mlx5-like', { workload }]])
      sim = createSim({ ...spec, iommu }, { time: 'poked' })
      machine = new Machine('sim', sim.kernel, async () => void sim.step())
      iommufd = await openIommufd(machine)
      const ioas = await iommufd.newIoas()
      // Pages of 4 KiB, whatever the IOMMU could do.
      expect(await iommufd.setHugePages(ioas, 0n)).toBe(0)
      memory = (await machine.memory(Number(LENGTH))).segment
      bitmap = (await machine.memory(4096)).segment
      await iommufd.mapAt(ioas, { iova: BASE, vaddr: memory.address, length: LENGTH })
      const { device, id } = await bound(machine, iommufd, spec.addresses[0] ?? '')
      const flags = IOMMU_HWPT_ALLOC_DIRTY_TRACKING
      hwpt = (await iommufd.hwpt({ dev_id: id, pt_id: ioas, flags })).out_hwpt_id
      expect((await attach(machine, device, hwpt)).answer).toBe(0)
      await track(true)
      driver = await new VendorDriver(machine, device).enable()
    }

    const track = async (isOn: boolean): Promise<void> => {
      const values = { hwpt_id: hwpt, flags: isOn ? 1 : 0 }
      const codec = iommu_hwpt_set_dirty_tracking
      expect((await iommufd.ask(IOMMU_HWPT_SET_DIRTY_TRACKING, codec, values)).answer).toBe(0)
    }

    /** The pages whose bits are set since the last time. */
    const dirty = async (): Promise<number[]> => {
      bitmap.bytes.fill(0)
      const read = { hwpt_id: hwpt, iova: BASE, length: LENGTH, page_size: PAGE }
      const values = { ...read, data: bitmap.address }
      const codec = iommu_hwpt_get_dirty_bitmap
      expect((await iommufd.ask(IOMMU_HWPT_GET_DIRTY_BITMAP, codec, values)).answer).toBe(0)
      return pagesWhere((page) => ((bitmap.bytes[page >> 3] ?? 0) & (1 << (page & 7))) !== 0)
    }

    const pagesWhere = (isMeant: (page: number) => boolean): number[] =>
      Array.from({ length: PAGES }, (_, page) => page).filter(isMeant)

    /** The pages that differ from what they were. */
    const changed = (before: Uint8Array): number[] =>
      pagesWhere((page) => {
        const [from, to] = [page * 4096, (page + 1) * 4096]
        return Buffer.compare(before.subarray(from, to), memory.bytes.subarray(from, to)) !== 0
      })

    afterEach(() => machine.cleanUp())

    test.each(PATTERNS)('are the pages that a %s workload wrote, step by step', async (pattern) => {
      await ready(pattern)
      const seen = new Set<number>()
      for (let round = 0; round < 12; round++) {
        const before = memory.bytes.slice()
        for (let steps = 0; steps <= round % 3; steps++) sim.step()

        const pages = await dirty()
        expect(pages).toEqual(changed(before))
        expect(pages.length).toBeGreaterThan(0)
        for (const page of pages) seen.add(page)
      }
      expect(seen.size).toBeGreaterThan(7)
    })

    test('are none once the device is stopped, and those of its last writes before', async () => {
      await ready('random')
      const before = memory.bytes.slice()
      sim.step()
      await driver.set('STOP')

      expect(await dirty()).toEqual(changed(before))
      const after = memory.bytes.slice()
      for (let steps = 0; steps < 3; steps++) sim.step()

      expect(changed(after)).toEqual([])
      expect(await dirty()).toEqual([])
    })
  })
