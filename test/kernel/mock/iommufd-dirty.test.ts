/** Dirty tracking on the kernel's mock domain: the suite that the simulator passes as well. */

import { writeFileSync } from 'node:fs'
import { afterEach, beforeAll } from 'vitest'
import { linuxKernel } from '../../../src/backends/linux/kernel.ts'
import { mapFd, memfdCreate, type Segment } from '../../../src/os/memory.ts'
import { must } from '../../contract/answers.ts'
import { type Iommufd, openIommufd } from '../../contract/iommufd-calls.ts'
import { type BenchDevice, dirtySuite } from '../../contract/iommufd-dirty-suite.ts'
import { Machine } from '../../contract/machine.ts'
import {
  attachDevice,
  DEVICE_HUGE_IOVA,
  DEVICE_NO_DIRTY,
  markDirty,
  newDevice,
} from './test-command.ts'

const PAGE = 2048n
/** 512 pages of the mock. */
const LARGE_PAGE = 0x10_0000n

const machine = new Machine('linux', linuxKernel(), async () => {})
let opened: Iommufd | undefined

const device = async (iommufd: Iommufd, ioas: number, flags: number): Promise<BenchDevice> => {
  const { device: stdev, id, hwpt } = await newDevice(iommufd, ioas, flags)
  return { id, hwpt, attach: (ptId) => attachDevice(iommufd, stdev, ptId) }
}

const write = async (hwpt: number, iovas: readonly bigint[]): Promise<void> => {
  const { segment } = await machine.memory(4096)
  segment.bytes[0] = 1
  for (const iova of iovas) {
    const one = { iova, length: PAGE, page_size: PAGE, uptr: segment.address }
    if (opened) await markDirty(opened, hwpt, one)
  }
}

/** Only huge pages of the CPU are sure to be contiguous. */
const largeMemory = async (): Promise<Segment> => {
  const fd = must(memfdCreate('large', 0x20_0000n, { hugePage: '2M' }), 'make large memory')
  const segment = await mapFd(fd, { offset: 0n, length: 0x20_0000n, access: 'read-write' })
  if (typeof segment === 'number') throw new Error(`Cannot map large memory: ${segment}`)
  return segment
}

beforeAll(() => writeFileSync('/proc/sys/vm/nr_hugepages', '16'))
afterEach(() => machine.cleanUp())

dirtySuite('dirty tracking of the mock domain', {
  machine,
  page: PAGE,
  largePage: LARGE_PAGE,
  open: async () => {
    opened = await openIommufd(machine)
    return opened
  },
  device: (iommufd, ioas) => device(iommufd, ioas, DEVICE_HUGE_IOVA),
  plainDevice: (iommufd, ioas) => device(iommufd, ioas, DEVICE_NO_DIRTY),
  write,
  largeMemory,
})
