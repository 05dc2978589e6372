/**
 * From bytes to requests. grpc-js decodes before a handler runs and answers by itself what it cannot
 * decode; here such bytes become a message that the call refuses in its turn, with a reason.
 *
 * Messages are small in fields as well as in bytes: two bytes make a field, and a field costs an
 * object, so fields are counted before any object is made.
 */
import type { ServiceDefinition } from '@grpc/grpc-js'
import { badArgument, VfiodError } from '../../base/error.ts'
import { LIMITS } from '../../base/limits.ts'
import { countFields } from '../../wire/field-count.ts'
import { methodsOf, type ServiceName, shapeOf } from '../../wire/protos.ts'

/** A request that was refused before it was made. */
class Refused {
  readonly error: VfiodError

  constructor(error: VfiodError) {
    this.error = error
  }
}

/** The request; throws where its bytes were refused. */
export const decoded = (message: object): object => {
  if (message instanceof Refused) throw message.error
  return message
}

/** Every item has a few fields; the request itself has a few more. */
const FIELDS_MAX = LIMITS.batchItems * LIMITS.itemFields + LIMITS.itemFields

const tooMany = (what: string, max: number, needed: number): VfiodError =>
  new VfiodError(
    'BATCH_TOO_LARGE',
    `Cannot take more than ${max} ${what} in one call; split the batch`,
    {
      field: 'items',
      quota: {
        limit: `${what} of one batch`,
        max: BigInt(max),
        current: 0n,
        // At least so many: the rest was not counted.
        needed: BigInt(needed),
      },
    },
  )

const notA = (type: string, why: string): VfiodError =>
  badArgument(type, `Cannot decode the request: ${why}; send a vfiod.v1.${type}`)

/** The definition of a service for the server: its requests are counted, then decoded. */
export const deferring = (service: ServiceName): ServiceDefinition =>
  Object.fromEntries(
    methodsOf(service).map(([name, definition]) => {
      const { requestType, requestDeserialize } = definition
      const { name: type } = requestType.type as { readonly name: string }
      const shape = shapeOf(requestType)
      const deserialize = (bytes: Buffer): object => {
        const { items, fields, isWhole } = countFields(bytes, shape, FIELDS_MAX)
        if (items > LIMITS.batchItems)
          return new Refused(tooMany('items', LIMITS.batchItems, items))
        if (fields > FIELDS_MAX) return new Refused(tooMany('fields', FIELDS_MAX, fields))
        try {
          const request = requestDeserialize(bytes)
          return isWhole ? request : new Refused(notA(type, 'it ends in the middle of a field'))
        } catch (error) {
          return new Refused(notA(type, error instanceof Error ? error.message : String(error)))
        }
      }
      return [name, { ...definition, requestDeserialize: deserialize }]
    }),
  )
