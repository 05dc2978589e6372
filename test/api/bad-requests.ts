/**
 * Bad requests, made from the protos: whatever fields a message has, each kind of badness fills them
 * in its way. A new RPC gets them without anybody writing one.
 */
import type { MethodDefinition } from '@grpc/proto-loader'
import { LIMITS } from '../../src/base/limits.ts'
import { packageDefinition } from '../../src/wire/protos.ts'

/** The part of google.protobuf.FieldDescriptorProto that is used here. */
interface Field {
  readonly name: string
  readonly label: string
  readonly type: string
  readonly typeName: string
}

export interface World {
  /** Ids as their owner has them, by the name of the field they go in. */
  readonly ids: Readonly<Record<string, string | number>>
}

/** How numbers and ids are filled in. */
interface Filling {
  readonly id: (field: string) => string | number | undefined
  readonly u64: string
  readonly u32: number
  readonly enum: number
  readonly bool: boolean
  readonly items: number
}

const NO_SUCH = 'no-such-thing'

const fieldsOf = (type: MethodDefinition<object, object>['requestType']): readonly Field[] =>
  (type.type as { readonly field: readonly Field[] }).field

const messageFields = (typeName: string): readonly Field[] => {
  const name = typeName.replace(/^\./, '')
  const found = packageDefinition[name.includes('.') ? name : `vfiod.v1.${name}`]
  return fieldsOf(found as MethodDefinition<object, object>['requestType'])
}

const badValue = (field: Field, filling: Filling): unknown => {
  switch (field.type) {
    case 'TYPE_STRING':
      return filling.id(field.name) ?? NO_SUCH
    case 'TYPE_UINT64':
      return filling.u64
    case 'TYPE_UINT32':
      return filling.id(field.name) ?? filling.u32
    case 'TYPE_ENUM':
      return filling.enum
    case 'TYPE_BOOL':
      return filling.bool
    case 'TYPE_BYTES':
      return Buffer.alloc(8).toString('base64')
    case 'TYPE_MESSAGE':
      return fill(messageFields(field.typeName), filling)
    default:
      throw new Error(`${field.name} has type ${field.type}, which nobody made a bad value for`)
  }
}

const fill = (fields: readonly Field[], filling: Filling): Record<string, unknown> =>
  Object.fromEntries(
    fields.map((field) => {
      const value = badValue(field, filling)
      const isList = field.label === 'LABEL_REPEATED'
      return [field.name, isList ? Array.from({ length: filling.items }, () => value) : value]
    }),
  )

const U64_MAX = '18446744073709551615'
const U32_MAX = 0xffff_ffff

/** No enum has as many values. */
const UNKNOWN_ENUM = 99

const hasNumbers = (fields: readonly Field[], { ids }: World): boolean =>
  fields.some(
    ({ name, type, typeName }) =>
      (/^TYPE_UINT/.test(type) && !(name in ids)) ||
      (type === 'TYPE_MESSAGE' && hasNumbers(messageFields(typeName), { ids })),
  )

const hasEnum = (fields: readonly Field[]): boolean =>
  fields.some(
    ({ type, typeName }) =>
      type === 'TYPE_ENUM' || (type === 'TYPE_MESSAGE' && hasEnum(messageFields(typeName))),
  )

const hasBatch = (fields: readonly Field[]): boolean =>
  fields.some(({ label, type }) => label === 'LABEL_REPEATED' && type === 'TYPE_MESSAGE')

export interface BadRequest {
  readonly kind: string
  readonly request: object
  /** Who sends it: the owner of everything, or somebody who owns nothing. */
  readonly from: 'owner' | 'stranger'
}

/** Every bad request that the fields of a method allow. */
export const badRequests = (
  { requestType }: MethodDefinition<object, object>,
  world: World,
): BadRequest[] => {
  const fields = fieldsOf(requestType)
  const nobody = (): undefined => undefined
  const owned = (name: string) => world.ids[name]
  const small = { u64: '4096', u32: 1, enum: 1, bool: false, items: 1 }
  const huge = { u64: U64_MAX, u32: U32_MAX, enum: 1, bool: false, items: 1 }

  const stranger = (kind: string, filling: Filling): BadRequest => ({
    kind,
    request: fill(fields, filling),
    from: 'stranger',
  })
  const owner = (kind: string, filling: Filling): BadRequest => ({
    kind,
    request: fill(fields, filling),
    from: 'owner',
  })

  const requests: BadRequest[] = [{ kind: 'empty', request: {}, from: 'stranger' }]
  if (fields.length === 0) return requests
  requests.push(
    stranger('unknown ids', { ...small, id: nobody, u32: 77 }),
    stranger('extreme', { ...huge, id: nobody, enum: UNKNOWN_ENUM, bool: true }),
    stranger('foreign ids', { ...small, id: owned }),
  )
  if (hasNumbers(fields, world)) {
    requests.push(
      owner('own ids, huge numbers', { ...huge, id: owned }),
      owner('own ids, unaligned numbers', { ...small, id: owned, u64: '4097', u32: U32_MAX }),
    )
  }
  if (hasEnum(fields))
    requests.push(owner('own ids, unknown enum', { ...small, id: owned, enum: UNKNOWN_ENUM }))
  if (hasBatch(fields))
    requests.push(
      owner('own ids, oversized', { ...small, id: owned, items: LIMITS.batchItems + 1 }),
    )
  return requests
}
