/**
 * The policy: identities to roles, devices and quotas. The first rule that matches decides; an identity
 * that matches none has no role, so nothing is allowed by omission.
 */

/** Each role includes the roles before it. */
export const ROLES = ['none', 'observe', 'operate', 'admin'] as const
export type Role = (typeof ROLES)[number]

/** What is counted for each identity, and for all together. */
export const QUOTAS = [
  /** Bytes that mappings pin; the same page mapped twice counts twice, as the kernel counts it. */
  'locked_bytes',
  'mappings',
  'address_spaces',
  'memories',
  /** Bytes of memory objects, registered or allocated, used or not: each takes as many of the 2^47
   * addresses that the daemon has, and as many again while a remap is under way. */
  'memory_bytes',
  /** Bytes of memory that the daemon allocated. */
  'allocated_bytes',
  'devices',
  /** Data transfer sessions. */
  'sessions',
  /** Streams of interrupts, of device state and of dirty pages. */
  'streams',
  /** Watches of the inventory and of events. */
  'watches',
  /** File descriptors that the daemon holds for what the above are: one of an address space, a memory
   * object and a session, three of an open device, one of each vector that a stream reports. */
  'fds',
  /** Open connections, for gRPC and for fds, idle ones too. */
  'connections',
  /** Processes that have connected and still run, whether or not they are connected. */
  'processes',
  'calls_per_second',
] as const
export type QuotaName = (typeof QUOTAS)[number]
/** What the policy says; where it says nothing the default holds. */
export type Quota = Readonly<Partial<Record<QuotaName, bigint>>>

/** A limit for each: nothing is without one. */
export type QuotaLimits = Readonly<Record<QuotaName, bigint>>

/** What holds where the policy does not say. */
export interface DefaultQuotas {
  readonly identity: QuotaLimits
  /** Of the role admin. */
  readonly admin: QuotaLimits
  /** For all identities together. */
  readonly total: QuotaLimits
}

/**
 * The defaults on a host with so much memory. All together may use so much that the daemon and the host
 * go on: a mapping takes a few hundred bytes of the daemon; fds are three quarters of the 65,536 that the
 * unit allows, of which a connection takes one and a process three besides; pages that devices pin and
 * memory that the daemon allocates leave an eighth of the host. An identity may use a quarter, so that it
 * locks out no other, and of memory a half: few large guests are what most hosts run.
 */
export function defaultQuotas(memoryBytes: bigint): DefaultQuotas {
  const ofMemory = memoryBytes - memoryBytes / 8n
  const total: QuotaLimits = {
    locked_bytes: ofMemory,
    mappings: 1n << 22n,
    address_spaces: 4096n,
    memories: 16_384n,
    memory_bytes: 1n << 46n,
    allocated_bytes: ofMemory,
    devices: 4096n,
    sessions: 1024n,
    streams: 4096n,
    watches: 256n,
    fds: 49_152n,
    connections: 1024n,
    processes: 1024n,
    calls_per_second: 65_536n,
  }
  const quarters = Object.fromEntries(
    Object.entries(total).map(([name, max]) => [name, max / 4n]),
  ) as QuotaLimits
  const half = memoryBytes / 2n
  const identity = {
    ...quarters,
    locked_bytes: half,
    allocated_bytes: half,
    watches: 16n,
    processes: 64n,
  }
  const { locked_bytes, allocated_bytes } = total
  return { identity, admin: { ...identity, locked_bytes, allocated_bytes }, total }
}

/** The credentials of a process, from the kernel, or the name in a verified certificate. */
export type Identity =
  | { readonly kind: 'local'; readonly uid: number; readonly gids: readonly number[] }
  | { readonly kind: 'remote'; readonly name: string }

export interface Rule {
  /** Every named property must match; a rule that names none matches every client of its kind. */
  readonly who:
    | { readonly kind: 'local'; readonly uid?: number; readonly gid?: number }
    | { readonly kind: 'remote'; readonly name?: string }
  readonly role: Role
  /** Which devices: `0000:00:04.0`, `1234:11e8`, `mtty-2`, or `*`. */
  readonly devices: readonly string[]
  /** Whether it may add groups to its address spaces, or only use those an admin added. */
  readonly addsGroups: boolean
  readonly quota: Quota
  /** Whether it may open a device that could not be reset since another client used it; true where it is not said. */
  readonly opensUnreset?: boolean
  /** The account that its identities share one quota of; each has its own where it is not said. */
  readonly account?: string
  /**
   * Milliseconds that it has to close a device that the host wants back, before the daemon does; 0 for
   * ever, DEFAULT_RELEASE_ASKED_MS where it is not said.
   */
  readonly releaseAskedAfterMs?: number
}

export interface Policy {
  readonly rules: readonly Rule[]
  /** For all identities together. */
  readonly total: Quota
}

/** What one identity is granted. */
export type Grant = Omit<Rule, 'who'>

/**
 * The call that takes a device from its driver cannot be called off, and holds up others on its bus; so
 * it ends, after more time than a guest needs to let go.
 */
export const DEFAULT_RELEASE_ASKED_MS = 60_000

/** Connections of an identity without a role: for a probe of its health and a look at who it is. */
const CONNECTIONS_WITHOUT_ROLE = 8n

/** What a grant allows of one. */
export function limitOf(
  { role, quota }: Pick<Grant, 'role' | 'quota'>,
  name: QuotaName,
  defaults: DefaultQuotas,
): bigint {
  const said = quota[name]
  if (said !== undefined) return said
  if (role === 'none' && name === 'connections') return CONNECTIONS_WITHOUT_ROLE
  return (role === 'admin' ? defaults.admin : defaults.identity)[name]
}

/** Of what there is for all, a sixteenth is kept for administrators, so that they always get in. */
export const shareOf = (total: bigint, role: Role): bigint =>
  role === 'admin' ? total : total - total / 16n

export const NO_GRANT: Grant = { role: 'none', devices: [], addsGroups: false, quota: {} }

/** A device as rules name it. */
export interface DeviceTraits {
  readonly name: string
  readonly pci: { readonly vendor: number; readonly device: number } | undefined
  readonly mdevType: string | undefined
}

function matches({ who }: Rule, identity: Identity): boolean {
  if (who.kind === 'local' && identity.kind === 'local') {
    const isUid = who.uid === undefined || who.uid === identity.uid
    return isUid && (who.gid === undefined || identity.gids.includes(who.gid))
  }
  if (who.kind === 'remote' && identity.kind === 'remote') {
    return who.name === undefined || who.name === identity.name
  }
  return false
}

/** What an identity is granted: by the first rule that matches, or nothing. */
export const grantOf = (policy: Policy, identity: Identity): Grant =>
  policy.rules.find((rule) => matches(rule, identity)) ?? NO_GRANT

export const hasRole = (grant: Grant, needed: Role): boolean =>
  ROLES.indexOf(grant.role) >= ROLES.indexOf(needed)

const id4 = (id: number): string => id.toString(16).padStart(4, '0')

/** Whether a device is on the allow-list. */
export function allowsDevice(grant: Grant, device: DeviceTraits): boolean {
  const names = ['*', device.name]
  if (device.pci !== undefined) names.push(`${id4(device.pci.vendor)}:${id4(device.pci.device)}`)
  if (device.mdevType !== undefined) names.push(device.mdevType)
  return grant.devices.some((allowed) => names.includes(allowed))
}

/**
 * The policy without a file: root and the user that the daemon runs as are admins, a group may
 * operate, and everybody else has no role. The daemon can do no more than its own user can, so the
 * second admin gains nothing by it.
 */
export function defaultPolicy(options: {
  /** The effective uid of the daemon. */
  readonly ownUid: number
  /** Whose members operate. */
  readonly operatorGid: number | undefined
}): Policy {
  const { ownUid, operatorGid } = options
  const all = { devices: ['*'], addsGroups: true, quota: {} }
  const admins = [...new Set([0, ownUid])].map(
    (uid): Rule => ({ who: { kind: 'local', uid }, role: 'admin', ...all }),
  )
  if (operatorGid === undefined) return { rules: admins, total: {} }
  const group: Rule = { who: { kind: 'local', gid: operatorGid }, role: 'operate', ...all }
  return { rules: [...admins, group], total: {} }
}
