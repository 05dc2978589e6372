/**
 * Rows of the table: an open device (drivers/vfio/vfio_main.c, pci/vfio_pci_core.c, vfio_pci_rdwr.c,
 * vfio_pci_config.c, vfio_pci_intrs.c; vfio.h for what drivers may answer to features).
 */

import { DEVICE, IOCTL, NEW_FD, type Row } from './cell.ts'

/** A feature of VFIO_DEVICE_FEATURE that a driver may have. */
const FEATURE = {
  ...DEVICE,
  ENOTTY: ['feature-missing'],
  EOPNOTSUPP: ['feature-missing'],
  EINVAL: ['feature-missing'],
  ENOMEM: ['kernel-memory'],
} as const satisfies Row

const REGION = {
  EBADF: ['bug'],
  ESPIPE: ['bug'],
  EIO: ['decoding-off', 'device-asleep', 'device-does-not-wake', 'device-gone'],
  EBUSY: ['region-claimed'],
  EINVAL: ['outside-region'],
  // vfio_pci_config_rw() says it of bytes that have no meaning; a pointer of vfiod is never wrong.
  EFAULT: ['outside-region'],
  ENOMEM: ['region-not-mapped'],
  ENODEV: ['device-gone'],
  ENXIO: ['device-gone'],
} as const satisfies Row

export const DEVICE_ROWS = {
  VFIO_DEVICE_GET_INFO: {
    ...DEVICE,
    EINVAL: ['bug'],
    ENODEV: ['device-gone'],
    ENOMEM: ['kernel-memory'],
  },
  VFIO_DEVICE_GET_REGION_INFO: {
    ...DEVICE,
    EINVAL: ['no-such-region'],
    ENODEV: ['device-gone'],
    ENOMEM: ['kernel-memory'],
  },
  VFIO_DEVICE_GET_IRQ_INFO: { ...DEVICE, EINVAL: ['no-such-irq'], ENODEV: ['device-gone'] },
  VFIO_DEVICE_SET_IRQS: {
    ...DEVICE,
    EINVAL: ['other-index-armed', 'vectors-not-there'],
    ENODEV: ['intx-not-wired', 'device-gone'],
    ENOTTY: ['irq-action-unsupported'],
    EBUSY: ['irq-line-shared', 'other-index-armed'],
    ENOSPC: ['vectors-exhausted'],
    ERANGE: ['vectors-exhausted'],
    ENOMEM: ['kernel-memory', 'vectors-exhausted'],
    ENOENT: ['vectors-not-there'],
  },
  VFIO_DEVICE_RESET: {
    ...DEVICE,
    EINVAL: ['no-reset'],
    ENOTTY: { causes: ['no-reset', 'reset-timed-out'], undecided: 'UNSUPPORTED' },
    EAGAIN: ['device-in-reset'],
    EBUSY: ['device-in-reset'],
    ETIMEDOUT: ['reset-timed-out'],
    ENODEV: ['device-gone'],
    ENOMEM: ['kernel-memory'],
  },
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: {
    ...DEVICE,
    EINVAL: ['bug'],
    ENOSPC: ['bug'],
    ENODEV: { causes: ['no-bus-reset', 'device-gone'], undecided: 'UNSUPPORTED' },
    EPERM: ['bus-not-isolated'],
    EAGAIN: ['bus-in-reset'],
    ENOMEM: ['kernel-memory'],
  },
  VFIO_DEVICE_PCI_HOT_RESET: {
    ...DEVICE,
    EINVAL: ['bus-not-owned'],
    ENODEV: { causes: ['no-bus-reset', 'device-gone'], undecided: 'UNSUPPORTED' },
    // pci_reset_bus() has asked whether it can be reset before it resets: this is what comes after.
    ENOTTY: ['bus-reset-timed-out'],
    ETIMEDOUT: ['bus-reset-timed-out'],
    EAGAIN: ['bus-in-reset'],
    EBUSY: ['bus-in-reset'],
    ENOMEM: ['kernel-memory'],
  },
  'pread of a region': REGION,
  'pwrite of a region': REGION,
  VFIO_DEVICE_FEATURE: FEATURE,
  VFIO_DEVICE_FEATURE_MIGRATION: FEATURE,
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE: {
    ...FEATURE,
    ...NEW_FD,
    EINVAL: ['arc-blocked', 'state-refused', 'device-in-error'],
    EOPNOTSUPP: ['arc-blocked'],
    EIO: ['device-in-error', 'driver-failed', 'device-does-not-wake'],
    EBUSY: ['device-in-reset'],
    ENODEV: ['device-gone'],
    ENOSPC: ['driver-failed'],
    ETIMEDOUT: ['device-in-error', 'driver-failed'],
  },
  VFIO_DEVICE_FEATURE_MIG_DATA_SIZE: { ...FEATURE, ENODEV: ['device-gone'] },
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START: {
    ...FEATURE,
    EINVAL: ['log-ranges-refused'],
    EOVERFLOW: ['log-ranges-refused'],
    E2BIG: ['log-ranges-refused'],
    EEXIST: ['log-started'],
    EBUSY: ['log-started', 'device-in-reset'],
    EIO: ['driver-failed', 'device-does-not-wake'],
  },
  VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP: { ...FEATURE, EIO: ['driver-failed'] },
  VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT: {
    ...FEATURE,
    EINVAL: ['log-stopped'],
    EOVERFLOW: ['bug'],
    EIO: ['driver-failed', 'device-does-not-wake'],
  },
  VFIO_MIG_GET_PRECOPY_INFO: {
    ...IOCTL,
    EINVAL: ['no-session'],
    ENODEV: ['session-ended'],
    ENOTTY: ['feature-missing'],
    EIO: ['driver-failed'],
    ENOMEM: ['kernel-memory'],
  },
  'read of data_fd': {
    EBADF: ['bug'],
    EFAULT: ['bug'],
    ESPIPE: ['bug'],
    EINVAL: ['session-ended'],
    ENODEV: ['session-ended'],
    EIO: ['driver-failed'],
    ENOMEM: ['kernel-memory'],
  },
  'write of data_fd': {
    EBADF: ['bug'],
    ESPIPE: ['bug'],
    ENODEV: ['session-ended'],
    EIO: ['driver-failed'],
    EINVAL: ['state-refused'],
    EFAULT: ['state-refused'],
    ENOMEM: ['state-refused'],
    EOPNOTSUPP: ['state-refused'],
    ENOSPC: ['state-refused'],
    E2BIG: ['state-refused'],
  },
  exportFd: {
    EBADF: ['bug'],
    EMFILE: ['fds-exhausted'],
    EOPNOTSUPP: ['fd-inside-daemon'],
  },
} as const satisfies Readonly<Record<string, Row>>
