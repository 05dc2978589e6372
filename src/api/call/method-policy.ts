/**
 * Which role each call needs, and whether it changes anything: what does goes into the audit. The
 * table is total by its type: a new RPC does not compile without a row.
 */
import { VfiodError } from '../../base/error.ts'
import { LIMITS } from '../../base/limits.ts'
import { type Grant, hasRole, type Role } from '../../rules/policy.ts'
import { methodsOf, type ServiceName, type Services } from '../../wire/protos.ts'

export interface Access {
  readonly role: Role
  /** Whether it changes something, so that the log keeps who did it to what. */
  readonly isAudited: boolean
  /** Bytes that one message of it may have. */
  readonly maxBytes: number
}

const small = (role: Role, isAudited: boolean): Access => ({
  role,
  isAudited,
  maxBytes: LIMITS.requestBytes,
})

/** Tells a caller about itself; it must also work for a caller that was granted nothing. */
const ANYBODY: Access = small('none', false)
/** Looks, and changes nothing. */
const LOOK: Access = small('observe', false)
/** Looks at what the caller owns. */
const LOOK_AT_OWN: Access = small('operate', false)
/** Changes what the caller owns. */
const OPERATE: Access = small('operate', true)
/** The same, with a batch or with bytes for a device. */
const OPERATE_LARGE: Access = { ...OPERATE, maxBytes: LIMITS.messageBytes }
const ADMIN: Access = small('admin', true)
const ADMIN_LOOK: Access = small('admin', false)

/** Generated services have index signatures besides their methods; only the methods count. */
type MethodsOf<Service> = Extract<
  { [Name in keyof Service]: string extends Name ? never : Name }[keyof Service],
  string
>

export const ACCESS: {
  readonly [Name in ServiceName]: Readonly<Record<MethodsOf<Services[Name]>, Access>>
} = {
  inventory: {
    ListGroups: LOOK,
    GetGroup: LOOK,
    ListDevices: LOOK,
    GetDevice: LOOK,
    BindDevices: ADMIN,
    UnbindDevices: ADMIN,
    WatchGroups: LOOK,
  },
  memory: {
    RegisterMemory: OPERATE,
    AllocateMemory: OPERATE,
    ExportMemory: OPERATE,
    ListMemory: LOOK_AT_OWN,
    ReleaseMemory: OPERATE,
  },
  addressSpace: {
    CreateSpace: OPERATE,
    GetSpace: LOOK,
    ListSpaces: LOOK,
    DestroySpace: OPERATE,
    AddGroup: OPERATE,
    RemoveGroup: OPERATE,
    Map: OPERATE_LARGE,
    Unmap: OPERATE_LARGE,
    InvalidateVaddr: OPERATE,
    UpdateVaddr: OPERATE_LARGE,
    ListMappings: LOOK_AT_OWN,
  },
  device: {
    OpenDevice: OPERATE,
    CloseDevice: OPERATE,
    GetDeviceInfo: LOOK_AT_OWN,
    // Reading a register may have effects in the device; it changes nothing of vfiod's.
    ReadRegion: LOOK_AT_OWN,
    WriteRegion: OPERATE_LARGE,
    ResetDevice: OPERATE,
    WatchIrqs: OPERATE,
    SetIrqEventfds: OPERATE,
    DisableIrqs: OPERATE,
    SetIrqMask: OPERATE,
    TriggerIrq: OPERATE,
    ExportFd: OPERATE,
  },
  dirty: {
    StartTracking: OPERATE_LARGE,
    StopTracking: OPERATE,
    GetTracking: LOOK_AT_OWN,
    // It clears what it reads.
    ReadDirty: OPERATE,
    ReadAndUnmap: OPERATE_LARGE,
    DemotePages: OPERATE,
    PromotePages: OPERATE,
  },
  migration: {
    GetMigrationCapabilities: LOOK_AT_OWN,
    GetMigrationState: LOOK_AT_OWN,
    SetMigrationState: OPERATE,
    EstimateSize: LOOK_AT_OWN,
    GetPrecopyInfo: LOOK_AT_OWN,
    ReadSession: OPERATE,
    WriteSession: OPERATE_LARGE,
  },
  ownership: {
    WhoAmI: ANYBODY,
    HandOver: OPERATE,
    Adopt: OPERATE,
    KeepAlive: LOOK,
    WatchEvents: LOOK,
  },
  admin: {
    ListClients: ADMIN_LOOK,
    ReleaseClient: ADMIN,
    GetUsage: ADMIN_LOOK,
    GetConfiguration: ADMIN_LOOK,
    Drain: ADMIN,
  },
  simulator: {
    InjectFault: ADMIN,
    ListFaults: ADMIN_LOOK,
    ClearFaults: ADMIN,
    Step: ADMIN,
  },
}

/** The row of a method. */
export function accessOf(service: ServiceName, method: string): Access {
  const access = (ACCESS[service] as Readonly<Record<string, Access>>)[method]
  if (access === undefined) throw new Error(`${service} ${method} has no role`)
  return access
}

/** The row of every method, by the path that a call names it by: `/vfiod.v1.AdminService/Drain`. */
export const ACCESS_BY_PATH: ReadonlyMap<string, Access> = new Map(
  (Object.keys(ACCESS) as ServiceName[]).flatMap((service) =>
    methodsOf(service).map(([name, { path }]) => [path, accessOf(service, name)]),
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

/** Fields that name what a call is about; nothing else of a request is logged, tokens least of all. */
const OBJECT_FIELDS = [
  'spaceId',
  'memoryId',
  'groupId',
  'name',
  'devices',
  'state',
  'clientId',
] as const

/** What a request is about: `{ spaceId: 'vm-7', groupId: 26 }`. */
export function objectOf(request: object): Readonly<Record<string, unknown>> {
  const fields = request as Readonly<Record<string, unknown>>
  return Object.fromEntries(
    OBJECT_FIELDS.flatMap((field) => (fields[field] ? [[field, fields[field]]] : [])),
  )
}
