/** What came after 6.12: IOMMU_IOAS_MAP_FILE and IOMMU_IOAS_CHANGE_PROCESS. */

import { IOMMU_IOAS_MAP_WRITEABLE } from '../../../abi/iommufd.ts'
import {
  IOMMU_IOAS_CHANGE_PROCESS,
  IOMMU_IOAS_MAP_FILE,
  iommu_ioas_change_process,
  iommu_ioas_map_file,
} from '../../../abi/iommufd-later.ts'
import { ERRNO } from '../../../base/errno.ts'
import { type Operation, operation } from './command.ts'
import type { IommufdContext } from './context.ts'
import { filePages } from './file-pages.ts'
import { checkMap, placement } from './map-requests.ts'
import { charge, type Pages, uncharge } from './pages.ts'
import { accountModeOf } from './user-pages.ts'

const mapFile = operation(
  IOMMU_IOAS_MAP_FILE,
  '6.13',
  iommu_ioas_map_file,
  iommu_ioas_map_file.size,
  async ({ context, caller, cmd, respond }) => {
    const refused = checkMap(cmd.flags, [cmd.iova, cmd.length])
    if (refused < 0) return refused
    if (context.ioas(cmd.ioas_id) === undefined) return -ERRNO.ENOENT
    const isWritable = (cmd.flags & IOMMU_IOAS_MAP_WRITEABLE) !== 0
    const slice = await filePages(context, caller, cmd, isWritable)
    if (typeof slice === 'number') return slice
    // Looking at the file took time, and the ioas may be gone.
    const ioas = context.ioas(cmd.ioas_id)
    const iova =
      ioas?.iopt.map([slice], cmd.length, placement(cmd.flags, cmd.iova)) ?? BigInt(-ERRNO.ENOENT)
    slice.pages.put()
    if (iova < 0n) return Number(iova)
    cmd.iova = iova
    return respond()
  },
)

const changeProcess = operation(
  IOMMU_IOAS_CHANGE_PROCESS,
  '6.14',
  iommu_ioas_change_process,
  iommu_ioas_change_process.size,
  ({ context, caller: { mm }, cmd }) => {
    if (cmd.__reserved !== 0) return -ERRNO.EOPNOTSUPP
    const all = allPages(context)
    if ([...all].some(({ source }) => source.kind !== 'file')) return -ERRNO.EINVAL
    const moving = [...all].filter((pages) => pages.accountMode !== 'none' && pages.mm !== mm)
    const mode = accountModeOf(context, mm)
    // The new owner first, so that a refusal leaves everything as it was.
    const pinned = moving.reduce((sum, pages) => sum + pages.pinned, 0n)
    const charged = charge(mm, mode, pinned)
    if (charged < 0) return charged
    for (const pages of moving) uncharge(pages.mm, pages.accountMode, pages.pinned)
    for (const pages of moving) pages.accountMode = mode
    for (const pages of all) pages.mm = mm
    return 0
  },
)

const allPages = ({ ioases }: IommufdContext): Set<Pages> => {
  const all = new Set<Pages>()
  for (const { iopt } of ioases) for (const { value: area } of iopt.areas) all.add(area.pages)
  return all
}

export const laterRequests: readonly Operation[] = [mapFile, changeProcess]
