/** What may be mapped in an ioas: IOMMU_IOAS_IOVA_RANGES and IOMMU_IOAS_ALLOW_IOVAS. */

import {
  IOMMU_IOAS_ALLOW_IOVAS,
  IOMMU_IOAS_IOVA_RANGES,
  iommu_ioas_allow_iovas,
  iommu_ioas_iova_ranges,
  iommu_iova_range,
} from '../../../abi/iommufd.ts'
import { ERRNO } from '../../../base/errno.ts'
import { overlaps, type Range } from '../../../rules/range-map.ts'
import { userBytes } from '../core/user-memory.ts'
import { type Operation, operation } from './command.ts'

const { size: RANGE_SIZE } = iommu_iova_range

const getRanges = operation(
  IOMMU_IOAS_IOVA_RANGES,
  '6.2',
  iommu_ioas_iova_ranges,
  iommu_ioas_iova_ranges.size,
  ({ context, cmd, respond }) => {
    if (cmd.__reserved !== 0) return -ERRNO.EOPNOTSUPP
    const ioas = context.ioas(cmd.ioas_id)
    if (ioas === undefined) return -ERRNO.ENOENT
    const { ranges, alignment } = ioas.iopt
    const room = cmd.num_iovas
    for (const [index, range] of ranges.slice(0, room).entries()) {
      const into = userBytes(cmd.allowed_iovas + BigInt(index * RANGE_SIZE), RANGE_SIZE)
      if (into === undefined) return -ERRNO.EFAULT
      into.set(iommu_iova_range.encode(range))
    }
    cmd.num_iovas = ranges.length
    cmd.out_iova_alignment = alignment
    const responded = respond()
    if (responded < 0) return responded
    return ranges.length > room ? -ERRNO.EMSGSIZE : 0
  },
)

const allow = operation(
  IOMMU_IOAS_ALLOW_IOVAS,
  '6.2',
  iommu_ioas_allow_iovas,
  iommu_ioas_allow_iovas.size,
  ({ context, cmd }) => {
    if (cmd.__reserved !== 0) return -ERRNO.EOPNOTSUPP
    const ioas = context.ioas(cmd.ioas_id)
    if (ioas === undefined) return -ERRNO.ENOENT
    const allowed: Range<bigint>[] = []
    for (let index = 0; index < cmd.num_iovas; index++) {
      const bytes = userBytes(cmd.allowed_iovas + BigInt(index * RANGE_SIZE), RANGE_SIZE)
      if (bytes === undefined) return -ERRNO.EFAULT
      const range = iommu_iova_range.decode(bytes)
      // A range of one byte is none.
      if (range.start >= range.last) return -ERRNO.EINVAL
      if (allowed.some((other) => overlaps(other, range))) return -ERRNO.EINVAL
      allowed.push(range)
    }
    return ioas.iopt.setAllowed(allowed)
  },
)

export const iovaRequests: readonly Operation[] = [getRanges, allow]
