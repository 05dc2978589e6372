/**
 * The protos, loaded once: what server, client, reflection and tests all speak. 64-bit numbers are
 * decimal strings on this level and enums are their names, as the generated types in src/proto say.
 */
import { readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { MessageTypeDefinition, MethodDefinition, PackageDefinition } from '@grpc/proto-loader'
import { loadSync } from '@grpc/proto-loader'
import type { AddressSpaceServiceDefinition } from '../proto/vfiod/v1/AddressSpaceService.ts'
import type { AdminServiceDefinition } from '../proto/vfiod/v1/AdminService.ts'
import type { DeviceServiceDefinition } from '../proto/vfiod/v1/DeviceService.ts'
import type { DirtyServiceDefinition } from '../proto/vfiod/v1/DirtyService.ts'
import type { InventoryServiceDefinition } from '../proto/vfiod/v1/InventoryService.ts'
import type { MemoryServiceDefinition } from '../proto/vfiod/v1/MemoryService.ts'
import type { MigrationServiceDefinition } from '../proto/vfiod/v1/MigrationService.ts'
import type { OwnershipServiceDefinition } from '../proto/vfiod/v1/OwnershipService.ts'
import type { ReadSessionResponse } from '../proto/vfiod/v1/ReadSessionResponse.ts'
import type { SimulatorServiceDefinition } from '../proto/vfiod/v1/SimulatorService.ts'
import type { WriteSessionRequest } from '../proto/vfiod/v1/WriteSessionRequest.ts'
import { readSessionSerializer, writeSessionSerializer } from './bulk.ts'
import type { Shape } from './field-count.ts'

/** Two levels above this file, in src and in dist alike. */
const PROTO_DIR = fileURLToPath(new URL('../../proto', import.meta.url))

const vfiodFiles = readdirSync(`${PROTO_DIR}/vfiod/v1`).map((file) => `vfiod/v1/${file}`)

export const packageDefinition: PackageDefinition = loadSync(
  [...vfiodFiles, 'google/rpc/status.proto', 'google/rpc/error_details.proto'],
  { longs: String, enums: String, defaults: true, oneofs: true, includeDirs: [PROTO_DIR] },
)

/** Every service of the API, by the name the client and the handlers give it. */
export interface Services {
  readonly inventory: InventoryServiceDefinition
  readonly memory: MemoryServiceDefinition
  readonly addressSpace: AddressSpaceServiceDefinition
  readonly device: DeviceServiceDefinition
  readonly dirty: DirtyServiceDefinition
  readonly migration: MigrationServiceDefinition
  readonly ownership: OwnershipServiceDefinition
  readonly admin: AdminServiceDefinition
  /** Served only where the machine is simulated. */
  readonly simulator: SimulatorServiceDefinition
}

export type ServiceName = keyof Services

const definitionOf = <Definition>(name: string): Definition =>
  packageDefinition[name] as unknown as Definition

export const services: Services = {
  inventory: definitionOf('vfiod.v1.InventoryService'),
  memory: definitionOf('vfiod.v1.MemoryService'),
  addressSpace: definitionOf('vfiod.v1.AddressSpaceService'),
  device: definitionOf('vfiod.v1.DeviceService'),
  dirty: definitionOf('vfiod.v1.DirtyService'),
  migration: definitionOf('vfiod.v1.MigrationService'),
  ownership: definitionOf('vfiod.v1.OwnershipService'),
  admin: definitionOf('vfiod.v1.AdminService'),
  simulator: definitionOf('vfiod.v1.SimulatorService'),
}

/** A message of google.rpc or vfiod.v1 by its full name, with its serializer. */
export const messageType = <Input, Output>(name: string): MessageTypeDefinition<Input, Output> =>
  definitionOf(name)

/** A field of a message, as the loader describes it. */
interface FieldDescriptor {
  readonly number: number
  readonly type: string
  /** Without the package where it is of the same one. */
  readonly typeName: string
}

/** Which fields of a message are messages. Invariant: no request of the API holds itself. */
export const shapeOf = ({ type }: Pick<MessageTypeDefinition<object, object>, 'type'>): Shape => {
  const { field } = type as { readonly field: readonly FieldDescriptor[] }
  return new Map(
    field.flatMap(({ number, type: kind, typeName }) => {
      if (kind !== 'TYPE_MESSAGE') return []
      const name = typeName.includes('.') ? typeName.replace(/^\./, '') : `vfiod.v1.${typeName}`
      return [[number, shapeOf(packageDefinition[name] as MessageTypeDefinition<object, object>)]]
    }),
  )
}

/** What the loader's definitions have and the generated types leave out. */
export const methodsOf = (
  service: ServiceName,
): readonly (readonly [string, MethodDefinition<object, object>])[] =>
  Object.entries(services[service] as unknown as Record<string, MethodDefinition<object, object>>)

// The two methods that carry device state take a serializer that copies nothing (see bulk.ts).
const { ReadSession, WriteSession } = services.migration
ReadSession.responseSerialize = readSessionSerializer(
  ReadSession.responseSerialize as (message: ReadSessionResponse) => Buffer,
)
WriteSession.requestSerialize = writeSessionSerializer(
  WriteSession.requestSerialize as (message: WriteSessionRequest) => Buffer,
)
