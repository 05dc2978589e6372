/**
 * What a line of the audit says of a call: the objects it names, the ranges of a batch, and the items
 * that were refused. Nothing else of a request is written down, tokens and data least of all.
 */
import { hex } from '../../base/units.ts'

/** Fields that name what a call is about. */
const OBJECT_FIELDS = [
  'spaceId',
  'memoryId',
  'groupId',
  'name',
  'devices',
  'state',
  'clientId',
] as const

/** Items of one line; a batch may have thousands. */
const ITEMS_MAX = 16

type Fields = Readonly<Record<string, unknown>>

interface Range {
  readonly iova?: string
  readonly length?: string
  readonly memoryId?: string
  /** Of a device, instead of memory. */
  readonly region?: { readonly device?: string; readonly region?: number } | null
  /** A number where the proto has no name for it. */
  readonly access?: string | number
}

interface Result {
  readonly code?: number
  readonly reason?: string
}

/** `0x100000+0x1000 guest read-write`, or `0x100000+0x1000 0000:00:04.0#0 read-write` of a region. */
const rangeText = ({ iova, length, memoryId = '', region, access = '' }: Range): string => {
  const source = region ? `${region.device ?? ''}#${region.region ?? 0}` : memoryId
  const rights = String(access).replace('ACCESS_', '').toLowerCase().replace('_', '-')
  const range = `${hex(BigInt(iova ?? 0))}+${hex(BigInt(length ?? 0))}`
  return [range, source, rights].filter((word) => word !== '').join(' ')
}

/** The first of them as text, and how many there are where that is more. */
const shortened = <Item>(
  name: string,
  items: readonly Item[],
  textOf: (item: Item) => string,
): Fields => ({
  [name]: items.slice(0, ITEMS_MAX).map(textOf),
  ...(items.length > ITEMS_MAX ? { [`${name}Total`]: items.length } : {}),
})

const itemsOf = ({ items }: { readonly items?: unknown }): readonly Range[] =>
  Array.isArray(items) ? items : []

const resultsOf = (response: { readonly results?: unknown } | undefined): readonly Result[] =>
  Array.isArray(response?.results) ? response.results : []

/** What a request is about: `{ spaceId: 'vm-7', items: ['0x100000+0x1000 guest read-write'] }`. */
export const objectOf = (request: object): Fields => {
  const fields = request as Fields
  const named = Object.fromEntries(
    OBJECT_FIELDS.flatMap((field) => (fields[field] ? [[field, fields[field]]] : [])),
  )
  const items = itemsOf(request)
  const all = fields.all === true ? { all: true } : {}
  const force = fields.force === true ? { force: true } : {}
  return items.length === 0
    ? { ...named, ...all, ...force }
    : { ...named, ...shortened('items', items, rangeText) }
}

/** The same, with the items that the response refuses. */
export const outcomeOf = (request: object, response: object | undefined): Fields => {
  const items = itemsOf(request)
  const refused = resultsOf(response).flatMap(({ code = 0, reason = '' }, index) =>
    code === 0 ? [] : [{ item: items[index] ?? {}, reason }],
  )
  const object = objectOf(request)
  if (refused.length === 0) return object
  const texts = shortened('refused', refused, ({ item, reason }) => `${rangeText(item)} ${reason}`)
  return { ...object, ...texts }
}
