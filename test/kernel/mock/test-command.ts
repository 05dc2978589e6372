/** IOMMU_TEST_CMD of a kernel with CONFIG_IOMMUFD_TEST: its mock devices, and what they write. */

import { io } from '../../../src/abi/ioctl.ts'
import { struct } from '../../../src/abi/layout.ts'
import type { Iommufd } from '../../contract/iommufd-calls.ts'

const IOMMU_TEST_CMD = io<'iommufd'>('IOMMU_TEST_CMD', 0xa0)

const OP = { addReserved: 1, replace: 10, deviceFlags: 12, dirty: 13 } as const

export const DEVICE_NO_DIRTY = 1
export const DEVICE_HUGE_IOVA = 2

/** The head is common; what follows means something else for each operation. */
const mockDomain = struct(
  'iommu_test_cmd',
  {
    size: 'u32',
    op: 'u32',
    id: 'u32',
    __reserved: 'u32',
    out_stdev_id: 'u32',
    out_hwpt_id: 'u32',
    out_idev_id: 'u32',
    dev_flags: 'u32',
  },
  { size: 72 },
)

const replace = struct(
  'iommu_test_cmd',
  { size: 'u32', op: 'u32', id: 'u32', __reserved: 'u32', pt_id: 'u32' },
  { size: 72 },
)

const dirty = struct(
  'iommu_test_cmd',
  {
    size: 'u32',
    op: 'u32',
    id: 'u32',
    __reserved: 'u32',
    flags: 'u32',
    __pad: 'u32',
    iova: 'u64',
    length: 'u64',
    page_size: 'u64',
    uptr: 'u64',
    out_nr_dirty: 'u64',
  },
  { size: 72 },
)

const reserved = struct(
  'iommu_test_cmd',
  { size: 'u32', op: 'u32', id: 'u32', __reserved: 'u32', start: 'u64', length: 'u64' },
  { size: 72 },
)

/** A device that is bound and attached to the ioas. */
export const newDevice = async (iommufd: Iommufd, ioas: number, dev_flags: number) => {
  const values = { op: OP.deviceFlags, id: ioas, dev_flags }
  const made = await iommufd.ask(IOMMU_TEST_CMD, mockDomain, values)
  if (made.answer !== 0) throw new Error(`Cannot make a mock device: ${made.answer}`)
  return { device: made.out_stdev_id, id: made.out_idev_id, hwpt: made.out_hwpt_id }
}

export const attachDevice = async (iommufd: Iommufd, device: number, pt_id: number) =>
  (await iommufd.ask(IOMMU_TEST_CMD, replace, { op: OP.replace, id: device, pt_id })).answer

/** Marks the pages whose bits are set in a bitmap at `uptr`; answers how many there were. */
export const markDirty = async (
  iommufd: Iommufd,
  hwpt: number,
  range: {
    readonly iova: bigint
    readonly length: bigint
    readonly page_size: bigint
    readonly uptr: bigint
  },
): Promise<bigint> => {
  const done = await iommufd.ask(IOMMU_TEST_CMD, dirty, { op: OP.dirty, id: hwpt, ...range })
  if (done.answer !== 0) throw new Error(`Cannot mark pages dirty: ${done.answer}`)
  return done.out_nr_dirty
}

/** Keeps a range out of the ioas, as the regions of a device do. */
export const addReserved = async (
  iommufd: Iommufd,
  ioas: number,
  range: { readonly start: bigint; readonly length: bigint },
) =>
  (await iommufd.ask(IOMMU_TEST_CMD, reserved, { op: OP.addReserved, id: ioas, ...range })).answer
