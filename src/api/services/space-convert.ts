/** Address spaces, mappings and batches, between proto and domain values. */
import { badArgument } from '../../base/error.ts'
import { iova, lengthOf, U64_MAX } from '../../base/units.ts'
import type { BackendKind } from '../../domain/iommu/backend.ts'
import type { BatchResult } from '../../domain/space/batch.ts'
import type { MapItem } from '../../domain/space/mapping.ts'
import type { Piece } from '../../domain/space/ranges.ts'
import { remapBlocked, remapBlockers, type UpdateItem } from '../../domain/space/remap.ts'
import type { AddressSpace, SpaceState } from '../../domain/space/space.ts'
import { isOfMemory, type MappingRecord, type OfferRecord } from '../../domain/state/records.ts'
import type { AddressSpace as ProtoSpace } from '../../proto/vfiod/v1/AddressSpace.ts'
import type { ItemStatus } from '../../proto/vfiod/v1/ItemStatus.ts'
import type { MapItem__Output } from '../../proto/vfiod/v1/MapItem.ts'
import type { Mapping as ProtoMapping } from '../../proto/vfiod/v1/Mapping.ts'
import type { SpaceBackend as ProtoBackend } from '../../proto/vfiod/v1/SpaceBackend.ts'
import type { SpaceState as ProtoState } from '../../proto/vfiod/v1/SpaceState.ts'
import type { UpdateVaddrItem__Output } from '../../proto/vfiod/v1/UpdateVaddrItem.ts'
import {
  accessOf,
  accessToProto,
  blockerToProto,
  conditionsToProto,
  itemStatus,
  ownerToProto,
  rangeToProto,
  u64,
} from './convert.ts'

const STATE: Readonly<Record<SpaceState, ProtoState>> = {
  empty: 'SPACE_STATE_EMPTY',
  pending: 'SPACE_STATE_PENDING',
  ready: 'SPACE_STATE_READY',
}

const BACKEND: Readonly<Record<BackendKind, ProtoBackend>> = {
  type1: 'SPACE_BACKEND_TYPE1',
  'iommufd-compat': 'SPACE_BACKEND_IOMMUFD_COMPAT',
}

const EVERYWHERE = [{ start: iova(0n), last: iova(U64_MAX) }]

/** For a kernel that sets no limit, or does not tell it. */
const UNLIMITED = 0xffff_ffff

const availableIn = ({ state, mappingsMax, mappings }: AddressSpace): number => {
  if (state !== 'ready') return 0
  return mappingsMax === undefined ? UNLIMITED : Math.max(mappingsMax - mappings.size, 0)
}

export const spaceToProto = (space: AddressSpace, offer?: OfferRecord): ProtoSpace => ({
  spaceId: space.id,
  state: STATE[space.state],
  groupIds: space.groups,
  blockers: space.blockers.map(blockerToProto),
  apertures: space.state === 'ready' ? (space.apertures ?? EVERYWHERE).map(rangeToProto) : [],
  pageSizes: String(space.pageSizes),
  alignment: String(space.alignment),
  mappings: space.mappings.size,
  mappingsAvailable: availableIn(space),
  mappedBytes: String(space.mappings.bytes),
  canRemap: remapBlocked(space) === '',
  remapBlocked: remapBlocked(space),
  remapBlockers: remapBlockers(space).map(blockerToProto),
  backend: BACKEND[space.iommu.kind],
  owner: ownerToProto(space.owner, offer),
  devices: space.devices.sort(),
  conditions: space.conditions.flatMap(({ name, conditions }) =>
    conditionsToProto(name, conditions),
  ),
})

export const mappingToProto = (mapping: MappingRecord): ProtoMapping => ({
  iova: String(mapping.start),
  length: String(lengthOf(mapping)),
  ...sourceToProto(mapping),
  offset: String(mapping.offset),
  access: accessToProto(mapping.access),
  vaddrValid: !isOfMemory(mapping) || mapping.isVaddrValid,
})

const sourceToProto = (mapping: MappingRecord): Pick<ProtoMapping, 'memoryId' | 'region'> =>
  isOfMemory(mapping)
    ? { memoryId: mapping.memoryId }
    : { region: { device: mapping.device, region: mapping.region } }

export const mapItemOf = (item: MapItem__Output, index: number): MapItem => ({
  ...pieceOf(item, index),
  ...sourceOf(item, index),
  offset: u64(`items[${index}].offset`, item.offset),
  access: accessOf(`items[${index}].access`, item.access),
})

function sourceOf({ memoryId, region }: MapItem__Output, index: number) {
  if (region) return { device: region.device, region: region.region }
  if (memoryId !== undefined) return { memoryId }
  const act = `Cannot map items[${index}]: it has no source`
  throw badArgument(`items[${index}].source`, `${act}; name a memory, or a region of a device`)
}

export const pieceOf = (
  item: { readonly iova: string; readonly length: string },
  index: number,
): Piece => ({
  iova: u64(`items[${index}].iova`, item.iova),
  length: u64(`items[${index}].length`, item.length),
})

export const updateItemOf = (item: UpdateVaddrItem__Output, index: number): UpdateItem => ({
  ...pieceOf(item, index),
  memoryId: item.memoryId,
  offset: u64(`items[${index}].offset`, item.offset),
})

/** `all` leaves no room for items; without it they are converted one by one. */
export const itemsOrAll = <Item, Converted>(
  { all, items }: { readonly all: boolean; readonly items: readonly Item[] },
  convert: (item: Item, index: number) => Converted,
): Converted[] | 'all' => {
  if (!all) return items.map(convert)
  if (items.length === 0) return 'all'
  throw badArgument('items', 'Cannot use all and items together: leave one of them out')
}

/** `all` leaves no room for a range. */
export const pieceOrAll = (request: {
  readonly all: boolean
  readonly iova: string
  readonly length: string
}): Piece | 'all' => {
  const piece = { iova: u64('iova', request.iova), length: u64('length', request.length) }
  if (!request.all) return piece
  if (piece.iova === 0n && piece.length === 0n) return 'all'
  throw badArgument('all', 'Cannot use all and a range together: leave one of them out')
}

export const resultsOf = ({ errors }: BatchResult): ItemStatus[] => errors.map(itemStatus)
