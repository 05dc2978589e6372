/** Nested hwpts of a VT-d that can: the kernel's alloc_hwpt_nested, on a machine with no such IOMMU. */

import { afterAll, afterEach, beforeEach, expect, test } from 'vitest'
import {
  IOMMU_FAULT_QUEUE_ALLOC,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_DATA_VTD_S1,
  IOMMU_HWPT_FAULT_ID_VALID,
  IOMMU_HWPT_INVALIDATE,
  iommu_fault_alloc,
  iommu_hwpt_invalidate,
  iommu_hwpt_vtd_s1,
} from '../../src/abi/iommufd.ts'
import { createSim } from '../../src/backends/sim/sim.ts'
import { defaultMachine } from '../../src/backends/sim/spec/default-machine.ts'
import { intelVtd } from '../../src/backends/sim/spec/iommu-models.ts'
import type { Segment } from '../../src/os/memory.ts'
import { describeModelled } from './backends.ts'
import { attach, boundAndAttached, detach, type Iommufd, openIommufd } from './iommufd-calls.ts'
import { Machine } from './machine.ts'

const describe = describeModelled('the IOMMU of the test machine has no nesting')

const EDU = '0000:00:04.0'
const ENTRY = 24
/** What the IOMMU keeps for interrupts. */
const MSI = 0xfee0_0000n

const sim = createSim({ ...defaultMachine, iommu: intelVtd(48), mdevs: [] }, { time: 'poked' })
const machine = new Machine('sim', sim.kernel, async () => void sim.step())
afterEach(() => machine.cleanUp())
afterAll(() => machine.restore())

let iommufd: Iommufd
let ioas: number
let device: number
let id: number
let parent: number
let memory: Segment

const NESTED = { data_type: IOMMU_HWPT_DATA_VTD_S1, data_len: iommu_hwpt_vtd_s1.size }
const nested = (values: object = {}) =>
  iommufd.hwpt({ dev_id: id, pt_id: parent, ...NESTED, data_uptr: memory.address, ...values })

beforeEach(async () => {
  await machine.edus()
  iommufd = await openIommufd(machine)
  ioas = await iommufd.newIoas()
  const made = await boundAndAttached(machine, iommufd, EDU, ioas)
  device = made.device
  id = made.id
  const flags = IOMMU_HWPT_ALLOC_NEST_PARENT
  const hwpt = await iommufd.hwpt({ dev_id: id, pt_id: ioas, flags })
  expect(hwpt.answer).toBe(0)
  parent = hwpt.out_hwpt_id
  memory = (await machine.memory(4096)).segment
})

describe('a nested hwpt (alloc_hwpt_nested)', () => {
  test('keeps its parent in use: EBUSY', async () => {
    const child = await nested()
    expect(child.answer).toBe(0)

    expect(await iommufd.destroy(parent)).toBe('EBUSY')
    expect(await iommufd.destroy(child.out_hwpt_id)).toBe(0)
    expect(await iommufd.destroy(parent)).toBe(0)
  })

  test('is not a parent itself: EINVAL', async () => {
    const child = await nested()

    expect((await nested({ pt_id: child.out_hwpt_id })).answer).toBe('EINVAL')
  })

  test('needs data of the right type and length: EOPNOTSUPP, EINVAL, E2BIG, EFAULT', async () => {
    expect((await nested({ data_type: 2 })).answer).toBe('EOPNOTSUPP')
    expect((await nested({ data_len: 23 })).answer).toBe('EINVAL')
    expect((await nested({ data_uptr: 0n })).answer).toBe('EINVAL')
    expect((await nested({ data_uptr: 4096n })).answer).toBe('EFAULT')
    expect((await nested({ data_len: 32 })).answer).toBe(0)
    memory.bytes[31] = 1
    expect((await nested({ data_len: 32 })).answer).toBe('E2BIG')
  })

  test('is attached, replaced by another and left as hwpts are', async () => {
    const [one, two] = [(await nested()).out_hwpt_id, (await nested()).out_hwpt_id]

    expect(await attach(machine, device, one)).toEqual({ answer: 0, id: one })
    expect(await iommufd.destroy(one)).toBe('EBUSY')
    expect(await attach(machine, device, two)).toEqual({ answer: 0, id: two })
    expect(await iommufd.destroy(one)).toBe(0)
    expect((await attach(machine, device, ioas)).answer).toBe(0)
    expect(await iommufd.destroy(two)).toBe(0)
  })

  test('keeps the fault queue in use: EBUSY; which devices without faults refuse: ENODEV', async () => {
    const queue = await iommufd.ask(IOMMU_FAULT_QUEUE_ALLOC, iommu_fault_alloc, {})
    machine.track(queue.out_fault_fd)
    const flags = IOMMU_HWPT_FAULT_ID_VALID
    expect((await nested({ flags, fault_id: 0 })).answer).toBe('ENOENT')
    const child = await nested({ flags, fault_id: queue.out_fault_id })
    await machine.close(queue.out_fault_fd)

    expect(await iommufd.destroy(queue.out_fault_id)).toBe('EBUSY')
    expect((await attach(machine, device, child.out_hwpt_id)).answer).toBe('ENODEV')
    expect(await detach(machine, device)).toBe(0)
    expect((await attach(machine, device, child.out_hwpt_id)).answer).toBe('ENODEV')
    // What it refused has reserved nothing.
    expect(await iommufd.mapAt(ioas, { iova: MSI, vaddr: memory.address, length: 4096n })).toBe(0)
    expect((await iommufd.unmap(ioas, MSI, 4096n)).answer).toBe(0)
    expect(await iommufd.destroy(child.out_hwpt_id)).toBe(0)
    expect(await iommufd.destroy(queue.out_fault_id)).toBe(0)
  })
})

describe('IOMMU_HWPT_INVALIDATE', () => {
  const invalidate = async (values: object = {}) => {
    const hwpt_id = (await nested()).out_hwpt_id
    const entries = { data_uptr: memory.address, entry_len: ENTRY, entry_num: 3 }
    const request = { hwpt_id, ...entries, ...values }
    const done = await iommufd.ask(IOMMU_HWPT_INVALIDATE, iommu_hwpt_invalidate, request)
    return { answer: done.answer, done: done.entry_num }
  }

  test('does all entries, or none', async () => {
    expect(await invalidate()).toEqual({ answer: 0, done: 3 })
    expect(await invalidate({ entry_num: 0, data_uptr: 0n })).toEqual({ answer: 0, done: 0 })
  })

  test('says how many were done before one that is wrong', async () => {
    const view = new DataView(memory.bytes.buffer, memory.bytes.byteOffset)
    view.setUint32(2 * ENTRY + 16, 2, true)
    expect(await invalidate()).toEqual({ answer: 'EOPNOTSUPP', done: 2 })
    view.setUint32(2 * ENTRY + 16, 0, true)
    view.setBigUint64(ENTRY, 1n, true)
    expect(await invalidate()).toEqual({ answer: 'EINVAL', done: 1 })
  })

  test('refuses another type and short entries: EINVAL', async () => {
    expect(await invalidate({ data_type: 7 })).toEqual({ answer: 'EINVAL', done: 0 })
    expect(await invalidate({ entry_len: 23 })).toEqual({ answer: 'EINVAL', done: 0 })
  })
})
