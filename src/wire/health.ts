/** The standard health service, as the daemon serves it and clients ask it. */
import { fromJSON, type MethodDefinition, type PackageDefinition } from '@grpc/proto-loader'

const HEALTH_METHOD = {
  requestType: 'HealthCheckRequest',
  responseType: 'HealthCheckResponse',
  comment: '',
}

/**
 * grpc.health.v1, without the method List: proto-loader gives the entries of its map a name that
 * clients in Go refuse, and with it the whole service.
 */
export const healthDefinition: PackageDefinition = fromJSON({
  nested: {
    'grpc.health.v1': {
      nested: {
        HealthCheckRequest: { fields: { service: { type: 'string', id: 1 } } },
        HealthCheckResponse: {
          fields: { status: { type: 'ServingStatus', id: 1 } },
          nested: {
            ServingStatus: {
              values: { UNKNOWN: 0, SERVING: 1, NOT_SERVING: 2, SERVICE_UNKNOWN: 3 },
            },
          },
        },
        Health: {
          methods: { Check: HEALTH_METHOD, Watch: { ...HEALTH_METHOD, responseStream: true } },
        },
      },
    },
  },
})

type HealthService = { readonly Check: MethodDefinition<object, object> }

/** `Check` of grpc.health.v1: `{ service }`, empty for the daemon as a whole, to `{ status }`. */
export const healthCheck = (healthDefinition['grpc.health.v1.Health'] as HealthService).Check
