/** Typed calls of a device's own log of its DMA (vfio.h: VFIO_DEVICE_FEATURE_DMA_LOGGING_*, 6.1). */

import {
  vfio_device_feature_dma_logging_control,
  vfio_device_feature_dma_logging_range,
  vfio_device_feature_dma_logging_report,
} from '../abi/dma-logging.ts'
import {
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FEATURE_SET,
  vfio_device_feature,
} from '../abi/feature.ts'
import { type IovaRange, rangeText } from '../base/units.ts'
import { allocPages, freeSegment } from '../os/memory.ts'
import type { BitmapSpace } from './dirty-calls.ts'
import type { Kernel } from './port.ts'
import { accept } from './refusal.ts'

/** Ranges that one log can be told to watch: as many as a page of the kernel holds. */
export const LOG_RANGES_MAX = 256

/** Whether the device can log its own DMA writes. */
export async function hasDmaLogging(kernel: Kernel, deviceFd: number): Promise<boolean> {
  const flags =
    VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START
  const arg = vfio_device_feature.encode({ argsz: vfio_device_feature.size, flags })
  return (await kernel.ioctl(deviceFd, VFIO_DEVICE_FEATURE.number, arg)) >= 0
}

/**
 * Log what the device writes in these ranges, which are aligned to the page size and do not overlap.
 * Answers the page size that the device really uses: its own, where the wanted one is too fine.
 */
export async function startLog(
  kernel: Kernel,
  deviceFd: number,
  wanted: { readonly ranges: readonly IovaRange[]; readonly pageSize: bigint },
): Promise<bigint> {
  const { size: head } = vfio_device_feature
  const { size: each } = vfio_device_feature_dma_logging_range
  const payload = vfio_device_feature_dma_logging_control
  const segment = allocPages(wanted.ranges.length * each)
  try {
    for (const [n, { start, last }] of wanted.ranges.entries()) {
      const range = { iova: start, length: last - start + 1n }
      vfio_device_feature_dma_logging_range.write(segment.bytes, range, n * each)
    }
    const flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START
    const arg = vfio_device_feature.encode({ argsz: head + payload.size, flags }, payload.size)
    const control = {
      page_size: wanted.pageSize,
      num_ranges: wanted.ranges.length,
      ranges: segment.address as bigint,
    }
    payload.write(arg, control, head)
    const answer = await kernel.ioctl(deviceFd, VFIO_DEVICE_FEATURE.number, arg)
    accept('VFIO_DEVICE_FEATURE_DMA_LOGGING_START', answer, 'start the DMA log of the device')
    return payload.decode(arg, head).page_size
  } finally {
    freeSegment(segment)
  }
}

export async function stopLog(kernel: Kernel, deviceFd: number): Promise<void> {
  const flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP
  const arg = vfio_device_feature.encode({ argsz: vfio_device_feature.size, flags })
  const answer = await kernel.ioctl(deviceFd, VFIO_DEVICE_FEATURE.number, arg)
  accept('VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP', answer, 'stop the DMA log of the device')
}

/**
 * Read and clear what the device wrote in a range inside a watched one. Bits are only ever set, also
 * where it fails.
 */
export async function readLog(
  kernel: Kernel,
  deviceFd: number,
  range: IovaRange,
  into: BitmapSpace,
): Promise<void> {
  const { size: head } = vfio_device_feature
  const payload = vfio_device_feature_dma_logging_report
  const flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT
  const arg = vfio_device_feature.encode({ argsz: head + payload.size, flags }, payload.size)
  const report = {
    iova: range.start,
    length: range.last - range.start + 1n,
    page_size: into.pageSize,
    bitmap: into.segment.address as bigint,
  }
  payload.write(arg, report, head)
  const answer = await kernel.ioctl(deviceFd, VFIO_DEVICE_FEATURE.number, arg)
  const op = 'VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT'
  accept(op, answer, `read what the device wrote in iova ${rangeText(range)}`)
}
