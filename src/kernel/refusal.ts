/**
 * Translates the `-errno` of a kernel into the one VfiodError. This is the only reader of errno above
 * the backends. The meaning of an errno depends on the operation, so (operation, errno) is looked up
 * first, errno alone after.
 */

import { ERRNO, errnoName } from '../base/errno.ts'
import { type Details, type Reason, VfiodError } from '../base/error.ts'
import { rlimit } from '../os/limits.ts'

type Table = Readonly<Record<string, Reason>>

/** What an errno means when nothing more is known of the operation. */
const ANY: Table = {
  EPERM: 'KERNEL_DENIED',
  EACCES: 'KERNEL_DENIED',
  EIO: 'DEVICE_GONE',
  ENXIO: 'DEVICE_GONE',
  ENODEV: 'DEVICE_GONE',
  ENOTTY: 'UNSUPPORTED',
  EOPNOTSUPP: 'UNSUPPORTED',
  E2BIG: 'UNSUPPORTED',
  ENOMEM: 'MEMLOCK_EXCEEDED',
  EMFILE: 'LIMIT_REACHED',
  ENFILE: 'LIMIT_REACHED',
  EBADF: 'BUG',
  EMSGSIZE: 'BUG',
}

/** What an errno means to one operation; the rules are those of the named ioctl. */
const OF_OPERATION: Readonly<Record<string, Table>> = {
  'open /dev/vfio/GROUP': {
    EBUSY: 'GROUP_IN_USE',
    ENOENT: 'NO_SUCH_GROUP',
    ENODEV: 'NO_SUCH_GROUP',
  },
  'open /dev/vfio/vfio': { ENOENT: 'UNSUPPORTED', ENODEV: 'UNSUPPORTED' },
  VFIO_SET_IOMMU: { ENODEV: 'UNSUPPORTED', EINVAL: 'UNSUPPORTED', EBUSY: 'GROUP_IN_USE' },
  VFIO_GROUP_SET_CONTAINER: {
    EPERM: 'GROUP_NOT_VIABLE',
    EBUSY: 'VADDR_INVALID',
    EINVAL: 'IOVA_IN_USE',
    EFAULT: 'IOVA_IN_USE',
    ENODEV: 'NO_SUCH_GROUP',
  },
  VFIO_GROUP_UNSET_CONTAINER: { EBUSY: 'SPACE_IN_USE', EINVAL: 'SPACE_NOT_READY' },
  VFIO_GROUP_GET_DEVICE_FD: {
    ENODEV: 'NO_SUCH_DEVICE',
    EINVAL: 'SPACE_NOT_READY',
    EBUSY: 'DEVICE_IN_USE',
  },
  VFIO_IOMMU_MAP_DMA: {
    EEXIST: 'IOVA_IN_USE',
    ENOSPC: 'TOO_MANY_MAPPINGS',
    EINVAL: 'IOVA_OUT_OF_APERTURE',
    EOVERFLOW: 'BAD_RANGE',
    EFAULT: 'OUT_OF_MEMORY_OBJECT',
  },
  VFIO_DMA_MAP_FLAG_VADDR: {
    ENOENT: 'IOVA_NOT_MAPPED',
    EINVAL: 'VADDR_VALID',
    EBUSY: 'REMAP_BLOCKED',
    EOPNOTSUPP: 'REMAP_BLOCKED',
  },
  VFIO_IOMMU_UNMAP_DMA: { EINVAL: 'MAPPING_STRADDLES', EOVERFLOW: 'BAD_RANGE' },
  VFIO_DMA_UNMAP_FLAG_VADDR: { EINVAL: 'VADDR_INVALID', EBUSY: 'REMAP_BLOCKED' },
  VFIO_IOMMU_DIRTY_PAGES_FLAG_START: { EINVAL: 'UNSUPPORTED', ENOMEM: 'LIMIT_REACHED' },
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START: { EEXIST: 'TRACKING_STARTED', ENOMEM: 'LIMIT_REACHED' },
  VFIO_DEVICE_GET_REGION_INFO: { EINVAL: 'NO_SUCH_REGION' },
  VFIO_DEVICE_GET_IRQ_INFO: { EINVAL: 'NO_SUCH_IRQ' },
  VFIO_DEVICE_SET_IRQS: {
    EINVAL: 'NO_SUCH_IRQ',
    EBUSY: 'DEVICE_IN_USE',
    ENOSPC: 'LIMIT_REACHED',
    ENOMEM: 'LIMIT_REACHED',
  },
  VFIO_DEVICE_RESET: { EINVAL: 'UNSUPPORTED', ENOTTY: 'UNSUPPORTED' },
  'pread of a region': { EINVAL: 'OUT_OF_REGION', EFAULT: 'OUT_OF_REGION', EIO: 'DEVICE_GONE' },
  'pwrite of a region': { EINVAL: 'OUT_OF_REGION', EFAULT: 'OUT_OF_REGION', EIO: 'DEVICE_GONE' },
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE: { EINVAL: 'ARC_BLOCKED', EIO: 'DEVICE_IN_ERROR' },
  VFIO_MIG_GET_PRECOPY_INFO: { EINVAL: 'NO_SUCH_SESSION', ENODEV: 'NO_SUCH_SESSION' },
  eventfd: { ENOMEM: 'LIMIT_REACHED' },
  'read of data_fd': { ENODEV: 'SESSION_BROKEN' },
  'write of data_fd': {
    ENODEV: 'SESSION_BROKEN',
    EINVAL: 'STATE_REFUSED_BY_DEVICE',
    EFAULT: 'STATE_REFUSED_BY_DEVICE',
    ENOMEM: 'STATE_REFUSED_BY_DEVICE',
    EOPNOTSUPP: 'STATE_REFUSED_BY_DEVICE',
  },
}

/** The reason that `operation` answering `-errno` stands for. */
export function reasonOf(operation: string, errno: string): Reason {
  return OF_OPERATION[operation]?.[errno] ?? ANY[errno] ?? 'KERNEL_REFUSED'
}

/** Whether an answer is this one errno: `isErrno(answer, 'EBUSY')`. */
export const isErrno = (answer: number, name: keyof typeof ERRNO): boolean =>
  answer === -ERRNO[name]

/**
 * Pass on what an operation answered, or throw the refusal it stands for.
 *
 * @param act what was tried, to follow "Cannot": `map iova 0x1000..0x1fff`
 */
export function accept(operation: string, answer: number, act: string, details?: Details): number {
  if (answer >= 0) return answer
  throw refusal(operation, answer, act, details)
}

/** The error for a negative answer; see accept. */
export function refusal(
  operation: string,
  answer: number,
  act: string,
  details: Details = {},
): VfiodError {
  const errno = errnoName(-answer)
  const full = { op: operation, errno, ...details }
  const found = `Cannot ${act}: the kernel answered ${errno} to ${operation}`
  if (errno === 'EMFILE') return outOfFds(found, full)
  return new VfiodError(reasonOf(operation, errno), found, full)
}

/** An answer above zero that says how many there are instead of those that were asked for. */
export function tooFew(
  operation: string,
  act: string,
  { asked, available }: { readonly asked: number; readonly available: number },
): VfiodError {
  return new VfiodError(
    'LIMIT_REACHED',
    `Cannot ${act}: ${asked} were asked for and the host has ${available} to give, so nothing was done; ask for ${available} at most, or free some that other devices hold`,
    {
      op: operation,
      quota: {
        limit: `what ${operation} can have on this host`,
        max: BigInt(available),
        current: 0n,
        needed: BigInt(asked),
      },
    },
  )
}

/** An answer above zero where only zero is a success. */
export const unexpected = (operation: string, answer: number, act: string): VfiodError =>
  new VfiodError(
    'KERNEL_REFUSED',
    `Cannot ${act}: the kernel answered ${answer} to ${operation}, where only 0 means that it was done`,
    { op: operation },
  )

/** A region access that moved fewer bytes than it was asked to. */
export const short = (
  operation: string,
  act: string,
  { asked, moved }: { readonly asked: number; readonly moved: number },
): VfiodError =>
  new VfiodError(
    'OUT_OF_REGION',
    `Cannot ${act}: the device moved ${moved} of ${asked} bytes; use accesses of 1, 2, 4 or 8 bytes inside the region`,
    { op: operation },
  )

/**
 * EMFILE: fds are real ones of this process in both backends, so it is this process that has too many.
 * How many needs no counting, which would take an fd: every number below the limit is in use.
 */
function outOfFds(found: string, details: Details): VfiodError {
  const limit = rlimit('nofile')
  if (typeof limit === 'number') return new VfiodError('LIMIT_REACHED', found, details)
  const { current: max } = limit
  return new VfiodError(
    'LIMIT_REACHED',
    `${found}: the daemon has ${max} open files, which is its RLIMIT_NOFILE; raise LimitNOFILE of the unit, or release devices, memories and streams`,
    {
      ...details,
      quota: { limit: 'RLIMIT_NOFILE of the daemon', max, current: max, needed: 1n },
    },
  )
}

/** Whether an error came from a kernel saying this errno. */
export const wasErrno = (error: unknown, name: keyof typeof ERRNO): error is VfiodError =>
  error instanceof VfiodError && error.details.errno === name
