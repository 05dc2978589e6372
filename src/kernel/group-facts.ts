/** Facts about containers and groups, read through the port; what cannot be read is undefined. */

import { iova } from '../base/units.ts'
import type { ContainerFacts } from '../rules/causes/judge-container.ts'
import type { GroupFacts, HostReservedRegion } from '../rules/causes/judge-group.ts'
import { blockersOf, isNoIommuGroup, isVfioDriver } from '../rules/viability.ts'
import type { Kernel } from './port.ts'
import { groupDevices, memberDevice } from './sysfs.ts'

const GROUPS = '/sys/kernel/iommu_groups'
const MODULES = '/sys/module'

const textOf = async (kernel: Kernel, path: string): Promise<string | undefined> => {
  const bytes = await kernel.readFile(path)
  return typeof bytes === 'number' ? undefined : new TextDecoder().decode(bytes)
}

const namesIn = async (kernel: Kernel, path: string): Promise<readonly string[] | undefined> => {
  const names = await kernel.readDir(path)
  return typeof names === 'number' ? undefined : names
}

export async function containerFacts(kernel: Kernel): Promise<ContainerFacts> {
  const [offered, modules] = await Promise.all([
    namesIn(kernel, '/sys/class/misc'),
    namesIn(kernel, MODULES),
  ])
  return { isOffered: offered?.includes('vfio'), hasVfio: modules?.includes('vfio') }
}

/** What takes groups into a container: type1, or iommufd where it stands in for that. */
export type ContainerModule = 'vfio_iommu_type1' | 'iommufd'

export async function groupFacts(
  kernel: Kernel,
  group: number,
  container: ContainerModule,
): Promise<GroupFacts> {
  const [names, groups, name, reserved, offered, nodes, unsafe, modules, release] =
    await Promise.all([
      groupDevices(kernel, group),
      namesIn(kernel, GROUPS),
      textOf(kernel, `${GROUPS}/${group}/name`),
      textOf(kernel, `${GROUPS}/${group}/reserved_regions`),
      namesIn(kernel, '/sys/class/vfio'),
      namesIn(kernel, '/dev/vfio'),
      textOf(kernel, `${MODULES}/${container}/parameters/allow_unsafe_interrupts`),
      namesIn(kernel, MODULES),
      textOf(kernel, '/proc/sys/kernel/osrelease'),
    ])
  const members = await Promise.all((names ?? []).map((each) => memberFacts(kernel, group, each)))
  return {
    group,
    exists: groups?.includes(String(group)),
    isNoIommu: noIommuFact({ group, name: name?.trim(), members, offered, nodes }),
    members,
    reserved: reserved === undefined ? undefined : parseReserved(reserved),
    offered,
    nodes,
    allowsUnsafeInterrupts: unsafe === undefined ? undefined : unsafe.trim() === 'Y',
    hasType1: modules?.includes('vfio_iommu_type1'),
    release: release === undefined ? undefined : parseRelease(release),
  }
}

/** By its node, or where neither list is readable by its name. */
function noIommuFact({
  group,
  name,
  members,
  offered,
  nodes,
}: Pick<GroupFacts, 'group' | 'members' | 'offered' | 'nodes'> & {
  readonly name: string | undefined
}): boolean | undefined {
  const node = `noiommu-${group}`
  if (offered?.includes(node) || nodes?.includes(node)) return true
  if (offered !== undefined) return false
  return members.length === 0 ? undefined : isNoIommuGroup(name, members)
}

async function memberFacts(
  kernel: Kernel,
  group: number,
  name: string,
): Promise<GroupFacts['members'][number]> {
  const device = await memberDevice(kernel, group, name)
  if (device === undefined) {
    return { name, bus: 'other', driver: undefined, isVfio: false, blocks: false }
  }
  const { bus, driver } = device
  const blocks = blockersOf([device]).length > 0
  return { name, bus, driver, isVfio: isVfioDriver(device), blocks }
}

/** sysfs-kernel-iommu_groups: a line for each, as `0x... 0x... direct`. */
function parseReserved(text: string): HostReservedRegion[] {
  const lines = text.matchAll(/^(0x[0-9a-f]+) (0x[0-9a-f]+) (\S+)$/gm)
  return [...lines].map(([, start = '', last = '', kind = '']) => ({
    start: iova(BigInt(start)),
    last: iova(BigInt(last)),
    kind,
  }))
}

/** `6.12.117-1-amd64` */
function parseRelease(text: string): readonly [number, number] | undefined {
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(text) ?? []
  return major === undefined || minor === undefined ? undefined : [Number(major), Number(minor)]
}
