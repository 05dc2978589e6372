/** What goes wrong in the simulated kernel during a storm: calls that fail, stop short, or stand still. */

import type { VfiodClient } from '../../src/client/client.ts'
import type { Random } from './random.mjs'

const FAILING = [
  ['VFIO_IOMMU_MAP_DMA', 'ENOMEM'],
  ['VFIO_IOMMU_MAP_DMA', 'EINVAL'],
  ['VFIO_IOMMU_UNMAP_DMA', 'EIO'],
  ['VFIO_GROUP_SET_CONTAINER', 'EBUSY'],
  ['VFIO_SET_IOMMU', 'ENOMEM'],
  ['VFIO_GROUP_GET_DEVICE_FD', 'EIO'],
  ['VFIO_DEVICE_GET_INFO', 'EIO'],
  ['VFIO_DEVICE_RESET', 'EIO'],
  ['VFIO_DEVICE_SET_IRQS', 'ENOSPC'],
  ['VFIO_DEVICE_FEATURE', 'EIO'],
  ['VFIO_IOMMU_DIRTY_PAGES', 'EIO'],
] as const

const STALLED = [
  'VFIO_IOMMU_MAP_DMA',
  'VFIO_IOMMU_UNMAP_DMA',
  'VFIO_GROUP_GET_DEVICE_FD',
  'VFIO_DEVICE_RESET',
  'VFIO_DEVICE_FEATURE',
  'VFIO_IOMMU_DIRTY_PAGES',
] as const

const SHORT = ['read', 'write', 'pread'] as const

/** Faults at once. */
const PLACES = 6

/** Replaces one fault by another, which ends what the former had stalled. */
export async function injectOne(client: VfiodClient, random: Random): Promise<void> {
  const fault = `storm ${random.below(PLACES)}`
  const often = { nth: 1 + random.below(20), times: 1 + random.below(3) }
  const about = { fault, ...often }
  switch (random.below(4)) {
    case 0:
    case 1: {
      const [request, error] = random.pick(FAILING)
      await client.simulator.injectFault({
        fault: { ...about, kind: 'FAULT_KIND_ERRNO', request, error },
      })
      return
    }
    case 2: {
      // Until it is replaced.
      const request = random.pick(STALLED)
      await client.simulator.injectFault({ fault: { ...about, kind: 'FAULT_KIND_STALL', request } })
      return
    }
    default: {
      const call = random.pick(SHORT)
      const number = 1 + random.below(8)
      await client.simulator.injectFault({
        fault: { ...about, kind: 'FAULT_KIND_SHORT', call, number },
      })
    }
  }
}
