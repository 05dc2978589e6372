/** IOMMU_OPTION and IOMMU_VFIO_IOAS: settings of the iommufd and of an ioas. */

import {
  IOMMU_OPTION,
  IOMMU_OPTION_HUGE_PAGES,
  IOMMU_OPTION_OP_GET,
  IOMMU_OPTION_OP_SET,
  IOMMU_OPTION_RLIMIT_MODE,
  IOMMU_VFIO_IOAS,
  IOMMU_VFIO_IOAS_CLEAR,
  IOMMU_VFIO_IOAS_GET,
  IOMMU_VFIO_IOAS_SET,
  iommu_option,
  iommu_vfio_ioas,
} from '../../../abi/iommufd.ts'
import { ERRNO } from '../../../base/errno.ts'
import type { Caller } from '../file/open-file.ts'
import { type Operation, operation } from './command.ts'
import type { IommufdContext } from './context.ts'
import type { Ioas } from './ioas.ts'

interface Setting {
  readonly op: number
  readonly object_id: number
  val64: bigint
}

const rlimitMode = (context: IommufdContext, caller: Caller, setting: Setting): number => {
  if (setting.object_id !== 0) return -ERRNO.EOPNOTSUPP
  switch (setting.op) {
    case IOMMU_OPTION_OP_GET:
      setting.val64 = context.accountMode === 'mm' ? 1n : 0n
      return 0
    case IOMMU_OPTION_OP_SET:
      if (!caller.mayRaiseLimits) return -ERRNO.EPERM
      if (context.objects.size > 0) return -ERRNO.EBUSY
      if (setting.val64 > 1n) return -ERRNO.EINVAL
      context.accountMode = setting.val64 === 1n ? 'mm' : 'user'
      return 0
    default:
      return -ERRNO.EOPNOTSUPP
  }
}

const hugePages = ({ iopt }: Ioas, setting: Setting): number => {
  switch (setting.op) {
    case IOMMU_OPTION_OP_GET:
      setting.val64 = iopt.usesLargePages ? 1n : 0n
      return 0
    case IOMMU_OPTION_OP_SET:
      if (setting.val64 > 1n) return -ERRNO.EINVAL
      if (setting.val64 === 0n) return iopt.disableLargePages()
      iopt.enableLargePages()
      return 0
    default:
      return -ERRNO.EOPNOTSUPP
  }
}

const option = operation(
  IOMMU_OPTION,
  '6.2',
  iommu_option,
  iommu_option.size,
  ({ context, caller, cmd, respond }) => {
    if (cmd.__reserved !== 0) return -ERRNO.EOPNOTSUPP
    let answer: number = -ERRNO.EOPNOTSUPP
    if (cmd.option_id === IOMMU_OPTION_RLIMIT_MODE) {
      answer = rlimitMode(context, caller, cmd)
    } else if (cmd.option_id === IOMMU_OPTION_HUGE_PAGES) {
      const ioas = context.ioas(cmd.object_id)
      answer = ioas ? hugePages(ioas, cmd) : -ERRNO.ENOENT
    }
    return answer < 0 ? answer : respond()
  },
)

const vfioIoas = operation(
  IOMMU_VFIO_IOAS,
  '6.2',
  iommu_vfio_ioas,
  iommu_vfio_ioas.size,
  ({ context, cmd, respond }) => {
    if (cmd.__reserved !== 0) return -ERRNO.EOPNOTSUPP
    switch (cmd.op) {
      case IOMMU_VFIO_IOAS_GET:
        if (context.vfioIoas === undefined) return -ERRNO.ENODEV
        cmd.ioas_id = context.vfioIoas.id
        return respond()
      case IOMMU_VFIO_IOAS_SET: {
        const ioas = context.ioas(cmd.ioas_id)
        if (ioas === undefined) return -ERRNO.ENOENT
        context.vfioIoas = ioas
        return 0
      }
      case IOMMU_VFIO_IOAS_CLEAR:
        context.vfioIoas = undefined
        return 0
      default:
        return -ERRNO.EOPNOTSUPP
    }
  },
)

export const optionRequests: readonly Operation[] = [option, vfioIoas]
