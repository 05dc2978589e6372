/**
 * Rows of the table: nodes, groups, containers (fs/namei.c, drivers/vfio/group.c, container.c,
 * vfio_iommu_type1.c, drivers/iommu/iommu.c; for the container of iommufd vfio_compat.c,
 * io_pagetable.c and device.c).
 */

import { IOCTL, NEW_FD, type Row } from './cell.ts'

/** open(2) of a character device. */
const NODE = {
  ...NEW_FD,
  EACCES: ['node-mode'],
  EPERM: ['device-cgroup'],
} as const satisfies Row

/** What takes a group into a container that has an IOMMU, or gives it one. */
const ATTACH = {
  EPERM: ['interrupts-not-isolated', 'firmware-region'],
  EBUSY: ['group-domain-in-use'],
  ENODEV: ['no-iommu-domain'],
  EOPNOTSUPP: ['no-iommu-domain'],
  ENOSPC: ['no-domain-left'],
  EIO: ['no-iommu-domain'],
  ERANGE: ['iommu-too-narrow'],
  ENOMEM: { causes: ['memlock-exceeded', 'kernel-memory'], undecided: 'LIMIT_REACHED' },
} as const satisfies Row

/** A container that has lost its IOMMU answers like this to all that it would do with it. */
const LOST = { EINVAL: ['container-lost-iommu'], ENODEV: ['container-lost-iommu'] } as const

/** What adds a mapping to the container, whatever it is of. */
const MAP = {
  ...LOST,
  ...IOCTL,
  EEXIST: ['mapped-elsewhere'],
  EADDRINUSE: ['mapped-elsewhere', 'iova-not-allowed'],
  ENOSPC: ['mappings-exhausted'],
  EINVAL: ['container-lost-iommu', 'iova-not-allowed', 'vaddr-misaligned', 'too-large-to-track'],
  EOVERFLOW: ['range-wraps'],
  ERANGE: ['iova-beyond-width'],
  ENOENT: ['container-lost-iommu'],
} as const satisfies Row

export const CONTAINER_ROWS = {
  'open /dev/vfio/vfio': {
    ...NODE,
    ENOENT: ['container-node-missing', 'vfio-not-loaded', 'no-container-interface'],
    ENODEV: ['vfio-not-loaded'],
    ENXIO: ['vfio-not-loaded'],
  },
  'open /dev/vfio/GROUP': {
    ...NODE,
    ENOENT: [
      'group-node-missing',
      'no-iommu-group',
      'group-not-bound',
      'no-group-interface',
      'no-such-group',
    ],
    ENODEV: ['group-gone'],
    ENXIO: ['group-gone'],
    EPERM: ['device-cgroup', 'no-iommu-rawio'],
    EBUSY: ['group-open-elsewhere', 'group-cdev-open'],
  },
  VFIO_GROUP_GET_STATUS: { ...IOCTL, EINVAL: ['bug'], ENODEV: ['group-gone'] },
  VFIO_GROUP_SET_CONTAINER: {
    ...ATTACH,
    ...IOCTL,
    EBADFD: ['bug'],
    EFAULT: ['mapped-memory-unusable', 'iommu-too-narrow'],
    EINVAL: [
      'firmware-region',
      'iommu-too-narrow',
      'reserved-region-mapped',
      'iommu-incompatible',
      'group-in-container',
    ],
    EPERM: ['kernel-driver-owns', 'interrupts-not-isolated', 'firmware-region', 'no-iommu-mixed'],
    EBUSY: ['container-has-vaddr-invalid', 'group-domain-in-use'],
    ENODEV: ['group-gone', 'no-iommu-domain'],
  },
  VFIO_GROUP_UNSET_CONTAINER: {
    ...IOCTL,
    EINVAL: ['group-not-in-container'],
    EBUSY: ['device-open-elsewhere'],
  },
  VFIO_GROUP_GET_DEVICE_FD: {
    ...NEW_FD,
    ...IOCTL,
    ENODEV: ['device-not-in-group', 'device-not-enabled'],
    EINVAL: [
      'container-lost-iommu',
      'firmware-region',
      'iommu-incompatible',
      'device-not-enabled',
      'vf-token-unused',
    ],
    EACCES: ['vf-token-missing', 'vf-token-wrong'],
    EPERM: ['interrupts-not-isolated', 'no-iommu-rawio'],
    EADDRINUSE: ['reserved-region-mapped', 'iommu-too-narrow'],
    EBUSY: ['device-held', 'group-domain-in-use'],
    EAGAIN: ['device-in-reset'],
    EIO: ['device-not-enabled'],
    ENXIO: ['device-not-enabled'],
    ENOTTY: ['device-not-enabled'],
    ETIMEDOUT: ['device-not-enabled'],
    EOPNOTSUPP: ['no-iommu-domain'],
    ENOSPC: ['no-domain-left'],
  },
  VFIO_SET_IOMMU: {
    ...ATTACH,
    ...IOCTL,
    EINVAL: ['iommu-incompatible', 'container-lost-iommu'],
    ENODEV: ['type1-not-loaded', 'no-iommu-domain'],
  },
  VFIO_CHECK_EXTENSION: { EBADF: ['bug'], ENOTTY: ['bug'], EINVAL: ['bug'] },
  VFIO_IOMMU_GET_INFO: { ...IOCTL, ...LOST, ENOMEM: ['kernel-memory'] },
  VFIO_IOMMU_MAP_DMA: {
    ...MAP,
    EFAULT: [
      'page-not-pinnable',
      'file-cut',
      'hugetlb-cgroup',
      'hugetlb-pool-empty',
      'tmpfs-full',
      'iova-beyond-width',
    ],
    ENOMEM: { causes: ['memlock-exceeded', 'out-of-memory'], undecided: 'MEMLOCK_EXCEEDED' },
    EOPNOTSUPP: ['page-not-pinnable'],
    EPERM: ['page-not-pinnable'],
  },
  'VFIO_IOMMU_MAP_DMA of a region': {
    ...MAP,
    EFAULT: ['decoding-off', 'device-asleep', 'device-gone', 'iova-beyond-width'],
    ENOMEM: ['kernel-memory'],
    EOPNOTSUPP: ['region-not-mappable'],
    EPERM: ['region-not-mappable'],
  },
  VFIO_DMA_MAP_FLAG_VADDR: {
    ...IOCTL,
    ENOENT: ['nothing-mapped'],
    EINVAL: ['vaddr-is-valid', 'vaddr-misaligned', 'container-lost-iommu'],
    ENODEV: ['container-lost-iommu'],
    EOVERFLOW: ['range-wraps'],
    EBUSY: ['remap-blocked'],
    EOPNOTSUPP: ['remap-blocked'],
    EFAULT: ['page-not-pinnable'],
    ENOMEM: { causes: ['memlock-exceeded', 'out-of-memory'], undecided: 'MEMLOCK_EXCEEDED' },
  },
  VFIO_IOMMU_UNMAP_DMA: {
    ...IOCTL,
    ...LOST,
    EINVAL: ['container-lost-iommu', 'mapping-cut'],
    ENOENT: ['nothing-mapped', 'mapping-cut'],
    EOVERFLOW: ['range-wraps'],
    EBUSY: ['pinned-by-driver'],
    ENOMEM: ['kernel-memory'],
  },
  VFIO_DMA_UNMAP_FLAG_VADDR: {
    ...IOCTL,
    EINVAL: ['vaddr-is-invalid', 'mapping-cut', 'container-lost-iommu'],
    ENODEV: ['container-lost-iommu'],
    EOVERFLOW: ['range-wraps'],
    EBUSY: ['remap-blocked'],
    EOPNOTSUPP: ['remap-blocked'],
  },
  VFIO_IOMMU_DIRTY_PAGES_FLAG_START: {
    ...IOCTL,
    EINVAL: ['container-lost-iommu', 'too-large-to-track'],
    EACCES: ['no-dirty-tracking'],
    ENOTTY: ['no-dirty-tracking'],
    ENOMEM: ['kernel-memory'],
  },
  VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP: {
    ...IOCTL,
    EINVAL: ['container-lost-iommu'],
    EACCES: ['no-dirty-tracking'],
    ENOTTY: ['no-dirty-tracking'],
  },
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP: {
    ...IOCTL,
    EINVAL: ['tracking-off', 'container-lost-iommu', 'mapping-cut'],
    EACCES: ['no-dirty-tracking'],
    ENOTTY: ['no-dirty-tracking'],
  },
  VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP: {
    ...IOCTL,
    EINVAL: ['tracking-off', 'container-lost-iommu', 'mapping-cut'],
    EOVERFLOW: ['range-wraps'],
    EOPNOTSUPP: ['no-dirty-tracking'],
    EBUSY: ['pinned-by-driver'],
  },
} as const satisfies Readonly<Record<string, Row>>
