/** Mapping and unmapping in one address space: everything is checked before the kernel is asked. */

import { VfiodError } from '../../base/error.ts'
import { type Access, hex, type IovaRange, iova, rangeOf } from '../../base/units.ts'
import { explained } from '../../kernel/diagnosis.ts'
import type { Kernel } from '../../kernel/port.ts'
import type { Memories } from '../memory/memories.ts'
import type { Memory } from '../memory/memory.ts'
import { requireOwner } from '../state/owner.ts'
import type { MappingRecord } from '../state/records.ts'
import type { State } from '../state/state.ts'
import { judgeMap } from './judge-mapping.ts'
import { type MapBatch, requirePlace } from './map-batch.ts'
import type { MemlockCheck } from './memlock.ts'
import { mappingText, type Piece, requireRange } from './ranges.ts'
import { mapRegion, type RegionItem, type RegionSources } from './region-mapping.ts'
import type { AddressSpace } from './space.ts'

export interface MemoryItem extends Piece {
  readonly memoryId: string
  /** Where in the memory to start. */
  readonly offset: bigint
  readonly access: Access
}

export type MapItem = MemoryItem | RegionItem

export interface MapParts {
  readonly kernel: Kernel
  readonly memories: Memories
  readonly memlock: MemlockCheck
  readonly regionOf: RegionSources
}

/** Map one range as a part of a batch. The kernel maps all of it or nothing. */
export async function mapOne(parts: MapParts, batch: MapBatch, item: MapItem): Promise<void> {
  const { space, client } = batch
  // The space may have been handed over since the item before.
  requireOwner(client, space.owner, { type: 'address space', name: space.id })
  const range = requireRange('map', item, space.alignment)
  if ('memoryId' in item) await mapMemory(parts, batch, { item, range })
  else await mapRegion(parts.regionOf, batch, { item, range })
}

async function mapMemory(
  { kernel, memlock, memories }: MapParts,
  batch: MapBatch,
  { item, range }: { readonly item: MemoryItem; readonly range: IovaRange },
): Promise<void> {
  const { space, client, pins } = batch
  // Before the rest, because it waits: the memory may be released meanwhile.
  if (pins) await memlock.requireAvailable(item.length)
  const memory = memories.get(client, item.memoryId)
  requireInMemory(item, memory, space.alignment)
  requirePlace(batch, item, range)
  const { offset, access } = item
  const { id: memoryId, window } = memory
  const windowId = window.id
  const mapping = { ...range, memoryId, offset, access, windowId, isVaddrValid: true }
  await batch.make(
    mapping,
    () => memory.use(),
    async (use) => {
      const vaddr = use.window.at(offset)
      const wanted = {
        range,
        vaddr,
        alignment: space.alignment,
        memory: { id: memory.id, fd: memory.fd, offset },
      }
      const mapped = space.iommu.map(range, { vaddr, access })
      await explained(mapped, judgeMap(kernel, space.iommu, wanted))
    },
  )
}

/** The vaddr must be whole pages of the IOMMU, wherever the pages of the memory begin. */
function requireInMemory(item: MemoryItem, memory: Memory, alignment: bigint): void {
  if (item.offset % alignment !== 0n) {
    throw new VfiodError(
      'BAD_RANGE',
      `Cannot map memory "${memory.id}" from offset ${hex(item.offset)}: a multiple of ${hex(alignment)} is needed, the smallest page of the IOMMU`,
      { field: 'offset' },
    )
  }
  if (item.offset + item.length <= memory.length) return
  throw new VfiodError(
    'OUT_OF_MEMORY_OBJECT',
    `Cannot map ${hex(item.length)} bytes from offset ${hex(item.offset)}: memory "${memory.id}" has ${hex(memory.length)}`,
    { field: 'offset' },
  )
}

/** Unmap every mapping inside a piece, or every one there is; answers the bytes unmapped. */
export async function unmapOne(
  state: State,
  space: AddressSpace,
  piece: Piece | 'all',
): Promise<bigint> {
  const mappings = piece === 'all' ? space.mappings.all() : insideOf(space, piece, 'unmap')
  // Where nothing is mapped, some kernels say ENOENT.
  if (mappings.length === 0) return 0n
  const range = piece === 'all' ? piece : rangeOf(iova(piece.iova), piece.length)
  const bytes = await space.iommu.unmap(range)
  state.apply({ kind: 'unmapped', spaceId: space.id, mappings })
  return bytes
}

/** The mappings inside a piece; MAPPING_STRADDLES when it would cut one. */
export function insideOf(space: AddressSpace, piece: Piece, act: string): MappingRecord[] {
  const range = requireRange(act, piece, space.alignment)
  const cut = space.mappings.straddling(range)
  if (cut === undefined) return space.mappings.inside(range)
  throw new VfiodError(
    'MAPPING_STRADDLES',
    `Cannot ${act} ${hex(piece.length)} bytes at iova ${hex(piece.iova)}: ${mappingText(cut)} extends beyond it; name whole mappings`,
    {
      blockers: [{ subject: mappingText(cut), found: 'only partly inside', fix: 'name all of it' }],
    },
  )
}
