/**
 * From bytes to requests, and back. Messages are small in fields as well as in bytes: two bytes make a
 * field, and a field costs an object, so fields are counted before any object is made.
 */
import type { MethodDefinition } from '@grpc/proto-loader'
import { badArgument, VfiodError } from '../../base/error.ts'
import { LIMITS } from '../../base/limits.ts'
import { countFields } from '../../wire/field-count.ts'
import { shapeOf } from '../../wire/protos.ts'

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

/** Decodes the requests of a method; throws where there is too much in one, or where it is not one. */
export const decoderOf = ({
  requestType,
  requestDeserialize,
}: MethodDefinition<object, object>): ((bytes: Buffer) => object) => {
  const { name: type } = requestType.type as { readonly name: string }
  const shape = shapeOf(requestType)
  return (bytes) => {
    const { items, fields, isWhole } = countFields(bytes, shape, FIELDS_MAX)
    if (items > LIMITS.batchItems) throw tooMany('items', LIMITS.batchItems, items)
    if (fields > FIELDS_MAX) throw tooMany('fields', FIELDS_MAX, fields)
    let request: object
    try {
      request = requestDeserialize(bytes)
    } catch (error) {
      throw notA(type, error instanceof Error ? error.message : String(error))
    }
    if (!isWhole) throw notA(type, 'it ends in the middle of a field')
    return request
  }
}

/** Encodes the responses of a method; throws where one is larger than clients take. */
export const encoderOf =
  ({ responseSerialize }: MethodDefinition<object, object>): ((response: object) => Buffer) =>
  (response) => {
    const bytes = responseSerialize(response)
    if (bytes.length <= LIMITS.messageBytes) return bytes
    const [max, needed] = [BigInt(LIMITS.messageBytes), BigInt(bytes.length)]
    throw new VfiodError(
      'LIMIT_REACHED',
      `Cannot send the answer: it needs ${needed} bytes and a message may have ${max}; ask for less`,
      { quota: { limit: 'bytes of one message', max, current: 0n, needed } },
    )
  }
