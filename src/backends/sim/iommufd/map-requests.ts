/** IOMMU_IOAS_MAP, IOMMU_IOAS_COPY and IOMMU_IOAS_UNMAP: the checks in the kernel's order. */

import {
  IOMMU_IOAS_COPY,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  IOMMU_IOAS_UNMAP,
  iommu_ioas_copy,
  iommu_ioas_map,
  iommu_ioas_unmap,
} from '../../../abi/iommufd.ts'
import { ERRNO } from '../../../base/errno.ts'
import { U64_MAX } from '../../../base/units.ts'
import { type Operation, operation } from './command.ts'
import { userPages } from './user-pages.ts'

export const ACCESS_FLAGS = IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE
const FLAGS = ACCESS_FLAGS | IOMMU_IOAS_MAP_FIXED_IOVA

/** What every request that maps checks first: 0 or -errno. */
export const checkMap = (flags: number, numbers: readonly bigint[]): number => {
  if ((flags & ~FLAGS) !== 0) return -ERRNO.EOPNOTSUPP
  if (numbers.includes(U64_MAX)) return -ERRNO.EOVERFLOW
  return (flags & ACCESS_FLAGS) === 0 ? -ERRNO.EINVAL : 0
}

/** Where to map: undefined lets the ioas choose. */
export const placement = (flags: number, iova: bigint) => ({
  iova: (flags & IOMMU_IOAS_MAP_FIXED_IOVA) === 0 ? undefined : iova,
  access: flags & ACCESS_FLAGS,
})

const map = operation(
  IOMMU_IOAS_MAP,
  '6.2',
  iommu_ioas_map,
  iommu_ioas_map.size,
  ({ context, caller, cmd, respond }) => {
    if (cmd.__reserved !== 0) return -ERRNO.EOPNOTSUPP
    const refused = checkMap(cmd.flags, [cmd.iova, cmd.length])
    if (refused < 0) return refused
    const ioas = context.ioas(cmd.ioas_id)
    if (ioas === undefined) return -ERRNO.ENOENT
    const isWritable = (cmd.flags & IOMMU_IOAS_MAP_WRITEABLE) !== 0
    const slice = userPages(
      context,
      caller,
      { address: cmd.user_va, length: cmd.length },
      isWritable,
    )
    if (typeof slice === 'number') return slice
    const iova = ioas.iopt.map([slice], cmd.length, placement(cmd.flags, cmd.iova))
    slice.pages.put()
    if (iova < 0n) return Number(iova)
    cmd.iova = iova
    return respond()
  },
)

const copy = operation(
  IOMMU_IOAS_COPY,
  '6.2',
  iommu_ioas_copy,
  iommu_ioas_copy.size,
  ({ context, cmd, respond }) => {
    const refused = checkMap(cmd.flags, [cmd.length, cmd.src_iova, cmd.dst_iova])
    if (refused < 0) return refused
    const from = context.ioas(cmd.src_ioas_id)
    if (from === undefined) return -ERRNO.ENOENT
    if (cmd.length === 0n) return -ERRNO.EINVAL
    const range = { start: cmd.src_iova, last: cmd.src_iova + cmd.length - 1n }
    if (range.last > U64_MAX) return -ERRNO.EOVERFLOW
    const slices = from.iopt.slices(range)
    const to = context.ioas(cmd.dst_ioas_id)
    if (slices === undefined || to === undefined) return -ERRNO.ENOENT
    const iova = to.iopt.map(slices, cmd.length, placement(cmd.flags, cmd.dst_iova))
    if (iova < 0n) return Number(iova)
    cmd.dst_iova = iova
    return respond()
  },
)

const unmap = operation(
  IOMMU_IOAS_UNMAP,
  '6.2',
  iommu_ioas_unmap,
  iommu_ioas_unmap.size,
  ({ context, cmd, respond }) => {
    const ioas = context.ioas(cmd.ioas_id)
    if (ioas === undefined) return -ERRNO.ENOENT
    const { iova, length } = cmd
    const isAll = iova === 0n && length === U64_MAX
    if (!isAll && (iova === U64_MAX || length === U64_MAX)) return -ERRNO.EOVERFLOW
    if (length === 0n) return -ERRNO.EINVAL
    const last = isAll ? U64_MAX : iova + length - 1n
    if (last > U64_MAX) return -ERRNO.EOVERFLOW
    const { answer, bytes } = ioas.iopt.unmap({ start: iova, last })
    if (answer < 0) return answer
    if (bytes === 0n && !isAll) return -ERRNO.ENOENT
    cmd.length = bytes
    return respond()
  },
)

export const mapRequests: readonly Operation[] = [map, copy, unmap]
