/** The DMA logging features as the core of vfio checks them, over what a driver provides. */

import {
  vfio_device_feature_dma_logging_control,
  vfio_device_feature_dma_logging_range,
  vfio_device_feature_dma_logging_report,
} from '../../../abi/dma-logging.ts'
import { VFIO_DEVICE_FEATURE_GET, VFIO_DEVICE_FEATURE_SET } from '../../../abi/feature.ts'
import { ERRNO } from '../../../base/errno.ts'
import { PAGE_SIZE, U64_MAX } from '../../../base/units.ts'
import { overlaps, type Range } from '../../../rules/range-map.ts'
import { copyIn, copyOut, userBytes } from '../core/user-memory.ts'
import { checkFeature, type FeatureCall } from './feature-call.ts'

export interface DmaLoggingOps {
  /** The page size that the device tracks with, or -errno. */
  start(ranges: readonly Range<bigint>[], pageSize: bigint): bigint
  stop(): number
  /** Sets the bits of the pages written in the range since the last report, and clears them. */
  report(range: Range<bigint>, pageSize: bigint, bitmap: bigint): number
}

/** As many as fit into a page. */
const RANGES_MAX = Number(PAGE_SIZE) / vfio_device_feature_dma_logging_range.size

export const dmaLoggingStart = (ops: DmaLoggingOps | undefined, call: FeatureCall): number => {
  if (!ops) return -ERRNO.ENOTTY
  const { size } = vfio_device_feature_dma_logging_control
  const checked = checkFeature(call, VFIO_DEVICE_FEATURE_SET, size)
  if (checked !== 1) return checked
  const control = copyIn(vfio_device_feature_dma_logging_control, call.payload, size)
  if (control === undefined) return -ERRNO.EFAULT
  if (control.num_ranges === 0) return -ERRNO.EINVAL
  if (control.num_ranges > RANGES_MAX) return -ERRNO.E2BIG

  const ranges = rangesAt(control.ranges, control.num_ranges, control.page_size)
  if (typeof ranges === 'number') return ranges
  const started = ops.start(ranges, control.page_size)
  if (started < 0n) return Number(started)
  const answer = vfio_device_feature_dma_logging_control.encode({ ...control, page_size: started })
  return copyOut(call.payload, answer)
}

const rangesAt = (
  address: bigint,
  count: number,
  pageSize: bigint,
): readonly Range<bigint>[] | number => {
  const { size } = vfio_device_feature_dma_logging_range
  const bytes = userBytes(address, count * size)
  const known: Range<bigint>[] = []
  for (let index = 0; index < count; index++) {
    if (bytes === undefined) return -ERRNO.EFAULT
    const { iova, length } = vfio_device_feature_dma_logging_range.decode(bytes, index * size)
    // As IS_ALIGNED() does it: a page size of 0 lets only 0 through, any other number masks bits.
    const mask = (pageSize - 1n) & U64_MAX
    if (((iova | length) & mask) !== 0n) return -ERRNO.EINVAL
    if (iova + length > U64_MAX) return -ERRNO.EOVERFLOW
    // An empty range ends before it starts, or at the very top, and is compared all the same.
    const range = { start: iova, last: (iova + length - 1n) & U64_MAX }
    if (known.some((other) => overlaps(other, range))) return -ERRNO.EINVAL
    known.push(range)
  }
  return known.filter(({ start, last }) => start <= last && last !== U64_MAX)
}

export const dmaLoggingStop = (ops: DmaLoggingOps | undefined, call: FeatureCall): number => {
  if (!ops) return -ERRNO.ENOTTY
  const checked = checkFeature(call, VFIO_DEVICE_FEATURE_SET, 0)
  return checked === 1 ? ops.stop() : checked
}

export const dmaLoggingReport = (ops: DmaLoggingOps | undefined, call: FeatureCall): number => {
  if (!ops) return -ERRNO.ENOTTY
  const { size } = vfio_device_feature_dma_logging_report
  const checked = checkFeature(call, VFIO_DEVICE_FEATURE_GET, size)
  if (checked !== 1) return checked
  const report = copyIn(vfio_device_feature_dma_logging_report, call.payload, size)
  if (report === undefined) return -ERRNO.EFAULT
  const { iova, length, page_size: pageSize } = report
  if (pageSize < PAGE_SIZE || (pageSize & (pageSize - 1n)) !== 0n) return -ERRNO.EINVAL
  if (iova + length > U64_MAX) return -ERRNO.EOVERFLOW
  return ops.report({ start: iova, last: iova + length - 1n }, pageSize, report.bitmap)
}
