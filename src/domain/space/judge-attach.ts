/** Finds out why the kernel does not take a group into an address space, or open a device of it. */

import { deviceFacts } from '../../kernel/device-facts.ts'
import type { Judge } from '../../kernel/diagnosis.ts'
import { groupFacts } from '../../kernel/group-facts.ts'
import type { Kernel } from '../../kernel/port.ts'
import { judgeEnable, judgeOpenOfType1 } from '../../rules/causes/judge-device.ts'
import { type JoinFacts, judgeJoin, judgeOpen } from '../../rules/causes/judge-group.ts'
import type { DeviceToOpen, IommuBackend } from '../iommu/backend.ts'
import { reachOf } from '../iommu/modes.ts'
import type { Mappings } from '../state/mapping-table.ts'
import { mappingText } from './ranges.ts'

interface Joined {
  readonly iommu: IommuBackend
  readonly mappings: Mappings
}

/** What a mapping of the container can be the cause of. */
const OF_MAPPINGS = new Set(['EINVAL', 'EFAULT', 'ERANGE', 'EADDRINUSE'])

const moduleOf = ({ iommu }: Joined) => (iommu.kind === 'type1' ? 'vfio_iommu_type1' : 'iommufd')

const mappedRanges = ({ mappings }: Joined): JoinFacts['mappings'] =>
  mappings.all().map((mapping) => ({
    start: mapping.start,
    last: mapping.last,
    text: mappingText(mapping),
  }))

/** For IommuBackend.attach. The group is in no container any more when it has failed. */
export const judgeAttach =
  (kernel: Kernel, space: Joined, group: number): Judge =>
  async ({ operation, errno }) => {
    const facts = await groupFacts(kernel, group, moduleOf(space))
    if (operation === 'open /dev/vfio/GROUP') return judgeOpen(facts)
    const mappings = mappedRanges(space)
    const isAsked = mappings.length > 0 && OF_MAPPINGS.has(errno) && space.iommu.kind === 'type1'
    // Where it cannot be attached alone either, the mappings are not the cause.
    const reach = isAsked ? await reachOf(kernel, group).catch(() => undefined) : undefined
    return judgeJoin({ ...facts, errno, mappings, reach })
  }

/** For IommuBackend.openDevice: iommufd attaches a device as it is opened. */
export const judgeOpenDevice =
  (kernel: Kernel, space: Joined, at: DeviceToOpen & { readonly group: number }): Judge =>
  async ({ errno }) => {
    const hasToken = at.vfToken !== undefined
    const device = judgeEnable({ ...(await deviceFacts(kernel, at.name)), hasToken })
    if (space.iommu.kind === 'type1') return [...device, ...judgeOpenOfType1()]
    const facts = await groupFacts(kernel, at.group, moduleOf(space))
    const mappings = mappedRanges(space)
    return [...device, ...judgeJoin({ ...facts, errno, mappings, reach: undefined })]
  }
