/** A connection to the daemon: every service as typed promises. Used by vfioctl, demo and tests. */
import { type ChannelCredentials, Client, credentials } from '@grpc/grpc-js'
import { LIMITS } from '../base/limits.ts'
import type { AddressSpaceServiceClient } from '../proto/vfiod/v1/AddressSpaceService.ts'
import type { AdminServiceClient } from '../proto/vfiod/v1/AdminService.ts'
import type { DeviceServiceClient } from '../proto/vfiod/v1/DeviceService.ts'
import type { DirtyServiceClient } from '../proto/vfiod/v1/DirtyService.ts'
import type { InventoryServiceClient } from '../proto/vfiod/v1/InventoryService.ts'
import type { MemoryServiceClient } from '../proto/vfiod/v1/MemoryService.ts'
import type { MigrationServiceClient } from '../proto/vfiod/v1/MigrationService.ts'
import type { OwnershipServiceClient } from '../proto/vfiod/v1/OwnershipService.ts'
import type { SimulatorServiceClient } from '../proto/vfiod/v1/SimulatorService.ts'
import { methodsOf, type ServiceName } from '../wire/protos.ts'
import {
  type Calls,
  clientStreamCall,
  ENDLESS,
  type Patience,
  serverStreamCall,
  unaryCall,
} from './calls.ts'

/** Where the daemon listens unless its configuration says otherwise. */
export const DEFAULT_SOCKET = '/run/vfiod/vfiod.sock'

/** A reader of device state is up to twice as fast with it as with the 64 KiB of the protocol. */
const FLOW_CONTROL_WINDOW = 4 << 20

/** Time between attempts to connect: a daemon that starts or restarts is there within a second. */
const RECONNECT_MS = { first: 100, longest: 1000 } as const

export interface VfiodClient {
  readonly inventory: Calls<InventoryServiceClient>
  readonly memory: Calls<MemoryServiceClient>
  readonly addressSpace: Calls<AddressSpaceServiceClient>
  readonly device: Calls<DeviceServiceClient>
  readonly dirty: Calls<DirtyServiceClient>
  readonly migration: Calls<MigrationServiceClient>
  readonly ownership: Calls<OwnershipServiceClient>
  readonly admin: Calls<AdminServiceClient>
  /** UNIMPLEMENTED unless the daemon simulates its machine. */
  readonly simulator: Calls<SimulatorServiceClient>
  /** The connection itself, for services that are not vfiod's: health and reflection. */
  readonly channel: Client
  close(): void
}

export interface ConnectOptions {
  /** Path of the daemon's socket. */
  readonly socket?: string
  /** `HOST:PORT` of a daemon on another host, instead of a socket; needs `credentials`. */
  readonly address?: string
  /** The certificates to show and to trust; the daemon takes no connection over TCP without. */
  readonly credentials?: ChannelCredentials
  /** How long calls wait for an answer; as long as it takes if unset. */
  readonly patience?: Patience
}

type Method = ReturnType<typeof methodsOf>[number][1]

const callOf = (channel: Client, method: Method, patience: Patience) => {
  if (method.responseStream) return serverStreamCall(channel, method, patience)
  if (method.requestStream) return clientStreamCall(channel, method)
  return unaryCall(channel, method, patience)
}

/** Connects when the first call is made; each client has its own connection. */
export const connect = (options: ConnectOptions = {}): VfiodClient => {
  const { patience = ENDLESS } = options
  const address = options.address ?? `unix:${options.socket ?? DEFAULT_SOCKET}`
  const channel = new Client(address, options.credentials ?? credentials.createInsecure(), {
    'grpc-node.flow_control_window': FLOW_CONTROL_WINDOW,
    'grpc.max_receive_message_length': LIMITS.messageBytes,
    'grpc.max_send_message_length': LIMITS.messageBytes,
    // Channels share connections by address; the daemon tells clients apart by connection.
    'grpc.use_local_subchannel_pool': 1,
    'grpc.initial_reconnect_backoff_ms': RECONNECT_MS.first,
    'grpc.max_reconnect_backoff_ms': RECONNECT_MS.longest,
    'grpc.enable_channelz': 0,
    'grpc.service_config_disable_resolution': 1,
  })
  const callsOf = <GeneratedClient>(service: ServiceName): Calls<GeneratedClient> =>
    Object.fromEntries(
      methodsOf(service).map(([name, method]) => [
        name.charAt(0).toLowerCase() + name.slice(1),
        callOf(channel, method, patience),
      ]),
    ) as Calls<GeneratedClient>
  return {
    inventory: callsOf('inventory'),
    memory: callsOf('memory'),
    addressSpace: callsOf('addressSpace'),
    device: callsOf('device'),
    dirty: callsOf('dirty'),
    migration: callsOf('migration'),
    ownership: callsOf('ownership'),
    admin: callsOf('admin'),
    simulator: callsOf('simulator'),
    channel,
    close: () => channel.close(),
  }
}
