/** Why a group cannot be opened or attached, judged by what sysfs and the records say. */

import type { Blocker } from '../../base/error.ts'
import { type IovaRange, rangeText } from '../../base/units.ts'
import type { CauseId } from './catalog.ts'
import { type Proof, ruledOut, type Verdict } from './cause.ts'

export interface HostReservedRegion extends IovaRange {
  /** As reserved_regions says it: direct, direct-relaxable, reserved, msi. */
  readonly kind: string
}

/** A mapping of the address space that the group is to join. */
export interface MappedRange extends IovaRange {
  /** How it reads in messages. */
  readonly text: string
}

/** Undefined is what cannot be told. */
export interface GroupFacts {
  readonly group: number
  readonly exists: boolean | undefined
  /** Whether vfio made it for a device that no IOMMU is before. */
  readonly isNoIommu: boolean | undefined
  readonly members: readonly {
    readonly name: string
    readonly bus: 'pci' | 'mdev' | 'other'
    readonly driver: string | undefined
    readonly isVfio: boolean
    readonly blocks: boolean
  }[]
  readonly reserved: readonly HostReservedRegion[] | undefined
  /** Names of the groups that vfio offers (/sys/class/vfio), and of the nodes that the daemon sees. */
  readonly offered: readonly string[] | undefined
  readonly nodes: readonly string[] | undefined
  /** Of the module that stands behind the container. */
  readonly allowsUnsafeInterrupts: boolean | undefined
  readonly hasType1: boolean | undefined
  /** Of the running kernel, as [6, 12]. */
  readonly release: readonly [number, number] | undefined
}

export interface JoinFacts extends GroupFacts {
  /** What the kernel answered. */
  readonly errno: string
  readonly mappings: readonly MappedRange[]
  /** Where the group could map in an address space for itself; undefined where that is not known. */
  readonly reach: readonly IovaRange[] | undefined
}

const NO_IOMMU: Proof<CauseId>['cause'] = 'no-iommu-group'

/** For the open of /dev/vfio/GROUP. */
export function judgeOpen(facts: GroupFacts): Verdict<CauseId>[] {
  const { group, exists, isNoIommu, members, offered, nodes } = facts
  const number = String(group)
  const verdicts: Verdict<CauseId>[] = []
  if (isNoIommu === true) {
    const found = `group ${group} is a no-IOMMU group: its node is /dev/vfio/noiommu-${group}, and nothing keeps its devices inside the memory given to them`
    verdicts.push({ cause: NO_IOMMU, isSo: true, found })
    verdicts.push(...ruledOut<CauseId>('group-node-missing', 'device-cgroup'))
  } else if (isNoIommu === false) verdicts.push(...ruledOut<CauseId>(NO_IOMMU, 'no-iommu-rawio'))
  if (exists === true) verdicts.push(...ruledOut<CauseId>('no-such-group'))
  if (members.some(({ isVfio }) => isVfio)) verdicts.push(...ruledOut<CauseId>('group-not-bound'))
  if (offered?.includes(number)) {
    verdicts.push(...ruledOut<CauseId>('no-group-interface', 'group-not-bound', 'no-such-group'))
    if (nodes !== undefined && !nodes.includes(number)) verdicts.push(nodeMissing(group))
  } else if (offered !== undefined) verdicts.push(...ruledOut<CauseId>('group-node-missing'))
  // Nodes of groups are there, so the kernel has them.
  if (nodes?.some((name) => /^\d+$/.test(name)))
    verdicts.push(...ruledOut<CauseId>('no-group-interface'))
  if (exists === false) {
    const found = `the host has no IOMMU group ${group} any more`
    verdicts.push({ cause: 'no-such-group', isSo: true, found })
  }
  return verdicts
}

const nodeMissing = (group: number): Proof<CauseId> => ({
  cause: 'group-node-missing',
  isSo: true,
  found: `the kernel offers group ${group}, and the daemon does not see its node /dev/vfio/${group}`,
  fix: `pass it into the container of the daemon (--device /dev/vfio/${group}), or see what udev made of it`,
})

/** For SET_CONTAINER, SET_IOMMU, and the open of a device where iommufd attaches with that. */
export function judgeJoin(facts: JoinFacts): Verdict<CauseId>[] {
  const { mappings } = facts
  const verdicts = [...judgeFirmware(facts), ...judgeInterrupts(facts), ...judgeDrivers(facts)]
  // The daemon has just opened the group, and it alone has.
  verdicts.push(...ruledOut<CauseId>('group-in-container'))
  if (facts.isNoIommu === false)
    verdicts.push(...ruledOut<CauseId>('no-iommu-mixed', 'no-iommu-rawio'))
  if (facts.hasType1 === true) verdicts.push(...ruledOut<CauseId>('type1-not-loaded'))
  if (facts.hasType1 === false) {
    const found = 'the module vfio_iommu_type1 is not loaded'
    verdicts.push({ cause: 'type1-not-loaded', isSo: true, found })
  }
  if (mappings.length > 0) return [...verdicts, ...judgeReserved(facts), ...judgeReach(facts)]
  const needMappings = ['iommu-too-narrow', 'reserved-region-mapped', 'mapped-memory-unusable']
  return [...verdicts, ...ruledOut(...(needMappings as CauseId[]))]
}

/** Linux 6.6: devices that the firmware wants mapped 1:1 are never given away. */
const FIRMWARE_WINS: readonly [number, number] = [6, 6]

const isBefore = (a: readonly [number, number], b: readonly [number, number]): boolean =>
  a[0] < b[0] || (a[0] === b[0] && a[1] < b[1])

function judgeFirmware({ group, reserved, release, errno }: JoinFacts): Verdict<CauseId>[] {
  if (reserved === undefined) return []
  const direct = reserved.filter(({ kind }) => kind === 'direct')
  if (direct.length === 0) return ruledOut('firmware-region')
  // Before, it depended on the IOMMU whether it was refused, and with which errno.
  if (release !== undefined && isBefore(release, FIRMWARE_WINS)) return []
  if (errno !== 'EINVAL') return ruledOut('firmware-region')
  const ranges = direct.map(rangeText).join(' and ')
  return [
    {
      cause: 'firmware-region',
      isSo: true,
      found: `the firmware demands a 1:1 mapping of ${ranges} for a device of group ${group} (reserved region of kind direct), and Linux gives no such device to user space`,
      blockers: direct.map((region) => ({
        subject: `reserved region ${rangeText(region)} of group ${group}`,
        found: 'of kind direct: the firmware demands that it is mapped 1:1',
        fix: 'switch off what uses it in the firmware setup, or ask the vendor of the platform',
      })),
    },
    // That one comes first, and is EINVAL from then on.
    ...ruledOut<CauseId>('iommu-too-narrow', 'reserved-region-mapped'),
  ]
}

function judgeInterrupts({ allowsUnsafeInterrupts }: JoinFacts): Verdict<CauseId>[] {
  return allowsUnsafeInterrupts === true ? ruledOut('interrupts-not-isolated') : []
}

function judgeDrivers({ members }: JoinFacts): Verdict<CauseId>[] {
  const blockers: Blocker[] = members
    .filter(({ blocks }) => blocks)
    .map(({ name, driver }) => ({
      subject: name,
      found: `bound to ${driver}`,
      fix: 'bind it to vfio-pci or leave it without a driver',
    }))
  if (blockers.length === 0) {
    return members.length > 0 ? ruledOut('kernel-driver-owns') : []
  }
  const found = blockers.map((blocker) => `${blocker.subject} is ${blocker.found}`).join(' and ')
  return [{ cause: 'kernel-driver-owns', isSo: true, found, blockers }]
}

const meets = (a: IovaRange, b: IovaRange): boolean => a.start <= b.last && b.start <= a.last

const asBlocker =
  (found: string) =>
  ({ text }: MappedRange): Blocker => ({ subject: text, found, fix: 'unmap it' })

/** Few enough to read; the blockers have all. */
const listOf = (mappings: readonly MappedRange[]): string => {
  const [first] = mappings
  const more = mappings.length - 1
  return more === 0 ? `${first?.text}` : `${first?.text} and ${more} more`
}

function judgeReserved({ group, reserved, mappings }: JoinFacts): Verdict<CauseId>[] {
  if (reserved === undefined) return []
  const kept = reserved.filter(({ kind }) => kind !== 'direct-relaxable')
  const inside = mappings.filter((mapping) => kept.some((region) => meets(region, mapping)))
  if (inside.length === 0) return ruledOut('reserved-region-mapped')
  const regions = kept.filter((region) => inside.some((mapping) => meets(region, mapping)))
  const ranges = regions.map((region) => `${rangeText(region)} (${region.kind})`).join(' and ')
  return [
    {
      cause: 'reserved-region-mapped',
      isSo: true,
      found: `${listOf(inside)} is mapped in the reserved region ${ranges} of group ${group}`,
      blockers: inside.map(asBlocker('mapped in a reserved region of the group')),
    },
  ]
}

function judgeReach({ group, reach, mappings, reserved = [] }: JoinFacts): Verdict<CauseId>[] {
  if (reach === undefined) return []
  const isInside = (mapping: IovaRange) =>
    reach.some(({ start, last }) => start <= mapping.start && mapping.last <= last)
  const isReserved = (mapping: IovaRange) => reserved.some((region) => meets(region, mapping))
  const beyond = mappings.filter((mapping) => !isInside(mapping) && !isReserved(mapping))
  if (beyond.length === 0) return ruledOut('iommu-too-narrow')
  return [
    {
      cause: 'iommu-too-narrow',
      isSo: true,
      found: `group ${group} takes iovas in ${reach.map(rangeText).join(' and ')} only, and ${listOf(beyond)} is mapped`,
      blockers: beyond.map(asBlocker('mapped where the group cannot map')),
    },
  ]
}
