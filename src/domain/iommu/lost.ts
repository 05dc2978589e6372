/**
 * Whether a container has lost its IOMMU: the kernel takes it away with the last VFIO device of its
 * groups, and says EINVAL or ENODEV to every later request, whatever else these may mean.
 */

import type { ContainerFd } from '../../base/units.ts'
import { iommuInfo } from '../../kernel/container-calls.ts'
import { explained, type Judge } from '../../kernel/diagnosis.ts'
import type { Kernel } from '../../kernel/port.ts'
import { wasErrno } from '../../kernel/refusal.ts'
import type { CauseId } from '../../rules/causes/catalog.ts'
import { ruledOut, type Verdict } from '../../rules/causes/cause.ts'

const LOST: Verdict<CauseId> = {
  cause: 'container-lost-iommu',
  isSo: true,
  found:
    'the container has no IOMMU any more: outside of vfiod the last device of its groups was taken from its driver or removed',
}

const CODES = ['EINVAL', 'ENODEV', 'ENOENT'] as const

const judgeLost =
  (kernel: Kernel, fd: ContainerFd): Judge =>
  async ({ errno }): Promise<Verdict<CauseId>[]> => {
    if (!CODES.some((code) => code === errno)) return []
    try {
      await iommuInfo(kernel, fd)
      return ruledOut('container-lost-iommu')
    } catch (error) {
      return CODES.some((code) => wasErrno(error, code)) ? [LOST] : []
    }
  }

/** What a request on a container answers, or its refusal, which says whether the container lost it. */
export const unlessLost = <T>(kernel: Kernel, fd: ContainerFd, call: Promise<T>): Promise<T> =>
  explained(call, judgeLost(kernel, fd))
