/** Causes that concern mappings, dirty pages and the memory behind them. */

import type { Cause } from './cause.ts'

export const MAPPING_CAUSES = {
  'mapped-elsewhere': {
    reason: 'IOVA_IN_USE',
    found: 'the kernel has a mapping there that vfiod did not make or could not undo',
    fix: 'choose another iova, or unmap the range first',
  },
  'mappings-exhausted': {
    reason: 'TOO_MANY_MAPPINGS',
    found: 'the container has as many mappings as dma_entry_limit of vfio_iommu_type1 allows',
    fix: 'map fewer, larger ranges, or raise it',
  },
  'iova-not-allowed': {
    reason: 'IOVA_OUT_OF_APERTURE',
    found: 'the range is not inside one of the ranges that the IOMMU takes',
    fix: 'choose an iova inside one of the ranges of the address space',
  },
  'vaddr-misaligned': {
    reason: 'BAD_RANGE',
    found: 'the address of the memory is not whole pages of the IOMMU',
    fix: 'choose an offset that is a multiple of the alignment of the address space',
  },
  'too-large-to-track': {
    reason: 'BAD_RANGE',
    found: 'a mapping has more pages than a bitmap of dirty pages can have (2^31)',
    fix: 'stop tracking, or map smaller ranges',
  },
  'range-wraps': {
    reason: 'BAD_RANGE',
    found: 'the range passes the end of the addresses',
    fix: 'keep iova + length below 2^64',
  },
  'iova-beyond-width': {
    reason: 'IOVA_OUT_OF_APERTURE',
    found: 'the page tables of the IOMMU do not reach the iova',
    fix: 'choose a lower iova',
  },
  'hugetlb-pool-empty': {
    reason: 'LIMIT_REACHED',
    found: 'the pool of huge pages has too few free pages',
    fix: 'raise nr_hugepages, or free huge pages',
  },
  'hugetlb-cgroup': {
    reason: 'LIMIT_REACHED',
    found: 'the hugetlb cgroup of the daemon or of a process that has touched the memory is full',
    fix: 'raise its limit (hugetlb.SIZE.max; hugepages-SIZE of a pod)',
  },
  'file-cut': {
    reason: 'OUT_OF_MEMORY_OBJECT',
    found: 'the file behind the memory has become shorter than the range',
    fix: 'make the file long again (ftruncate), or register the memory anew; seal it against that',
  },
  'tmpfs-full': {
    reason: 'LIMIT_REACHED',
    found: 'the tmpfs that has the file is full',
    fix: 'free space there, or mount it with a larger size',
  },
  'page-not-pinnable': {
    reason: 'MEMORY_NOT_PINNABLE',
    found:
      'a page of the memory cannot be pinned (it may not be written, is poisoned, or belongs to a file that rules out long pins)',
    fix: 'use a memfd, or files on tmpfs or hugetlbfs; see the kernel log for memory errors',
  },
  'memlock-exceeded': {
    reason: 'MEMLOCK_EXCEEDED',
    found: 'pinning it would exceed RLIMIT_MEMLOCK of the daemon',
    fix: 'raise LimitMEMLOCK of the unit, give it CAP_IPC_LOCK, or map less',
  },
  'out-of-memory': {
    reason: 'LIMIT_REACHED',
    found: 'the kernel has no memory for it, or the memory cgroup of the daemon allows no more',
    fix: 'free memory of the host, or raise MemoryMax of the unit',
  },
  'address-space-full': {
    reason: 'LIMIT_REACHED',
    found: 'the address space of the daemon is used up, or limited by RLIMIT_AS',
    fix: 'release memories',
  },
  'map-count': {
    reason: 'LIMIT_REACHED',
    found: 'the daemon has as many memory areas as vm.max_map_count allows',
    fix: 'raise vm.max_map_count, or release memories',
  },
  'memory-locked-by-default': {
    reason: 'MEMLOCK_EXCEEDED',
    found: 'every page of the daemon is locked (mlockall), and RLIMIT_MEMLOCK is reached',
    fix: 'raise LimitMEMLOCK of the unit',
  },
  'no-huge-size': {
    reason: 'UNSUPPORTED',
    found: 'the kernel has no huge pages of that size',
    fix: 'use another size, or add hugepagesz= to the kernel command line',
  },
  'memfd-noexec': {
    reason: 'KERNEL_DENIED',
    found: 'the sysctl vm.memfd_noexec of 2, or a security module, forbids the memfd',
    fix: 'set vm.memfd_noexec to 1 or 0',
  },
  'memory-sealed': {
    reason: 'BAD_ARGUMENT',
    found: 'the file is sealed against writing, or the fd is open for reading only',
    fix: 'send a memory that can be written',
  },
  'size-unsupported': {
    reason: 'BAD_RANGE',
    found: 'the file system takes no file of that length',
    fix: 'ask for less, in whole pages',
  },
  'mapping-cut': {
    reason: 'MAPPING_STRADDLES',
    found: 'the range cuts a mapping of the kernel',
    fix: 'name whole mappings',
  },
  'nothing-mapped': {
    reason: 'IOVA_NOT_MAPPED',
    found: 'the kernel has no mapping there',
    fix: 'list the mappings',
  },
  'pinned-by-driver': {
    reason: 'DEVICE_IN_USE',
    found: 'the driver of a mediated device keeps pages of the mapping pinned',
    fix: 'stop or close that device',
  },
  'vaddr-is-valid': {
    reason: 'VADDR_VALID',
    found: 'the vaddr of the mapping is valid, or the range is not exactly one mapping',
    fix: 'invalidate it first, and name the mapping exactly',
  },
  'vaddr-is-invalid': {
    reason: 'VADDR_INVALID',
    found: 'the vaddr of a mapping in the range is invalid already',
    fix: 'update it first',
  },
  'remap-blocked': {
    reason: 'REMAP_BLOCKED',
    found: 'a mediated device is in the address space, or the container cannot update vaddrs',
    fix: 'stop the device, and unmap and map again',
  },
  'tracking-off': {
    reason: 'TRACKING_STOPPED',
    found: 'tracking is off in the kernel, as after the last group has left',
    fix: 'start tracking, and treat every page as written until then',
  },
  'no-dirty-tracking': {
    reason: 'UNSUPPORTED',
    found: 'the container cannot track dirty pages (before Linux 5.8, or that of iommufd)',
    fix: 'do without, or use the DMA log of the device',
  },
} as const satisfies Record<string, Cause>
