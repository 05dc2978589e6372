/**
 * Rows of the table: calls that the daemon makes for itself: memory, eventfds, sysfs, and the look at
 * the processes that call it (mm/mmap.c, mm/memfd.c, fs/hugetlbfs, fs/eventfd.c, fs/eventpoll.c,
 * drivers/base/bus.c, drivers/pci/pci-sysfs.c, fs/proc/base.c, kernel/ptrace.c).
 */

import { NEW_FD, type Row } from './cell.ts'

/** A file of sysfs or procfs. */
const SYSFS = {
  EMFILE: ['fds-exhausted'],
  ENFILE: ['host-files-exhausted'],
  ENOMEM: ['kernel-memory'],
  EACCES: ['sysfs-denied'],
  EPERM: ['sysfs-denied'],
  ENOENT: ['sysfs-missing'],
  ENOTDIR: ['sysfs-missing'],
  ENODEV: ['sysfs-removed'],
  ENXIO: ['sysfs-removed'],
  EIO: ['sysfs-failed'],
} as const satisfies Row

const SYSFS_WRITE = { ...SYSFS, EROFS: ['sysfs-read-only'] } as const satisfies Row

export const PROCESS_ROWS = {
  memfd_create: {
    ...NEW_FD,
    ENODEV: ['no-huge-size'],
    EINVAL: ['no-huge-size', 'size-unsupported'],
    EACCES: ['memfd-noexec'],
    EPERM: ['memfd-noexec'],
    EFBIG: ['size-unsupported'],
    ENOSPC: ['out-of-memory'],
    ENOMEM: ['kernel-memory'],
  },
  'mmap of a memory': {
    EBADF: ['bug'],
    ENOMEM: {
      causes: [
        'hugetlb-pool-empty',
        'hugetlb-cgroup',
        'map-count',
        'address-space-full',
        'out-of-memory',
      ],
      undecided: 'LIMIT_REACHED',
    },
    EINVAL: ['file-cut'],
    EACCES: ['memory-sealed'],
    EPERM: ['memory-sealed'],
    EAGAIN: ['memory-locked-by-default'],
    ENODEV: ['bug'],
    EOVERFLOW: ['size-unsupported'],
    ENFILE: ['host-files-exhausted'],
  },
  dup: { ...NEW_FD, EBADF: ['bug'] },
  eventfd: { ...NEW_FD, EINVAL: ['bug'], ENODEV: ['kernel-memory'] },
  'epoll_ctl of an eventfd': {
    ...NEW_FD,
    EBADF: ['bug'],
    EEXIST: ['bug'],
    EPERM: ['bug'],
    ENOSPC: ['watches-exhausted'],
  },
  'read sysfs': { ...SYSFS, EINVAL: ['sysfs-missing'], EISDIR: ['sysfs-missing'] },
  'write driver_override': {
    ...SYSFS_WRITE,
    EINVAL: ['override-too-long'],
  },
  'write unbind': {
    ...SYSFS_WRITE,
    ENODEV: ['driver-not-bound'],
    EBUSY: ['driver-refuses'],
  },
  'write drivers_probe': {
    ...SYSFS_WRITE,
    ENODEV: ['driver-refuses', 'sysfs-removed'],
    EINVAL: ['driver-refuses'],
    EBUSY: ['driver-refuses'],
    EIO: ['driver-refuses'],
    ENXIO: ['driver-refuses'],
    EAGAIN: ['driver-defers'],
  },
  'write sriov_numvfs': {
    ...SYSFS_WRITE,
    ENOENT: ['sriov-unsupported', 'sysfs-missing'],
    EBUSY: ['sriov-busy'],
    EINVAL: ['sriov-failed'],
    ERANGE: ['sriov-failed'],
    EIO: ['sriov-failed'],
    EAGAIN: ['sriov-failed'],
    EOPNOTSUPP: ['sriov-failed'],
    ENOSPC: ['sriov-failed'],
    ETIMEDOUT: ['sriov-failed'],
  },
  'look at the peer': {
    EMFILE: ['fds-exhausted'],
    ENFILE: ['host-files-exhausted'],
    ENOMEM: ['kernel-memory'],
    ESRCH: ['peer-exited', 'peer-other-pid-namespace', 'peer-hidden'],
    ENOENT: ['peer-exited', 'peer-hidden'],
    EACCES: ['peer-no-ptrace', 'peer-yama', 'peer-protected'],
    EPERM: ['peer-no-ptrace', 'peer-yama', 'peer-protected'],
    ENODATA: ['peer-exited'],
    EINVAL: ['peer-exited'],
    EIO: ['sysfs-failed'],
    EBADF: ['bug'],
  },
} as const satisfies Readonly<Record<string, Row>>
