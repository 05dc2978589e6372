// That the table of refusals is total: every operation that the source asks a kernel for has a row,
// and every errno that a kernel was seen to answer, or that its source can answer, has a cause.

import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { REQUESTS } from '../../src/abi/requests.ts'
import { causesOf, type KernelOperation, TABLE } from '../../src/rules/causes/table.ts'
import { golden } from '../conformance/golden.ts'

const SRC = fileURLToPath(new URL('../../src', import.meta.url))
const OPERATIONS = Object.keys(TABLE) as KernelOperation[]

/** The source above the port, and the calls that the daemon makes for itself. */
const sources = readdirSync(SRC, { recursive: true, encoding: 'utf8' })
  .filter((file) => /^(kernel|domain|api|os)\//.test(file) && file.endsWith('.ts'))
  .map((file) => ({ file, text: readFileSync(`${SRC}/${file}`, 'utf8') }))

const matches = (text: string, pattern: RegExp): string[] =>
  [...text.matchAll(pattern)].map(([, name = '']) => name)

/** What is named by a literal: a call and its object, a flag, a feature. */
const named = ({ text }: { readonly text: string }): string[] => [
  ...matches(text, /\b(?:accept|refusal|write)\(\s*(?:kernel,\s*)?'([^']+)'/g),
  ...matches(text, /\bconst op(?:eration)? = '([^']+)'/g),
  ...matches(text, /\bnamed\('([^']+)'/g),
  ...matches(text, /\bcName: '(\w+)'/g),
]

/** The requests of the headers that are handed to `request`, by their names. */
const requested = ({ text }: { readonly text: string }): string[] => {
  const known = new Set(REQUESTS.map(({ cName }) => cName))
  const asked = matches(text, /\brequest(?:Whole)?\(\s*[\w.]+,\s*[\w.]+,\s*([A-Z]\w+)/g)
  return asked.filter((name) => known.has(name))
}

describe('the table of refusals', () => {
  const used = new Set(sources.flatMap((source) => [...named(source), ...requested(source)]))

  test('has a row for every operation of the source', () => {
    expect([...used].filter((name) => !(OPERATIONS as string[]).includes(name))).toEqual([])
  })

  test('has no row for an operation that the source does not have', () => {
    expect(OPERATIONS.filter((operation) => !used.has(operation))).toEqual([])
  })
})

/** The short names of the recorded traces, for the requests that vfiod makes. */
const RECORDED: Readonly<Record<string, readonly KernelOperation[]>> = {
  STATUS: ['VFIO_GROUP_GET_STATUS'],
  SET_CONTAINER: ['VFIO_GROUP_SET_CONTAINER'],
  UNSET_CONTAINER: ['VFIO_GROUP_UNSET_CONTAINER'],
  DEVICE_FD: ['VFIO_GROUP_GET_DEVICE_FD'],
  device: ['VFIO_GROUP_GET_DEVICE_FD'],
  SET_IOMMU: ['VFIO_SET_IOMMU'],
  CHECK_EXTENSION: ['VFIO_CHECK_EXTENSION'],
  INFO: ['VFIO_IOMMU_GET_INFO'],
  MAP: ['VFIO_IOMMU_MAP_DMA'],
  UNMAP: ['VFIO_IOMMU_UNMAP_DMA'],
  UNMAP_DIRTY: ['VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP'],
  DIRTY: ['VFIO_IOMMU_DIRTY_PAGES_FLAG_START', 'VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP'],
  DIRTY_GET: ['VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP'],
  DEVICE_INFO: ['VFIO_DEVICE_GET_INFO'],
  REGION_INFO: ['VFIO_DEVICE_GET_REGION_INFO'],
  IRQ_INFO: ['VFIO_DEVICE_GET_IRQ_INFO'],
  SET_IRQS: ['VFIO_DEVICE_SET_IRQS'],
  RESET: ['VFIO_DEVICE_RESET'],
  HOT_RESET_INFO: ['VFIO_DEVICE_GET_PCI_HOT_RESET_INFO'],
  HOT_RESET: ['VFIO_DEVICE_PCI_HOT_RESET'],
  FEATURE: ['VFIO_DEVICE_FEATURE'],
  MIGRATION: ['VFIO_DEVICE_FEATURE_MIGRATION'],
  MIG_STATE: ['VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE'],
  MIG_SIZE: ['VFIO_DEVICE_FEATURE_MIG_DATA_SIZE'],
  LOG_START: ['VFIO_DEVICE_FEATURE_DMA_LOGGING_START'],
  LOG_REPORT: ['VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT'],
  PRECOPY: ['VFIO_MIG_GET_PRECOPY_INFO'],
  pread: ['pread of a region'],
  pwrite: ['pwrite of a region'],
  read: ['read of data_fd'],
  write: ['write of data_fd'],
}

describe('every errno of the recorded kernel has a cause', () => {
  const seen = new Map<string, Set<string>>()
  const folder = fileURLToPath(new URL('../conformance/golden', import.meta.url))
  for (const traces of golden(folder).values()) {
    for (const [op, outcome] of traces.flatMap(({ steps }) => steps)) {
      const name = 'call' in op ? op.call : op.op
      const [errno] = /^-?E[A-Z0-9]+/.exec(outcome) ?? []
      if (errno === undefined || RECORDED[name] === undefined) continue
      seen.set(name, (seen.get(name) ?? new Set()).add(errno.replace('-', '')))
    }
  }

  test('of which there are many', () => {
    expect(seen.size).toBeGreaterThan(20)
  })

  test.each([...seen])('%s', (name, errnos) => {
    for (const operation of RECORDED[name] ?? []) {
      const without = [...errnos].filter((errno) => causesOf(operation, errno).length === 0)
      expect(without, operation).toEqual([])
    }
  })
})

/**
 * What the source of Linux 6.12 answers, beside EBADF, EFAULT and EMFILE of any call. An error of an
 * IOMMU driver is passed on by type1, so its errnos stand where groups are attached. EINTR of waits that
 * a fatal signal ends is left out: it reaches no process that lives.
 */
const LINUX: Readonly<Record<KernelOperation, string>> = {
  'open /dev/vfio/vfio': 'EACCES EPERM ENOENT ENODEV ENXIO ENOMEM EMFILE ENFILE',
  'open /dev/vfio/GROUP': 'EACCES EPERM ENOENT ENODEV ENXIO EBUSY ENOMEM EMFILE ENFILE',
  VFIO_GROUP_GET_STATUS: 'EINVAL ENODEV ENOTTY',
  VFIO_GROUP_SET_CONTAINER:
    'EBADF EBADFD EINVAL ENODEV EPERM EBUSY ENOMEM EFAULT EOPNOTSUPP ENOSPC EIO ERANGE',
  VFIO_GROUP_UNSET_CONTAINER: 'EINVAL EBUSY',
  VFIO_GROUP_GET_DEVICE_FD:
    'EINVAL ENODEV EACCES EPERM EBUSY EAGAIN EIO EADDRINUSE ENOMEM EMFILE ENFILE EOPNOTSUPP',
  VFIO_SET_IOMMU: 'EINVAL ENODEV EPERM EBUSY ENOMEM EOPNOTSUPP ENOSPC EIO',
  VFIO_CHECK_EXTENSION: 'EINVAL',
  VFIO_IOMMU_GET_INFO: 'EINVAL ENODEV ENOMEM',
  VFIO_IOMMU_MAP_DMA:
    'EINVAL EOVERFLOW EEXIST ENOSPC ENODEV EFAULT ENOMEM ERANGE EOPNOTSUPP EADDRINUSE EPERM',
  'VFIO_IOMMU_MAP_DMA of a region':
    'EINVAL EOVERFLOW EEXIST ENOSPC ENODEV EFAULT ENOMEM ERANGE EOPNOTSUPP EADDRINUSE EPERM',
  VFIO_DMA_MAP_FLAG_VADDR: 'EINVAL EOVERFLOW ENOENT EBUSY EOPNOTSUPP ENOMEM ENODEV',
  VFIO_IOMMU_UNMAP_DMA: 'EINVAL EOVERFLOW ENOENT EBUSY ENODEV ENOMEM',
  VFIO_DMA_UNMAP_FLAG_VADDR: 'EINVAL EOVERFLOW EBUSY EOPNOTSUPP ENODEV',
  VFIO_IOMMU_DIRTY_PAGES_FLAG_START: 'EINVAL EACCES ENOMEM ENOTTY',
  VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP: 'EINVAL EACCES ENOTTY',
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP: 'EINVAL EACCES ENOTTY',
  VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP: 'EINVAL EOVERFLOW EOPNOTSUPP EBUSY',
  VFIO_DEVICE_GET_INFO: 'EINVAL EIO ENOMEM ENODEV',
  VFIO_DEVICE_GET_REGION_INFO: 'EINVAL EIO ENOMEM ENODEV',
  VFIO_DEVICE_GET_IRQ_INFO: 'EINVAL EIO ENODEV',
  VFIO_DEVICE_SET_IRQS: 'EINVAL ENODEV ENOTTY EBUSY ENOSPC ERANGE ENOMEM EIO ENOENT',
  VFIO_DEVICE_RESET: 'EINVAL ENOTTY EAGAIN EBUSY ETIMEDOUT EIO ENODEV',
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: 'EINVAL ENODEV ENOSPC EPERM EAGAIN ENOMEM EIO',
  VFIO_DEVICE_PCI_HOT_RESET: 'EINVAL ENODEV ENOTTY EAGAIN EBUSY ENOMEM EIO',
  VFIO_DEVICE_FEATURE: 'ENOTTY EINVAL EIO',
  VFIO_DEVICE_FEATURE_MIGRATION: 'ENOTTY EINVAL EIO',
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE:
    'ENOTTY EINVAL EIO EOPNOTSUPP ENOMEM EMFILE ENFILE EBUSY ENODEV ENOSPC ETIMEDOUT',
  VFIO_DEVICE_FEATURE_MIG_DATA_SIZE: 'ENOTTY EINVAL EIO ENODEV EOPNOTSUPP',
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START:
    'ENOTTY EINVAL EIO EOVERFLOW E2BIG ENOMEM EEXIST EBUSY EOPNOTSUPP',
  VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP: 'ENOTTY EINVAL EIO',
  VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT: 'ENOTTY EINVAL EIO EOVERFLOW ENOMEM',
  VFIO_MIG_GET_PRECOPY_INFO: 'EINVAL ENODEV ENOTTY EIO ENOMEM',
  'pread of a region': 'EIO EBUSY EINVAL ENOMEM ENODEV ENXIO',
  'pwrite of a region': 'EIO EBUSY EINVAL ENOMEM ENODEV ENXIO',
  'mmap of a region': 'EACCES EAGAIN EINVAL ENFILE ENODEV ENOMEM EOVERFLOW EPERM EBUSY',
  'read of data_fd': 'EINVAL ENODEV EIO ENOMEM ESPIPE',
  'write of data_fd': 'EINVAL ENODEV EIO ENOMEM ENOSPC E2BIG EOPNOTSUPP ESPIPE',
  exportFd: 'EBADF EMFILE EOPNOTSUPP',
  dup: 'EBADF EMFILE ENFILE ENOMEM',
  memfd_create: 'EINVAL ENODEV EACCES EPERM EFBIG ENOSPC ENOMEM EMFILE ENFILE',
  'mmap of a memory': 'EACCES EAGAIN EINVAL ENFILE ENODEV ENOMEM EOVERFLOW EPERM',
  eventfd: 'EINVAL EMFILE ENFILE ENODEV ENOMEM',
  'epoll_ctl of an eventfd': 'EBADF EEXIST ENOMEM ENOSPC EPERM',
  'read sysfs': 'EACCES EPERM ENOENT ENOTDIR ENODEV ENXIO EIO EINVAL EISDIR EMFILE ENFILE ENOMEM',
  'write driver_override': 'EACCES EPERM ENOENT EROFS EINVAL ENOMEM ENODEV EMFILE ENFILE',
  'write unbind': 'EACCES EPERM ENOENT EROFS ENODEV EBUSY EMFILE ENFILE',
  'write drivers_probe':
    'EACCES EPERM ENOENT EROFS ENODEV EINVAL EBUSY EIO ENXIO EAGAIN EMFILE ENFILE',
  'write sriov_numvfs':
    'EACCES EPERM ENOENT EROFS EINVAL ERANGE EBUSY ENOMEM EIO EAGAIN EOPNOTSUPP ENODEV EMFILE ENFILE',
  'look at the peer': 'ESRCH ENOENT EACCES EPERM EIO EINVAL ENODATA EMFILE ENFILE ENOMEM EBADF',
}

describe('every errno of the source of Linux has a cause', () => {
  test.each(Object.entries(LINUX))('%s', (operation, errnos) => {
    const without = errnos.split(' ').filter((errno) => causesOf(operation, errno).length === 0)

    expect(without).toEqual([])
  })

  test('for every operation of the table', () => {
    expect(OPERATIONS.filter((operation) => !(operation in LINUX))).toEqual([])
  })
})
