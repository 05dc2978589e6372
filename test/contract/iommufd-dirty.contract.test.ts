/** Dirty tracking on the simulator's IOMMUs, where edu writes: VT-d, and how others differ. */

import { afterAll, afterEach, expect, test } from 'vitest'
import {
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_GET_DIRTY_BITMAP,
  iommu_hwpt_get_dirty_bitmap,
} from '../../src/abi/iommufd.ts'
import { createSim } from '../../src/backends/sim/sim.ts'
import { defaultMachine } from '../../src/backends/sim/spec/default-machine.ts'
import { amdV1, intelVtd, smmuV3 } from '../../src/backends/sim/spec/iommu-models.ts'
import type { IommuSpec } from '../../src/backends/sim/spec/machine-spec.ts'
import { describeModelled } from './backends.ts'
import { EduDriver } from './edu-driver.ts'
import { attach, boundAndAttached, type Iommufd, openIommufd, PAGE } from './iommufd-calls.ts'
import { type BenchDevice, dirtySuite } from './iommufd-dirty-suite.ts'
import { Machine } from './machine.ts'

const describe = describeModelled('the IOMMU of the test machine does not track writes')

const EDU = '0000:00:04.0'
const OTHER_EDU = '0000:00:05.0'
const LARGE_PAGE = 0x20_0000
const BASE = 0x200_0000n

/** The IOMMU tracks for one edu; the other is behind one that does not. */
const benchOn = (iommu: IommuSpec) => {
  const plain: IommuSpec = { ...iommu, model: {} }
  const groups = defaultMachine.groups.map((group) =>
    group.id === 4 ? { ...group, iommu: plain } : group,
  )
  const sim = createSim({ ...defaultMachine, iommu, groups, mdevs: [] }, { time: 'poked' })
  const machine = new Machine('sim', sim.kernel, async () => void sim.step())
  const drivers: EduDriver[] = []
  afterEach(async () => {
    drivers.length = 0
    await machine.cleanUp()
  })
  afterAll(() => machine.restore())

  const device = async (iommufd: Iommufd, ioas: number, name: string): Promise<BenchDevice> => {
    await machine.edus()
    const made = await boundAndAttached(machine, iommufd, name, ioas)
    if (name === EDU) drivers.push(await new EduDriver(machine, made.device).enable())
    return {
      id: made.id,
      hwpt: made.hwpt,
      attach: async (ptId) => (await attach(machine, made.device, ptId)).answer,
    }
  }
  return {
    machine,
    page: 4096n,
    largePage: BigInt(LARGE_PAGE),
    open: () => openIommufd(machine),
    device: (iommufd: Iommufd, ioas: number) => device(iommufd, ioas, EDU),
    plainDevice: (iommufd: Iommufd, ioas: number) => device(iommufd, ioas, OTHER_EDU),
    write: async (_hwpt: number, iovas: readonly bigint[]) => {
      for (const iova of iovas) await drivers.at(-1)?.store(iova + 8n, 8)
    },
    /** Addresses stand for physical ones, so the memory must begin where a large page does. */
    largeMemory: async () => {
      const { segment } = await machine.memory(2 * LARGE_PAGE)
      const skip = (-segment.address & BigInt(LARGE_PAGE - 1)) as typeof segment.address
      return { ...segment, address: (segment.address + skip) as typeof segment.address }
    },
  }
}

describe('a VT-d', () => dirtySuite('dirty tracking', benchOn(intelVtd(48))))

/** One mapping of `pages`, a write into its page `written`, and the bits that are read then. */
const bitsAfterWrite = async (
  bench: ReturnType<typeof benchOn>,
  { pages, written }: { readonly pages: number; readonly written: number },
): Promise<bigint> => {
  const iommufd = await bench.open()
  const ioas = await iommufd.newIoas()
  const { id, attach } = await bench.device(iommufd, ioas)
  const flags = IOMMU_HWPT_ALLOC_DIRTY_TRACKING
  const { out_hwpt_id: hwpt } = await iommufd.hwpt({ dev_id: id, pt_id: ioas, flags })
  await attach(hwpt)
  const { address } = await bench.largeMemory()
  const bitmap = (await bench.machine.memory(4096)).segment
  const length = BigInt(pages) * PAGE
  await iommufd.mapAt(ioas, { iova: BASE, vaddr: address, length })
  await bench.write(hwpt, [BASE + BigInt(written) * PAGE])
  const read = { hwpt_id: hwpt, iova: BASE, length, page_size: PAGE, data: bitmap.address }
  await iommufd.ask(IOMMU_HWPT_GET_DIRTY_BITMAP, iommu_hwpt_get_dirty_bitmap, read)
  const [bits = 0n] = new BigUint64Array(bitmap.bytes.slice(0, 8).buffer)
  await bench.machine.cleanUp()
  return bits
}

describe('dirty tracking of an SMMUv3', () => {
  const bench = benchOn(smmuV3({ granule: 0x1000, addressBits: 48 }))

  test('is on from the start for a hwpt that was made for it', async () => {
    expect(await bitsAfterWrite(bench, { pages: 8, written: 3 })).toBe(0b1000n)
  })
})

describe('dirty tracking of an AMD IOMMU', () => {
  const bench = benchOn({ ...amdV1, model: { dirtyTracking: 'always' } })

  test('is as coarse as the largest power of two that fits', async () => {
    expect(await bitsAfterWrite(bench, { pages: 7, written: 1 })).toBe(0b000_1111n)
    expect(await bitsAfterWrite(bench, { pages: 7, written: 5 })).toBe(0b011_0000n)
    expect(await bitsAfterWrite(bench, { pages: 7, written: 6 })).toBe(0b100_0000n)
  })
})
