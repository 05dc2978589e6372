/** Mapping and unmapping in one address space: everything is checked before the kernel is asked. */

import { VfiodError } from '../../base/error.ts'
import { type Access, hex, iova, rangeOf, rangeText } from '../../base/units.ts'
import { wasErrno } from '../../kernel/refusal.ts'
import type { RangeMap } from '../../rules/range-map.ts'
import type { Client } from '../identity/clients.ts'
import type { Quotas } from '../identity/quotas.ts'
import type { Memories, Memory } from '../memory/memories.ts'
import { requireOwner } from '../state/owner.ts'
import type { MappingRecord } from '../state/records.ts'
import type { State } from '../state/state.ts'
import type { MemlockCheck } from './memlock.ts'
import { type Piece, requireInside, requireRange } from './ranges.ts'
import type { AddressSpace } from './space.ts'

/** `0x1000..0x1fff of memory "ram"`: how a mapping reads in messages. */
export const mappingText = (mapping: MappingRecord): string =>
  `${rangeText(mapping)} of memory "${mapping.memoryId}"`

export interface MapItem extends Piece {
  readonly memoryId: string
  /** Where in the memory to start. */
  readonly offset: bigint
  readonly access: Access
}

/** The mappings that one call makes, until they are recorded all at once. */
export interface MapBatch {
  readonly space: AddressSpace
  readonly client: Client
  readonly made: RangeMap<MadeMapping>
}

/** A mapping that the kernel has and the state does not yet; it holds its memory and its charge. */
export interface MadeMapping {
  readonly mapping: MappingRecord
  readonly drop: () => void
}

/** Map one range as a part of a batch. The kernel maps all of it or nothing. */
export async function mapOne(
  parts: { readonly memories: Memories; readonly memlock: MemlockCheck; readonly quotas: Quotas },
  { space, client, made }: MapBatch,
  item: MapItem,
): Promise<void> {
  // The space may have been handed over since the item before.
  requireOwner(client, space.owner, { type: 'address space', name: space.id })
  const range = requireRange('map', item, space.alignment)
  // Before the rest, because it waits: the memory may be released meanwhile.
  if (space.pins) await parts.memlock.requireAvailable(item.length)
  const memory = parts.memories.get(client, item.memoryId)
  requireInMemory(item, memory)
  const taken = space.mappings.conflict(range) ?? made.firstOverlap(range)?.value.mapping
  if (taken !== undefined) {
    throw new VfiodError(
      'IOVA_IN_USE',
      `Cannot map iova ${hex(item.iova)} of ${hex(item.length)} bytes: ${mappingText(taken)} is already mapped there; unmap it first`,
      { blockers: [{ subject: mappingText(taken), found: 'mapped', fix: 'unmap it' }] },
    )
  }
  requireInside('map', range, space.apertures)
  for (const { onMapping } of space.hooks) onMapping?.(item)
  requireSlot(space, made.size)
  // Held from before the call: releasing the memory meanwhile must not unmap it under the kernel.
  const charge = parts.quotas.charge(client, { mappings: 1n, locked_bytes: item.length })
  const use = memory.use()
  const drop = () => {
    charge.release()
    use.drop()
  }
  try {
    await space.iommu.map(range, { vaddr: use.window.at(item.offset), access: item.access })
  } catch (error) {
    drop()
    throw wasErrno(error, 'ENOMEM') ? memlockExceeded(item, error) : error
  }
  const { offset, access } = item
  const record = { memoryId: memory.id, offset, access, windowId: use.window.id }
  const mapping = { ...range, ...record, isVaddrValid: true }
  made.insert(range, { mapping, drop })
}

/** The kernel has mapped them: record those that were made and are still there. */
export function recordMapped(state: State, { space, made }: MapBatch): void {
  const entries = [...made].map(({ value }) => value)
  if (entries.length === 0) return
  const mappings = entries.map(({ mapping }) => mapping)
  state.apply({ kind: 'mapped', spaceId: space.id, mappings })
  for (const { drop } of entries) drop()
}

/** Take back a mapping of a batch that is not recorded yet. */
export async function unmapMade({ space, made }: MapBatch, one: MadeMapping): Promise<void> {
  await space.iommu.unmap(one.mapping)
  made.remove(one.mapping.start)
  one.drop()
}

function requireInMemory(item: MapItem, memory: Memory): void {
  if (item.offset % memory.pageSize !== 0n) {
    throw new VfiodError(
      'BAD_RANGE',
      `Cannot map memory "${memory.id}" from offset ${hex(item.offset)}: a multiple of ${hex(memory.pageSize)} is needed`,
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

function requireSlot(space: AddressSpace, madeMeanwhile: number): void {
  const max = space.mappingsMax
  const current = space.mappings.size + madeMeanwhile
  if (max === undefined || current < max) return
  throw new VfiodError(
    'TOO_MANY_MAPPINGS',
    `Cannot map one more range: address space "${space.id}" has ${current} of ${max}; map larger ranges, or raise dma_entry_limit of vfio_iommu_type1`,
    {
      quota: {
        limit: 'mappings of one address space (dma_entry_limit)',
        max: BigInt(max),
        current: BigInt(current),
        needed: 1n,
      },
    },
  )
}

const memlockExceeded = (item: MapItem, cause: unknown): VfiodError =>
  new VfiodError(
    'MEMLOCK_EXCEEDED',
    `Cannot map ${hex(item.length)} bytes: pinning them would exceed RLIMIT_MEMLOCK of the daemon, or memory ran out; raise LimitMEMLOCK of the unit or map less`,
    { op: 'VFIO_IOMMU_MAP_DMA', errno: 'ENOMEM' },
    cause,
  )

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
    `Cannot ${act} ${hex(piece.length)} bytes at iova ${hex(piece.iova)}: ${mappingText(cut)} reaches beyond; name whole mappings`,
    {
      blockers: [{ subject: mappingText(cut), found: 'only partly inside', fix: 'name all of it' }],
    },
  )
}
