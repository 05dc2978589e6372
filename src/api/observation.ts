/** The standard services that tell about the others: health and reflection. */
import type { Server } from '@grpc/grpc-js'
import { fromJSON, type PackageDefinition } from '@grpc/proto-loader'
import { ReflectionService } from '@grpc/reflection'
import { HealthImplementation } from 'grpc-health-check'
import { packageDefinition } from '../wire/protos.ts'

const HEALTH_METHOD = {
  requestType: 'HealthCheckRequest',
  responseType: 'HealthCheckResponse',
  comment: '',
}

/**
 * grpc.health.v1, without the method List: proto-loader gives the entries of its map a name that
 * clients in Go refuse, and with it the whole service.
 */
const healthDefinition = fromJSON({
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

/** Reflection answers for what it is given only, so health has to be among it. */
const everything: PackageDefinition = { ...packageDefinition, ...healthDefinition }

const vfiodServices = Object.keys(packageDefinition).filter((name) =>
  /^vfiod\.v1\.\w+Service$/.test(name),
)

/** The name of the daemon as a whole, in the health protocol. */
const OVERALL = ''

export class Observation {
  readonly #health = new HealthImplementation()

  constructor(server: Server) {
    this.#set('SERVING')
    this.#health.addToServer(server)
    new ReflectionService(everything).addToServer(server)
  }

  /** The daemon takes no new calls. */
  notServing(): void {
    this.#set('NOT_SERVING')
  }

  #set(status: 'SERVING' | 'NOT_SERVING'): void {
    for (const name of [OVERALL, ...vfiodServices]) this.#health.setStatus(name, status)
  }
}
