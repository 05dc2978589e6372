/**
 * Which role each call needs, and whether it changes anything: what does goes into the audit. The
 * table is total by its type: a new RPC does not compile without a row.
 */
import { VfiodError } from '../../base/error.ts'
import { type Grant, hasRole, type Role } from '../../rules/policy.ts'
import { requestBytesOf } from '../../wire/methods.ts'
import { methodsOf, type ServiceName, type Services } from '../../wire/protos.ts'

export interface MethodPolicy {
  readonly role: Role
  /** Whether it changes something, so that the log keeps who did it to what. */
  readonly isAudited: boolean
  /** Whether it looks through everything that the host has, which takes many steps. */
  readonly isWide?: true
  /** Bytes that one message of it may have. */
  readonly maxBytes: number
}

type Row = Omit<MethodPolicy, 'maxBytes'>

const small = (role: Role, isAudited: boolean): Row => ({ role, isAudited })

/** Tells a caller about itself; it must also work for a caller that was granted nothing. */
const ANYBODY: Row = small('none', false)
/** Looks, and changes nothing. */
const READ: Row = small('observe', false)
/** Looks through the whole inventory. */
const READ_ALL: Row = { ...READ, isWide: true }
/** Looks at what the caller owns. */
const READ_OWN: Row = small('operate', false)
/** Changes what the caller owns. */
const OPERATE: Row = small('operate', true)
/** Moves data of what the caller owns, as often as a driver does: no line of the audit for each. */
const DATA: Row = small('operate', false)
const ADMIN: Row = small('admin', true)
const ADMIN_READ: Row = small('admin', false)

/** Generated services have index signatures besides their methods; only the methods count. */
type MethodsOf<Service> = Extract<
  keyof { [Name in keyof Service as string extends Name ? never : Name]: unknown },
  string
>

export const METHOD_POLICIES: {
  readonly [Name in ServiceName]: Readonly<Record<MethodsOf<Services[Name]>, Row>>
} = {
  inventory: {
    ListGroups: READ_ALL,
    GetGroup: READ_ALL,
    ListDevices: READ_ALL,
    GetDevice: READ_ALL,
    BindDevices: ADMIN,
    UnbindDevices: ADMIN,
    SetVirtualFunctions: ADMIN,
    WatchGroups: READ,
  },
  memory: {
    RegisterMemory: OPERATE,
    AllocateMemory: OPERATE,
    ExportMemory: OPERATE,
    ListMemory: READ_OWN,
    ReleaseMemory: OPERATE,
  },
  addressSpace: {
    CreateSpace: OPERATE,
    GetSpace: READ,
    ListSpaces: READ,
    DestroySpace: OPERATE,
    AddGroup: OPERATE,
    RemoveGroup: OPERATE,
    Map: OPERATE,
    Unmap: OPERATE,
    InvalidateVaddr: OPERATE,
    UpdateVaddr: OPERATE,
    ListMappings: READ_OWN,
  },
  device: {
    OpenDevice: OPERATE,
    CloseDevice: OPERATE,
    GetDeviceInfo: READ_OWN,
    ReadRegion: DATA,
    // Counted, and audited once when the device is closed (register-writes.ts).
    WriteRegion: DATA,
    ResetDevice: OPERATE,
    GetHotReset: READ,
    HotResetDevice: OPERATE,
    WatchIrqs: OPERATE,
    SetIrqEventfds: OPERATE,
    DisableIrqs: OPERATE,
    SetIrqMask: OPERATE,
    TriggerIrq: OPERATE,
    ExportFd: OPERATE,
  },
  dirty: {
    StartTracking: OPERATE,
    StopTracking: OPERATE,
    GetTracking: READ_OWN,
    ReadDirty: DATA,
    ReadAndUnmap: OPERATE,
    DemotePages: OPERATE,
    PromotePages: OPERATE,
  },
  migration: {
    GetMigrationCapabilities: READ_OWN,
    GetMigrationState: READ_OWN,
    SetMigrationState: OPERATE,
    EstimateSize: READ_OWN,
    GetPrecopyInfo: READ_OWN,
    ReadSession: OPERATE,
    WriteSession: OPERATE,
  },
  ownership: {
    WhoAmI: ANYBODY,
    HandOver: OPERATE,
    Adopt: OPERATE,
    KeepAlive: READ,
    WatchEvents: READ,
  },
  admin: {
    ListClients: ADMIN_READ,
    ReleaseClient: ADMIN,
    GetUsage: ADMIN_READ,
    GetConfiguration: ADMIN_READ,
    Drain: ADMIN,
  },
  simulator: {
    InjectFault: ADMIN,
    ListFaults: ADMIN_READ,
    ClearFaults: ADMIN,
    Step: ADMIN,
  },
}

/** The row of a method. */
export function methodPolicyOf(service: ServiceName, method: string): MethodPolicy {
  const row = (METHOD_POLICIES[service] as Readonly<Record<string, Row>>)[method]
  const path = methodsOf(service).find(([name]) => name === method)?.[1].path
  if (row === undefined || path === undefined) throw new Error(`${service} ${method} has no role`)
  return { ...row, maxBytes: requestBytesOf(path) }
}

/** The row of every method, by the path that a call names it by: `/vfiod.v1.AdminService/Drain`. */
export const POLICY_BY_PATH: ReadonlyMap<string, MethodPolicy> = new Map(
  (Object.keys(METHOD_POLICIES) as ServiceName[]).flatMap((service) =>
    methodsOf(service).map(([name, { path }]) => [path, methodPolicyOf(service, name)]),
  ),
)

/** Throw ROLE_NEEDED unless the policy grants the client what the call needs. */
export function requireRole(
  { identity, grant }: { readonly identity: string; readonly grant: Grant },
  needed: Role,
  method: string,
): void {
  if (hasRole(grant, needed)) return
  throw new VfiodError(
    'ROLE_NEEDED',
    `Cannot call ${method}: it needs role ${needed} and the policy grants ${identity} ${grant.role}; ask an administrator`,
    { resource: { type: 'rpc', name: method } },
  )
}
