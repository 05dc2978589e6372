/**
 * Which groups user space may own. A group is viable when no driver of the kernel may do DMA
 * through it: every device is bound to a VFIO driver, to a driver that sets driver_managed_dma, or to
 * none (vfio.h: VFIO_GROUP_FLAGS_VIABLE; the rule is iommu_group_claim_dma_owner's).
 */

import type { Blocker } from '../base/error.ts'

export type Viability = 'viable' | 'not-viable' | 'not-bound'

export interface Member {
  readonly name: string
  readonly bus: 'pci' | 'mdev' | 'other'
  readonly driver: string | undefined
}

/** PCI-to-PCI bridges (class 0604) and those that look like one (0609): they stay with the kernel. */
export const isBridge = ({
  pci,
}: {
  readonly pci?: { readonly class: number } | undefined
}): boolean => pci !== undefined && (pci.class >> 8 === 0x0604 || pci.class >> 8 === 0x0609)

/** Drivers that set driver_managed_dma besides the VFIO ones: bridges and the placeholder. */
const DRIVER_MANAGED_DMA = new Set(['pcieport', 'pci-stub'])

/** A mediated device is made by its VFIO driver; PCI variant drivers carry vfio in their name. */
export const isVfioDriver = ({ bus, driver }: Member): boolean =>
  driver !== undefined && (bus === 'mdev' || /vfio/.test(driver))

const blocksViability = (member: Member): boolean =>
  member.driver !== undefined && !isVfioDriver(member) && !DRIVER_MANAGED_DMA.has(member.driver)

/** A group that vfio made for devices without an IOMMU; those of mediated devices have the name too. */
export const isNoIommuGroup = (name: string | undefined, members: readonly Member[]): boolean =>
  name === 'vfio-noiommu' && members.length > 0 && members.every(({ bus }) => bus !== 'mdev')

export const noIommuBlocker = (group: number): Blocker => ({
  subject: `group ${group}`,
  found: 'a no-IOMMU group: no IOMMU keeps its devices inside the memory given to them',
  fix: 'switch on the IOMMU of the host; vfiod does not use such groups',
})

/** What is in the way of owning the group; empty for a viable one. */
export const blockersOf = (members: readonly Member[]): Blocker[] =>
  members.filter(blocksViability).map(({ name, bus, driver }) => ({
    subject: name,
    found: `bound to ${driver}`,
    fix:
      bus === 'other'
        ? 'take it from that driver by hand, or use another group'
        : 'bind it to vfio-pci or leave it without a driver',
  }))

export function viabilityOf(members: readonly Member[]): Viability {
  if (members.some(blocksViability)) return 'not-viable'
  return members.some(isVfioDriver) ? 'viable' : 'not-bound'
}
