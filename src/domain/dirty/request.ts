/** Checks of requests about dirty tracking. */

import { VfiodError } from '../../base/error.ts'
import { hex, type IovaRange } from '../../base/units.ts'
import { LOG_RANGES_MAX } from '../../kernel/dma-log-calls.ts'
import type { OpenDevice } from '../device/device.ts'
import type { DirtyBits } from '../iommu/backend.ts'
import { type Piece, requireRange } from '../space/ranges.ts'
import type { AddressSpace } from '../space/space.ts'
import { isOfMemory } from '../state/records.ts'
import type { Tracking, TrackingRequest } from './tracking.ts'

/** The ranges that the request names, which may be none; or BAD_RANGE. */
export function requireWatchable(space: AddressSpace, asked: TrackingRequest): IovaRange[] {
  const { ranges, pageSize } = asked
  if (ranges.length > LOG_RANGES_MAX) throw tooManyRanges(ranges.length)
  const isPowerOfTwo = (pageSize & (pageSize - 1n)) === 0n
  if (pageSize !== 0n && (!isPowerOfTwo || pageSize < space.alignment)) {
    throw new VfiodError(
      'BAD_RANGE',
      `Cannot track in units of ${hex(pageSize)} bytes: a power of two from ${hex(space.alignment)} on is needed`,
      { field: 'page_size' },
    )
  }
  return ranges.map((piece) => requireRange('watch', piece, pageSize || space.alignment))
}

/** The dirty bits of the IOMMU, or UNSUPPORTED where the host offers none. */
export function requireDirtyBits(space: AddressSpace): DirtyBits {
  const { dirty } = space.iommu
  if ('offered' in dirty) return dirty.offered
  throw new VfiodError(
    'UNSUPPORTED',
    `Cannot track writes in "${space.id}" by the IOMMU: ${dirty.missing}; let devices that log their DMA track`,
  )
}

/** Throw BAD_RANGE where a mapping has more pages than a container can track. */
export function requireTrackable(act: string, space: AddressSpace, { iova, length }: Piece): void {
  const pages = length / space.alignment
  const { mappingPagesMax } = requireDirtyBits(space)
  if (pages <= mappingPagesMax) return
  throw new VfiodError(
    'BAD_RANGE',
    `Cannot ${act} ${hex(length)} bytes at iova ${hex(iova)} while writes in "${space.id}" are tracked: a mapping may have ${mappingPagesMax} pages then, and this has ${pages}; map it in pieces`,
    { field: 'length' },
  )
}

/** The ranges that devices should watch: those of the request, or else the mapped ones. */
export function requireRanges(
  space: AddressSpace,
  watched: readonly IovaRange[],
): readonly IovaRange[] {
  if (watched.length > 0) return watched
  const mapped = space.mappings.all().filter(isOfMemory)
  if (mapped.length > 0) return mapped
  throw new VfiodError(
    'BAD_ARGUMENT',
    `Cannot track by devices in "${space.id}": no range is named and nothing is mapped; map memory first, or name ranges`,
    { field: 'ranges' },
  )
}

/** Throw TRACKING_STARTED unless the present tracking was started with the same arguments. */
export function requireSame(
  space: AddressSpace,
  { asked: first }: Tracking,
  asked: TrackingRequest,
): void {
  const same = (a: readonly unknown[], b: readonly unknown[]) =>
    a.length === b.length && a.every((each, n) => each === b[n])
  const flat = ({ iommu, devices, ranges, pageSize }: TrackingRequest) => [
    iommu,
    pageSize,
    ...devices,
    ...ranges.flatMap(({ iova, length }) => [iova, length]),
  ]
  if (same(flat(first), flat(asked))) return
  throw new VfiodError(
    'TRACKING_STARTED',
    `Cannot track writes in "${space.id}": tracking was started with other arguments; stop it first`,
    { resource: { type: 'address space', name: space.id } },
  )
}

export const trackingStopped = (space: AddressSpace): VfiodError =>
  new VfiodError(
    'TRACKING_STOPPED',
    `Cannot read dirty pages of "${space.id}": tracking is off; start it first`,
    { resource: { type: 'address space', name: space.id } },
  )

export const noLog = ({ name }: OpenDevice): VfiodError =>
  new VfiodError(
    'UNSUPPORTED',
    `Cannot track by ${name}: its driver does not offer VFIO_DEVICE_FEATURE_DMA_LOGGING_START; leave it out, and let the IOMMU track`,
    { op: 'VFIO_DEVICE_FEATURE_DMA_LOGGING_START', errno: 'ENOTTY' },
  )

const tooManyRanges = (count: number): VfiodError =>
  new VfiodError(
    'BATCH_TOO_LARGE',
    `Cannot watch ${count} ranges: a device takes at most ${LOG_RANGES_MAX}; join neighbours`,
    {
      field: 'ranges',
      quota: {
        limit: 'ranges of one DMA log',
        max: BigInt(LOG_RANGES_MAX),
        current: 0n,
        needed: BigInt(count),
      },
    },
  )
