/** AddressSpaceService: what clients map memory into. */
import type { Domain } from '../../domain/domain.ts'
import type { AddressSpace } from '../../domain/space/space.ts'
import type { State } from '../../domain/state/state.ts'
import type { AddressSpace as ProtoSpace } from '../../proto/vfiod/v1/AddressSpace.ts'
import type { AddressSpaceServiceHandlers } from '../../proto/vfiod/v1/AddressSpaceService.ts'
import type { Handlers } from '../call/call.ts'
import { u64 } from './convert.ts'
import { pageOf } from './page.ts'
import {
  itemsOrAll,
  mapItemOf,
  mappingToProto,
  pieceOf,
  pieceOrAll,
  resultsOf,
  spaceToProto,
  updateItemOf,
} from './space-convert.ts'

const PAGE_SIZE_DEFAULT = 1000
const PAGE_SIZE_MAX = 10_000

/** A space may be that of an owner who is gone. */
const withOffer = (state: State, space: AddressSpace): ProtoSpace =>
  spaceToProto(space, state.offers.get(space.owner.id))

export const addressSpaceHandlers = ({
  state,
  spaces,
  destroySpace,
}: Domain): Handlers<AddressSpaceServiceHandlers> => ({
  CreateSpace: async ({ spaceId }, { client }) => ({
    space: spaceToProto(await spaces.create(client, spaceId)),
  }),

  GetSpace: async ({ spaceId }) => ({
    space: withOffer(state, await spaces.get(spaceId)),
  }),

  ListSpaces: async (request) => {
    const { elements, nextPageToken } = pageOf(spaces.list(), ({ id }) => id, request)
    return { spaces: elements.map((space) => withOffer(state, space)), nextPageToken }
  },

  DestroySpace: async ({ spaceId }, { client }) => {
    await destroySpace(client, spaceId)
    return {}
  },

  AddGroup: async ({ spaceId, groupId }, { client }) => ({
    space: spaceToProto(await spaces.addGroup(client, spaceId, groupId)),
  }),

  RemoveGroup: async ({ spaceId, groupId }, { client }) => ({
    space: spaceToProto(await spaces.removeGroup(client, spaceId, groupId)),
  }),

  Map: async ({ spaceId, items, allOrNothing }, { client }) => {
    const batch = { items: items.map(mapItemOf), allOrNothing }
    const result = await spaces.map(client, spaceId, batch)
    return { results: resultsOf(result), mappedBytes: String(result.bytes) }
  },

  Unmap: async (request, { client }) => {
    const result = await spaces.unmap(client, request.spaceId, itemsOrAll(request, pieceOf))
    return { results: resultsOf(result), unmappedBytes: String(result.bytes) }
  },

  InvalidateVaddr: async (request, { client }) => {
    const what = { piece: pieceOrAll(request), deadlineMs: request.deadlineMs }
    const { bytes, deadlineMs } = await spaces.invalidate(client, request.spaceId, what)
    return { invalidatedBytes: String(bytes), deadlineMs }
  },

  UpdateVaddr: async (request, { client }) => {
    const result = await spaces.update(client, request.spaceId, itemsOrAll(request, updateItemOf))
    return { results: resultsOf(result), updatedBytes: String(result.bytes) }
  },

  ListMappings: async ({ spaceId, fromIova, pageSize }, { client }) => {
    const count = Math.min(pageSize || PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)
    const page = spaces.mappings(client, spaceId, { from: u64('from_iova', fromIova), count })
    return { mappings: page.mappings.map(mappingToProto), more: page.more }
  },
})
