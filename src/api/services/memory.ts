/** MemoryService: memory that clients register, or that vfiod allocates. */
import type { Domain } from '../../domain/domain.ts'
import type { HugePage, MemoryRecord } from '../../domain/state/records.ts'
import type { Memory as ProtoMemory } from '../../proto/vfiod/v1/Memory.ts'
import type { MemoryServiceHandlers } from '../../proto/vfiod/v1/MemoryService.ts'
import type { Handlers } from '../call/call.ts'
import { enumOf, ownerToProto, ticketToProto, u64 } from './convert.ts'
import { pageOf } from './page.ts'

const HUGE_PAGE: Readonly<Record<string, HugePage | 'none'>> = {
  HUGE_PAGE_UNSPECIFIED: 'none',
  HUGE_PAGE_2M: '2M',
  HUGE_PAGE_1G: '1G',
}

const hugePageOf = (name: string | number): HugePage | undefined => {
  const page = enumOf('huge_page', HUGE_PAGE, name)
  return page === 'none' ? undefined : page
}

const memoryToProto = (
  memory: MemoryRecord,
  { mappings, views }: { readonly mappings: number; readonly views: number },
): ProtoMemory => ({
  memoryId: memory.id,
  length: String(memory.length),
  allocated: memory.isAllocated,
  sealed: memory.isSealed,
  owner: ownerToProto(memory.owner),
  mappings,
  views,
})

export const memoryHandlers = (
  { memories, state }: Domain,
  fdSocketPath: string,
): Handlers<MemoryServiceHandlers> => {
  const countsOf = (id: string) => ({
    mappings: state.mappingsOfMemory(id),
    views: memories.views(id),
  })
  return {
    RegisterMemory: async ({ memoryId }, { client }) => {
      const { id, ticket } = memories.register(client, memoryId)
      return { memoryId: id, ticket: ticketToProto(ticket, fdSocketPath) }
    },

    AllocateMemory: async (request, { client }) => {
      const memory = await memories.allocate(client, {
        id: request.memoryId,
        length: u64('length', request.length),
        hugePage: hugePageOf(request.hugePage),
      })
      return { memory: memoryToProto(memory, countsOf(memory.id)) }
    },

    ExportMemory: async ({ memoryId }, { client }) => ({
      ticket: ticketToProto(memories.export(client, memoryId), fdSocketPath),
    }),

    ListMemory: async (request, { client }) => {
      const { elements, nextPageToken } = pageOf(memories.list(client), ({ id }) => id, request)
      const listed = elements.map((each) => memoryToProto(each, countsOf(each.id)))
      return { memories: listed, nextPageToken }
    },

    ReleaseMemory: async ({ memoryId }, { client }) => {
      memories.release(client, memoryId)
      return {}
    },
  }
}
