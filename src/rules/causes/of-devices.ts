/** Causes that concern an open device: regions, interrupts, reset, migration. */

import type { Cause } from './cause.ts'

export const DEVICE_CAUSES = {
  'device-gone': {
    reason: 'DEVICE_GONE',
    found: 'the device was removed or does not answer any more',
    fix: 'close it',
  },
  'device-asleep': {
    reason: 'DEVICE_ASLEEP',
    found: 'the device is in a sleep state (D3), in which it answers no access',
    fix: 'write 0 to the low two bits of PMCSR in its configuration space, or reset it',
  },
  'device-does-not-wake': {
    reason: 'DEVICE_ASLEEP',
    found: 'the kernel could not wake the device from its suspended state',
    fix: 'see the kernel log; reset the device, or write "on" to power/control in sysfs',
  },
  'decoding-off': {
    reason: 'DECODING_OFF',
    found: 'memory decoding is off in the COMMAND register of the device',
    fix: 'set bit 1 of COMMAND (offset 4 of the configuration region)',
  },
  'region-claimed': {
    reason: 'REGION_CLAIMED',
    found:
      'another driver of the kernel has claimed the region, as a boot framebuffer does (/proc/iomem has its name)',
    fix: 'make that driver let go (for a boot framebuffer: video=efifb:off, or unbind it)',
  },
  'region-not-mapped': {
    reason: 'LIMIT_REACHED',
    found: 'the kernel could not map the region, or the device has no ROM to show',
    fix: 'see the kernel log',
  },
  'region-not-mappable': {
    reason: 'UNSUPPORTED',
    found: 'the driver of the device does not let that part of the region be mapped',
    fix: 'map a region that its information says is mappable, or read and write it by calls',
  },
  'outside-region': {
    reason: 'OUT_OF_REGION',
    found: 'the device has no such bytes, or takes no access of that width there',
    fix: 'use accesses of 1, 2, 4 or 8 bytes inside the region',
  },
  'no-such-region': {
    reason: 'NO_SUCH_REGION',
    found: 'the device does not have the region',
    fix: 'use one of its information',
  },
  'no-such-irq': {
    reason: 'NO_SUCH_IRQ',
    found: 'the device does not have the IRQ index',
    fix: 'use one of its information',
  },
  'other-index-armed': {
    reason: 'DEVICE_IN_USE',
    found:
      'another kind of interrupt is enabled, perhaps through an exported fd, and a device has one of INTX, MSI and MSIX at a time',
    fix: 'disable that one first',
  },
  'vectors-not-there': {
    reason: 'NO_SUCH_IRQ',
    found: 'the vectors are not enabled, or more than the device has',
    fix: 'use vectors of its information, and arm the index first',
  },
  'intx-not-wired': {
    reason: 'UNSUPPORTED',
    found: 'the INTx line of the device has no interrupt of the host',
    fix: 'use MSI or MSIX',
  },
  'irq-line-shared': {
    reason: 'DEVICE_IN_USE',
    found:
      'the INTx line is shared with a driver, and the device cannot mask it by itself, or another eventfd unmasks the vector',
    fix: 'use MSI or MSIX, or free the devices that share the line',
  },
  'vectors-exhausted': {
    reason: 'LIMIT_REACHED',
    found: 'the host has no interrupt vector left',
    fix: 'arm fewer, or free some that other devices hold',
  },
  'irq-action-unsupported': {
    reason: 'UNSUPPORTED',
    found: 'the driver does not offer this for the IRQ index',
    fix: 'do without',
  },
  'no-reset': {
    reason: 'UNSUPPORTED',
    found: 'the device has no way to be reset by itself',
    fix: 'do without',
  },
  'reset-timed-out': {
    reason: 'DEVICE_GONE',
    found: 'the device did not come back from its reset in time',
    fix: 'close it, and see the kernel log',
  },
  'no-bus-reset': {
    reason: 'UNSUPPORTED',
    found: 'the device has no bridge above it that could reset its bus',
    fix: 'do without',
  },
  'bus-not-isolated': {
    reason: 'UNSUPPORTED',
    found: 'a device that the reset would hit is in no IOMMU group',
    fix: 'do without',
  },
  'bus-not-owned': {
    reason: 'RESET_BLOCKED',
    found:
      'a device that the reset would hit is not bound to a VFIO driver, or the daemon does not have its group',
    fix: 'bind every device of the bus to vfio-pci',
  },
  'bus-in-reset': {
    reason: 'DEVICE_IN_USE',
    found:
      'a device that the reset would hit is being reset, opened, closed, added or removed just now',
    fix: 'repeat the call in a moment',
  },
  'bus-reset-timed-out': {
    reason: 'DEVICE_GONE',
    found: 'the bus was reset, and the device did not come back in time',
    fix: 'close it and open it again; see the kernel log',
  },
  'feature-missing': {
    reason: 'UNSUPPORTED',
    found: 'the device or its driver does not have this',
    fix: 'do without',
  },
  'driver-failed': {
    reason: 'KERNEL_REFUSED',
    found: 'the driver of the device failed by itself',
    fix: 'see the kernel log',
  },
  'arc-blocked': {
    reason: 'ARC_BLOCKED',
    found: 'the device cannot go from its state to that one',
    fix: 'take the arcs one by one, or reset the device',
  },
  'device-in-error': {
    reason: 'DEVICE_IN_ERROR',
    found: 'the device failed on an arc and is in ERROR, or was before',
    fix: 'reset it',
  },
  'state-refused': {
    reason: 'STATE_REFUSED_BY_DEVICE',
    found: 'the device does not take the state that it was given',
    fix: 'reset it, and load the whole state of a device of the same kind and version',
  },
  'no-session': {
    reason: 'NO_SUCH_SESSION',
    found: 'no data transfer session is open in the state of the device',
    fix: 'set a state that opens one',
  },
  'session-ended': {
    reason: 'SESSION_BROKEN',
    found: 'the device has ended the session: it was reset, closed, or left the state',
    fix: 'reset the device and start the session again',
  },
  'log-started': {
    reason: 'TRACKING_STARTED',
    found: 'the DMA log of the device is on already',
    fix: 'stop it first',
  },
  'log-ranges-refused': {
    reason: 'UNSUPPORTED',
    found: 'the device cannot log these ranges or this page size',
    fix: 'track fewer or smaller ranges, or by the IOMMU',
  },
  'log-stopped': {
    reason: 'TRACKING_STOPPED',
    found: 'the DMA log of the device is off, or the range is not one that it watches',
    fix: 'start tracking, and treat every page as written until then',
  },
} as const satisfies Record<string, Cause>
