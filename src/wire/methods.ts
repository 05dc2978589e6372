/** Every method of the API in one order, so that a number names one: of the daemon and its fronts. */
import { LIMITS } from '../base/limits.ts'
import { methodsOf, type ServiceName, services } from './protos.ts'

export interface ApiMethod {
  /** `/vfiod.v1.MemoryService/ListMemory`. */
  readonly path: string
  readonly isClientStream: boolean
  readonly isServerStream: boolean
}

export const METHODS: readonly ApiMethod[] = (Object.keys(services) as ServiceName[]).flatMap(
  (service) =>
    methodsOf(service).map(([, { path, requestStream, responseStream }]) => ({
      path,
      isClientStream: requestStream,
      isServerStream: responseStream,
    })),
)

/** Requests that carry a batch, or bytes for a device. */
const LARGE: ReadonlySet<string> = new Set([
  '/vfiod.v1.AddressSpaceService/Map',
  '/vfiod.v1.AddressSpaceService/Unmap',
  '/vfiod.v1.AddressSpaceService/UpdateVaddr',
  '/vfiod.v1.DeviceService/WriteRegion',
  '/vfiod.v1.DirtyService/StartTracking',
  '/vfiod.v1.DirtyService/ReadAndUnmap',
  '/vfiod.v1.MigrationService/WriteSession',
])

/** Bytes that one request of the method may have. */
export const requestBytesOf = (path: string): number =>
  LARGE.has(path) ? LIMITS.messageBytes : LIMITS.requestBytes
