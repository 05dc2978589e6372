/** IOMMU_TEST_CMD of a kernel with CONFIG_IOMMUFD_TEST: its mock devices, and what they write. */

import { io } from '../../../src/abi/ioctl.ts'
import { type FieldType, struct } from '../../../src/abi/layout.ts'
import type { Said } from '../../contract/answers.ts'
import type { Iommufd } from '../../contract/iommufd-calls.ts'

const IOMMU_TEST_CMD = io('iommufd', 'IOMMU_TEST_CMD', 0xa0, 'undescribed')

const OP = {
  addReserved: 1,
  checkMap: 3,
  checkRefs: 4,
  createAccess: 5,
  destroyAccessPages: 6,
  accessPages: 7,
  accessRw: 8,
  memoryLimit: 9,
  replace: 10,
  accessReplaceIoas: 11,
  deviceFlags: 12,
  dirty: 13,
} as const

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

const head = { size: 'u32', op: 'u32', id: 'u32', __reserved: 'u32' } as const
const testCmd = <F extends Readonly<Record<string, FieldType>>>(fields: F) =>
  struct('iommu_test_cmd', { ...head, ...fields }, { size: 72 })

const checkMap = testCmd({ iova: 'u64', length: 'u64', uptr: 'u64' })
const checkRefs = testCmd({ length: 'u64', uptr: 'u64', refs: 'u32' })
const newAccess = testCmd({ out_access_fd: 's32', flags: 'u32' })
const accessPages = testCmd({
  flags: 'u32',
  out_access_pages_id: 'u32',
  iova: 'u64',
  length: 'u64',
  uptr: 'u64',
})
const destroyPages = testCmd({ access_pages_id: 'u32' })
const accessRw = testCmd({ iova: 'u64', length: 'u64', uptr: 'u64', flags: 'u32' })
const accessReplace = testCmd({ ioas_id: 'u32' })
const limit = testCmd({ limit: 'u64' })

const ACCESS_NEEDS_PIN_PAGES = 1
const ACCESS_WRITE = 1

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

/** Whether the page table of a hwpt leads to the memory at `uptr`, page by page: EINVAL if not. */
export const checkMapped = async (
  iommufd: Iommufd,
  hwpt: number,
  at: { readonly iova: bigint; readonly length: bigint; readonly uptr: bigint },
): Promise<Said> =>
  (await iommufd.ask(IOMMU_TEST_CMD, checkMap, { op: OP.checkMap, id: hwpt, ...at })).answer

/** Whether every page at `uptr` is held exactly so often: EIO if not. */
export const checkHeld = async (
  iommufd: Iommufd,
  at: { readonly length: bigint; readonly uptr: bigint; readonly refs: number },
): Promise<Said> =>
  (await iommufd.ask(IOMMU_TEST_CMD, checkRefs, { op: OP.checkRefs, ...at })).answer

/** How much memory one step of pinning may take: small, so that it takes many. */
export const setMemoryLimit = async (iommufd: Iommufd, bytes: bigint): Promise<Said> =>
  (await iommufd.ask(IOMMU_TEST_CMD, limit, { op: OP.memoryLimit, limit: bytes })).answer

/** An access of the ioas, as an fd. One that does not pin has no alignment either. */
export const openAccess = async (
  iommufd: Iommufd,
  ioas: number,
  { pins = true } = {},
): Promise<number> => {
  const values = { op: OP.createAccess, id: ioas, flags: pins ? ACCESS_NEEDS_PIN_PAGES : 0 }
  const made = await iommufd.ask(IOMMU_TEST_CMD, newAccess, values)
  if (made.answer !== 0) throw new Error(`Cannot make an access: ${made.answer}`)
  return made.out_access_fd
}

/** What an access reaches, and the memory that goes with it. */
interface AccessRange {
  readonly iova: bigint
  readonly length: bigint
  readonly uptr: bigint
  readonly isWritten: boolean
}

/** Pins, and fails with EINVAL where the pages are not those at `uptr`. */
export const pinAccess = async (
  iommufd: Iommufd,
  access: number,
  { isWritten, ...at }: AccessRange,
) => {
  const values = { op: OP.accessPages, id: access, flags: isWritten ? ACCESS_WRITE : 0, ...at }
  const done = await iommufd.ask(IOMMU_TEST_CMD, accessPages, values)
  return { answer: done.answer, id: done.out_access_pages_id }
}

export const unpinAccess = async (iommufd: Iommufd, access: number, id: number): Promise<Said> => {
  const values = { op: OP.destroyAccessPages, id: access, access_pages_id: id }
  return (await iommufd.ask(IOMMU_TEST_CMD, destroyPages, values)).answer
}

/** Between memory behind the ioas and memory at `uptr`. */
export const copyAccess = async (
  iommufd: Iommufd,
  access: number,
  { isWritten, ...at }: AccessRange,
): Promise<Said> => {
  const values = { op: OP.accessRw, id: access, flags: isWritten ? ACCESS_WRITE : 0, ...at }
  return (await iommufd.ask(IOMMU_TEST_CMD, accessRw, values)).answer
}

export const moveAccess = async (
  iommufd: Iommufd,
  access: number,
  ioas_id: number,
): Promise<Said> => {
  const values = { op: OP.accessReplaceIoas, id: access, ioas_id }
  return (await iommufd.ask(IOMMU_TEST_CMD, accessReplace, values)).answer
}
