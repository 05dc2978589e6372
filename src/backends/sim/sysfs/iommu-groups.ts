/** /sys/kernel/iommu_groups: who is in a group, and what its devices cannot map. */

import { attribute, type Directory, directory, link } from '../file/vfs.ts'
import type { IommuGroup } from '../iommu/iommu-group.ts'
import type { Machine } from '../machine/machine.ts'
import type { ReservedKind } from '../spec/machine-spec.ts'

/** In reserved_regions the kernel shows a software MSI window as plain msi. */
const SHOWN: Record<ReservedKind, string> = {
  direct: 'direct',
  'direct-relaxable': 'direct-relaxable',
  reserved: 'reserved',
  msi: 'msi',
  'sw-msi': 'msi',
}

const address = (value: bigint): string => `0x${value.toString(16).padStart(16, '0')}`

export const iommuGroups = ({ groups }: Machine): Directory =>
  directory(() =>
    Object.fromEntries(
      // A group ends with its last member.
      [...groups.values()]
        .filter(({ members }) => members.size > 0)
        .map((group) => [group.id, () => one(group)]),
    ),
  )

const one = (group: IommuGroup): Directory =>
  directory(() => ({
    devices: () =>
      directory(() =>
        Object.fromEntries(
          [...group.members].map(({ name, sysfsPath }) => [name, () => link(sysfsPath)]),
        ),
      ),
    // vfio makes the groups of mediated devices itself, and names them as it does without an IOMMU.
    ...(!group.iommu && { name: () => attribute(() => 'vfio-noiommu\n') }),
    type: () => attribute(() => (group.iommu ? 'DMA\n' : 'unknown\n')),
    reserved_regions: () =>
      attribute(() =>
        group.spec.reserved
          .map(({ start, last, kind }) => `${address(start)} ${address(last)} ${SHOWN[kind]}\n`)
          .join(''),
      ),
  }))
