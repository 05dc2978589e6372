/**
 * What the host uses a PCI device for: mounted file systems, swap, RAID, volumes, network interfaces,
 * consoles, and processes that have a node of it open. Facts about the whole host go in, and the uses of
 * one device come out: what is known to be in use, and what could not be looked at.
 */

import type { Blocker } from '../base/error.ts'

export type HostUseKind =
  | 'mount'
  | 'swap'
  | 'holder'
  | 'network'
  | 'console'
  | 'process'
  /** It could not be found out whether the host uses it. */
  | 'not-seen'

export interface HostUse {
  readonly kind: HostUseKind
  /** The part of the device that is in use: `nvme0n1p2`, `eth0`; the PCI address where none is named. */
  readonly part: string
  /** `nvme0n1p2 is mounted at /` */
  readonly found: string
  /** `unmount it` */
  readonly fix: string
}

/** Why something could not be looked at: `/proc/1/mountinfo: EACCES`. */
export interface Unseen {
  readonly unseen: string
}

/** A part of the host that sysfs places below PCI functions; every one above it is named. */
interface Part {
  readonly name: string
  /** PCI addresses. */
  readonly below: readonly string[]
}

/** A disk, a partition, or a device that stands on such: md0, dm-0, loop0. */
export interface BlockDevice extends Part {
  /** `259:1` */
  readonly number: string
  /** The name that its maker gave it: `vg-root` of dm-0. */
  readonly label: string | undefined
  /** The ZFS pool that it belongs to, as its label says: the pool itself may be in use or not. */
  readonly pool: string | undefined
  /** The block devices that stand on it. */
  readonly holders: readonly string[]
}

export interface NetworkInterface extends Part {
  readonly isUp: boolean
  /** The bond, bridge or team that it is a member of. */
  readonly master: string | undefined
  /** Interfaces that stand on it: `eth0.100`. */
  readonly uppers: readonly string[]
}

/** A file system that a machine monitor shares, by virtio. */
export interface SharedFolder extends Part {
  readonly type: '9p' | 'virtiofs'
  /** Undefined where the kernel does not say it. */
  readonly tag: string | undefined
}

/** A device that the host shows something on, or reads from: fb0, card0, ttyS4. */
export interface ConsoleDevice extends Part {
  /** Whether the host's console is on it. */
  readonly isConsole: boolean
  /** `/dev/dri/card0` */
  readonly node: string
}

export interface Mount {
  /** `259:1`; that of no device for file systems on several. */
  readonly number: string
  readonly type: string
  /** `/dev/nvme0n1p2`, or the tag of a shared folder. */
  readonly source: string
  readonly point: string
}

/** The addresses and routes of each interface, by its name. */
export interface Networks {
  readonly addresses: ReadonlyMap<string, readonly string[]>
  /** `default` and `10.0.0.0/8`. */
  readonly routes: ReadonlyMap<string, readonly string[]>
}

export interface OpenNode {
  /** `pid 812 (Xorg)` */
  readonly holder: string
  readonly path: string
}

export interface HostFacts {
  readonly blocks: readonly BlockDevice[] | Unseen
  readonly interfaces: readonly NetworkInterface[] | Unseen
  readonly shares: readonly SharedFolder[]
  readonly consoles: readonly ConsoleDevice[]
  /** The function whose picture the firmware set up, where the host's console is on that. */
  readonly bootConsole: string | undefined
  /** Functions that have an interface in a network namespace which was not looked at. */
  readonly hidden: readonly string[]
  readonly mounts: readonly Mount[] | Unseen
  /** ZFS pools that the host has imported. */
  readonly pools: readonly string[]
  /** Of block devices: `/dev/sda3`. */
  readonly swaps: readonly string[] | Unseen
  readonly networks: Networks | Unseen
  readonly openNodes: readonly OpenNode[]
}

const isUnseen = <T extends object>(fact: T | Unseen): fact is Unseen => 'unseen' in fact
const seen = <T>(fact: readonly T[] | Unseen): readonly T[] => (isUnseen(fact) ? [] : fact)

/** How a device of /sys/class/block is called in /dev. */
export const nodeOf = (name: string): string => `/dev/${name.replaceAll('!', '/')}`

/** Everything that the host uses the function for, each use once. */
export function usesOf(facts: HostFacts, address: string): HostUse[] {
  const isBelow = ({ below }: Part): boolean => below.includes(address)
  const blocks = seen(facts.blocks).filter(isBelow)
  const interfaces = seen(facts.interfaces).filter(isBelow)
  const shares = facts.shares.filter(isBelow)
  const consoles = facts.consoles.filter(isBelow)
  return [
    ...blocks.flatMap((block) => blockUses(facts, block)),
    ...shares.flatMap((share) => shareUses(facts, share)),
    ...interfaces.flatMap((each) => interfaceUses(facts, each)),
    ...(facts.hidden.includes(address) ? [hiddenInterface(address)] : []),
    ...(facts.bootConsole === address && !consoles.some(({ isConsole }) => isConsole)
      ? [consoleUse(address)]
      : []),
    ...consoles.flatMap((each) => consoleUses(facts, each)),
    ...notSeen(facts, address, {
      hasDisk: blocks.length + shares.length > 0,
      hasInterface: interfaces.some(({ isUp }) => isUp),
    }),
  ]
}

/** For the refusal of a bind; each may be forced. */
export const useBlockers = (address: string, uses: readonly HostUse[]): Blocker[] =>
  uses.map(({ found, fix }) => ({
    subject: address,
    found: `used by the host: ${found}`,
    fix: `${fix}, or force the bind`,
  }))

interface Standing {
  readonly block: BlockDevice
  /** What is between the disk and it, from below. */
  readonly through: readonly BlockDevice[]
}

/** The block device, and everything that stands on it, each once. */
function standingOn(facts: HostFacts, disk: BlockDevice): Standing[] {
  const all = new Map(seen(facts.blocks).map((block) => [block.name, block]))
  const found: Standing[] = [{ block: disk, through: [] }]
  const known = new Set([disk.name])
  for (const { block, through } of found)
    for (const name of block.holders) {
      const holder = all.get(name)
      if (holder === undefined || known.has(name)) continue
      known.add(name)
      found.push({ block: holder, through: [...through, holder] })
    }
  return found
}

const titleOf = ({ name, label }: BlockDevice): string =>
  label === undefined ? name : `${name} (${label})`

function blockUses(facts: HostFacts, disk: BlockDevice): HostUse[] {
  const part = disk.name
  const standing = standingOn(facts, disk)
  const uses = standing.flatMap(({ block, through }) => {
    const carries = through.map(titleOf).join(', under ')
    const subject = carries === '' ? part : `${part} is under ${carries}, which`
    return [
      ...mountUses(facts, block, { part, subject }),
      ...poolUses(facts, block, { part, subject }),
      ...swapUses(facts, block, { part, subject }),
    ]
  })
  const [first] = standing.slice(1)
  if (uses.length === 0 && first !== undefined) {
    const holder = titleOf(first.block)
    uses.push({
      kind: 'holder',
      part,
      found: `${part} is under ${holder}`,
      fix: `deactivate ${holder}`,
    })
  }
  return [...uses, ...openUses(facts, part, nodeOf(part))]
}

interface Named {
  readonly part: string
  /** What the sentence is about: `sda2 is under dm-0 (vg-root), which`. */
  readonly subject: string
}

const isOn = ({ name, number, label }: BlockDevice, mount: Mount): boolean =>
  mount.number === number ||
  mount.source
    .split(':')
    .some(
      (source) =>
        source === nodeOf(name) || (label !== undefined && source === `/dev/mapper/${label}`),
    )

/** The shortest first: `/ and 3 more places`. */
const placesText = (points: readonly string[]): string => {
  const [first = '', ...others] = [...new Set(points)].sort(
    (a, b) => a.length - b.length || (a < b ? -1 : 1),
  )
  return others.length === 0
    ? first
    : `${first} and ${others.length} more ${others.length === 1 ? 'place' : 'places'}`
}

const mountedUse = (
  points: readonly string[],
  { part, subject }: Named,
  fix = 'unmount it',
): HostUse[] =>
  points.length === 0
    ? []
    : [
        {
          kind: 'mount',
          part,
          found: `${subject} is mounted at ${placesText(points)}`,
          fix,
        },
      ]

const mountUses = (facts: HostFacts, block: BlockDevice, named: Named): HostUse[] =>
  mountedUse(
    seen(facts.mounts)
      .filter((mount) => isOn(block, mount))
      .map(({ point }) => point),
    named,
  )

/** The mounts of a pool have its name before the first slash; one with volumes alone has none. */
const poolUses = (
  { mounts, pools }: HostFacts,
  { pool }: BlockDevice,
  { part, subject }: Named,
): HostUse[] => {
  if (pool === undefined) return []
  const points = seen(mounts)
    .filter(({ type, source }) => type === 'zfs' && source.split('/')[0] === pool)
    .map(({ point }) => point)
  const isIn = `${subject} is in the ZFS pool ${pool}, which`
  if (points.length > 0) return mountedUse(points, { part, subject: isIn }, `export ${pool}`)
  if (!pools.includes(pool)) return []
  return [{ kind: 'holder', part, found: `${isIn} is imported`, fix: `export ${pool}` }]
}

const swapUses = (
  facts: HostFacts,
  { name, label }: BlockDevice,
  { part, subject }: Named,
): HostUse[] =>
  seen(facts.swaps).some(
    (path) => path === nodeOf(name) || (label !== undefined && path === `/dev/mapper/${label}`),
  )
    ? [{ kind: 'swap', part, found: `${subject} is swap`, fix: `take it off with swapoff` }]
    : []

/** Without a tag every mount of the type may be the one. */
const shareUses = (facts: HostFacts, { name, type, tag }: SharedFolder): HostUse[] =>
  mountedUse(
    seen(facts.mounts)
      .filter((mount) => mount.type === type && (tag === undefined || mount.source === tag))
      .map(({ point }) => point),
    { part: name, subject: `the shared folder "${tag ?? name}"` },
  )

function interfaceUses(facts: HostFacts, each: NetworkInterface): HostUse[] {
  const { name: part, isUp, master, uppers } = each
  const use = (found: string, fix: string): HostUse => ({ kind: 'network', part, found, fix })
  const uses: HostUse[] = []
  if (master !== undefined)
    uses.push(use(`${part} is a member of ${master}`, `take it out of ${master}`))
  for (const upper of uppers.filter((name) => name !== master))
    uses.push(use(`${part} is under ${upper}`, `delete ${upper}`))
  if (!isUp || isUnseen(facts.networks)) return uses
  const addresses = facts.networks.addresses.get(part) ?? []
  const routes = facts.networks.routes.get(part) ?? []
  const has = [
    ...(addresses.length === 0
      ? []
      : [`the ${addresses.length === 1 ? 'address' : 'addresses'} ${addresses.join(', ')}`]),
    ...(routes.includes('default') ? ['the default route'] : []),
    // The routes to the own networks come with the addresses.
    ...(addresses.length === 0
      ? routes.filter((route) => route !== 'default').map((route) => `the route to ${route}`)
      : []),
  ]
  if (has.length > 0)
    uses.push(use(`${part} is up and has ${has.join(' and ')}`, 'move them, or set it down'))
  return uses
}

const hiddenInterface = (address: string): HostUse => ({
  kind: 'network',
  part: address,
  found: 'it has a network interface in another network namespace, perhaps of a container',
  fix: 'move the interface back',
})

const consoleUse = (part: string): HostUse => ({
  kind: 'console',
  part,
  found: `the console of the host is on ${part}`,
  fix: 'move the console elsewhere',
})

const consoleUses = (facts: HostFacts, { name, isConsole, node }: ConsoleDevice): HostUse[] => [
  ...(isConsole ? [consoleUse(name)] : []),
  ...openUses(facts, name, node),
]

const openUses = (facts: HostFacts, part: string, node: string): HostUse[] => {
  const holders = facts.openNodes.filter(({ path }) => path === node).map(({ holder }) => holder)
  return [...new Set(holders)].map((holder) => ({
    kind: 'process',
    part,
    found: `${holder} has ${node} open`,
    fix: 'close it there',
  }))
}

/** What the device has, and what could not be found out about that. */
function notSeen(
  { blocks, interfaces, mounts, swaps, networks }: HostFacts,
  address: string,
  { hasDisk, hasInterface }: { readonly hasDisk: boolean; readonly hasInterface: boolean },
): HostUse[] {
  const use = (question: string, { unseen }: Unseen): HostUse => ({
    kind: 'not-seen',
    part: address,
    found: `it cannot be seen whether ${question} (${unseen})`,
    fix: 'let the daemon see it (CAP_SYS_PTRACE), make sure of it',
  })
  return [
    ...(isUnseen(blocks) ? [use('it has disks', blocks)] : []),
    ...(isUnseen(interfaces) ? [use('it has network interfaces', interfaces)] : []),
    ...(hasDisk && isUnseen(mounts) ? [use('a disk of it is mounted', mounts)] : []),
    ...(hasDisk && isUnseen(swaps) ? [use('a disk of it is swap', swaps)] : []),
    ...(hasInterface && isUnseen(networks)
      ? [use('an interface of it has addresses or routes', networks)]
      : []),
  ]
}
