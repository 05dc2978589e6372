/**
 * The features of vfio-pci itself: the VF token, and runtime power management without anything to show
 * for it.
 */

import {
  VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY,
  VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP,
  VFIO_DEVICE_FEATURE_LOW_POWER_EXIT,
  VFIO_DEVICE_FEATURE_MASK,
  VFIO_DEVICE_FEATURE_PCI_VF_TOKEN,
  VFIO_DEVICE_FEATURE_SET,
  vfio_device_low_power_entry_with_wakeup,
} from '../../../../abi/feature.ts'
import { ERRNO } from '../../../../base/errno.ts'
import { Eventfd } from '../../core/eventfd.ts'
import { copyIn } from '../../core/user-memory.ts'
import { checkFeature, type FeatureCall } from '../../vfio/feature-call.ts'
import type { PciFunction } from './pci-function.ts'
import { setVfToken, type VfToken } from './vf-token.ts'

/** A device as far as these features are about it. */
interface FeaturedDevice {
  readonly pci: PciFunction
  readonly vfToken: VfToken | undefined
}

export const pciFeature = ({ pci, vfToken }: FeaturedDevice, call: FeatureCall): number => {
  switch (call.flags & VFIO_DEVICE_FEATURE_MASK) {
    case VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY: {
      const checked = checkFeature(call, VFIO_DEVICE_FEATURE_SET, 0)
      return checked === 1 ? enter(pci) : checked
    }
    case VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP:
      return enterWithWakeup(pci, call)
    case VFIO_DEVICE_FEATURE_LOW_POWER_EXIT: {
      const checked = checkFeature(call, VFIO_DEVICE_FEATURE_SET, 0)
      if (checked === 1) pci.isLowPower = false
      return checked === 1 ? 0 : checked
    }
    case VFIO_DEVICE_FEATURE_PCI_VF_TOKEN:
      return setVfToken(vfToken, call)
    default:
      return -ERRNO.ENOTTY
  }
}

const enter = (pci: PciFunction): number => {
  if (pci.isLowPower) return -ERRNO.EINVAL
  pci.isLowPower = true
  return 0
}

const enterWithWakeup = (pci: PciFunction, call: FeatureCall): number => {
  const { size } = vfio_device_low_power_entry_with_wakeup
  const checked = checkFeature(call, VFIO_DEVICE_FEATURE_SET, size)
  if (checked !== 1) return checked
  const entry = copyIn(vfio_device_low_power_entry_with_wakeup, call.payload, size)
  if (entry === undefined) return -ERRNO.EFAULT
  if (entry.wakeup_eventfd < 0) return -ERRNO.EINVAL
  const eventfd = Eventfd.of(entry.wakeup_eventfd)
  if (typeof eventfd === 'number') return eventfd
  // Nothing wakes the device here but its user.
  eventfd.put()
  return enter(pci)
}
