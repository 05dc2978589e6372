/** Typed calls of a device's own log of its DMA (vfio.h: VFIO_DEVICE_FEATURE_DMA_LOGGING_*, 6.1). */

import {
  vfio_device_feature_dma_logging_control,
  vfio_device_feature_dma_logging_range,
  vfio_device_feature_dma_logging_report,
} from '../abi/dma-logging.ts'
import {
  VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
} from '../abi/feature.ts'
import { type DeviceFd, type IovaRange, lengthOf, rangeText } from '../base/units.ts'
import { allocPages, freeSegment } from '../os/memory.ts'
import type { BitmapSpace } from './dirty-calls.ts'
import * as feature from './feature.ts'
import type { Kernel } from './port.ts'

const START = {
  cName: 'VFIO_DEVICE_FEATURE_DMA_LOGGING_START',
  number: VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
  payload: vfio_device_feature_dma_logging_control,
}
const STOP = {
  cName: 'VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP',
  number: VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
  payload: feature.NO_PAYLOAD,
}
const REPORT = {
  cName: 'VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT',
  number: VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
  payload: vfio_device_feature_dma_logging_report,
}

/** Ranges that one log can be told to watch: as many as a page of the kernel holds. */
export const LOG_RANGES_MAX = 256

/** Whether the device can log its own DMA writes. */
export const hasDmaLogging = (kernel: Kernel, deviceFd: DeviceFd): Promise<boolean> =>
  feature.probe(kernel, deviceFd, START)

/**
 * Log what the device writes in these ranges, which are aligned to the page size and do not overlap.
 * Answers the page size that the device really uses: its own, where the wanted one is too fine.
 */
export async function startLog(
  kernel: Kernel,
  deviceFd: DeviceFd,
  wanted: { readonly ranges: readonly IovaRange[]; readonly pageSize: bigint },
): Promise<bigint> {
  const { size: each } = vfio_device_feature_dma_logging_range
  const segment = allocPages(wanted.ranges.length * each)
  try {
    for (const [n, range] of wanted.ranges.entries()) {
      vfio_device_feature_dma_logging_range.write(segment.bytes, iovaAndLength(range), n * each)
    }
    const control = {
      page_size: wanted.pageSize,
      num_ranges: wanted.ranges.length,
      ranges: segment.address as bigint,
    }
    const act = 'start the DMA log of the device'
    return (await feature.set(kernel, deviceFd, START, control, act)).page_size
  } finally {
    freeSegment(segment)
  }
}

export async function stopLog(kernel: Kernel, deviceFd: DeviceFd): Promise<void> {
  await feature.set(kernel, deviceFd, STOP, {}, 'stop the DMA log of the device')
}

/**
 * Read and clear what the device wrote in a range inside a watched one. Bits are only ever set, also
 * where it fails.
 */
export async function readLog(
  kernel: Kernel,
  deviceFd: DeviceFd,
  range: IovaRange,
  into: BitmapSpace,
): Promise<void> {
  const report = {
    ...iovaAndLength(range),
    page_size: into.pageSize,
    bitmap: into.segment.address as bigint,
  }
  const act = `read the DMA log of the device in iova ${rangeText(range)}`
  await feature.get(kernel, deviceFd, REPORT, report, act)
}

/** How the payloads of the DMA log say a range. */
const iovaAndLength = (range: IovaRange) => ({ iova: range.start, length: lengthOf(range) })
