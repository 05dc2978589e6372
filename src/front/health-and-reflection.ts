/** The standard services that tell about the others: health and reflection. */
import type { Server } from '@grpc/grpc-js'
import type { PackageDefinition } from '@grpc/proto-loader'
import { ReflectionService } from '@grpc/reflection'
import { HealthImplementation } from 'grpc-health-check'
import { healthDefinition } from '../wire/health.ts'
import { packageDefinition } from '../wire/protos.ts'

/** Reflection answers for what it is given only, so health has to be among it. */
const everything: PackageDefinition = { ...packageDefinition, ...healthDefinition }

const vfiodServices = Object.keys(packageDefinition).filter((name) =>
  /^vfiod\.v1\.\w+Service$/.test(name),
)

/** The name of the daemon as a whole, in the health protocol. */
const OVERALL = ''

export class HealthAndReflection {
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
