/** Mapping and unmapping in one address space: everything is checked before the kernel is asked. */

import { VfiodError } from '../../base/error.ts'
import { type Access, hex, iova, rangeOf } from '../../base/units.ts'
import { wasErrno } from '../../kernel/refusal.ts'
import type { Client } from '../identity/clients.ts'
import type { Memories, Memory } from '../memory/memories.ts'
import { type Mapping, mappingText } from './mapping-table.ts'
import type { Pinning } from './memlock.ts'
import { type Piece, requireInside, requireRange } from './ranges.ts'
import type { AddressSpace } from './space.ts'

export interface MapItem extends Piece {
  readonly memoryId: string
  /** Where in the memory to start. */
  readonly offset: bigint
  readonly access: Access
}

/** Map one range; answers the bytes mapped. The kernel maps all of it or nothing. */
export async function mapOne(
  parts: { readonly memories: Memories; readonly pinning: Pinning },
  at: { readonly space: AddressSpace; readonly client: Client },
  item: MapItem,
): Promise<bigint> {
  const { space, client } = at
  const range = requireRange('map', item, space.alignment)
  // Before the rest, because it waits: the memory may be released meanwhile.
  if (space.pins) await parts.pinning.requireRoom(item.length)
  const memory = parts.memories.get(client, item.memoryId)
  requireInMemory(item, memory)
  const taken = space.ledger.conflict(range)
  if (taken !== undefined) {
    throw new VfiodError(
      'IOVA_IN_USE',
      `Cannot map iova ${hex(item.iova)} of ${hex(item.length)} bytes: ${mappingText(taken)} is already mapped there; unmap it first`,
      { blockers: [{ subject: mappingText(taken), found: 'mapped', fix: 'unmap it' }] },
    )
  }
  requireInside('map', range, space.apertures)
  for (const { onMapping } of space.hooks) onMapping?.(item)
  requireSlot(space)
  const mapping: Mapping = {
    ...range,
    length: item.length,
    memory,
    offset: item.offset,
    access: item.access,
    window: memory.window,
    isVaddrValid: true,
  }
  // Held from before the call: releasing the memory meanwhile must not unmap it under the kernel.
  space.ledger.add(mapping)
  try {
    await space.iommu.map(range, {
      vaddr: memory.window.at(item.offset),
      access: item.access,
    })
  } catch (error) {
    space.ledger.remove(mapping)
    throw wasErrno(error, 'ENOMEM') ? memlockExceeded(item, error) : error
  }
  return item.length
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

function requireSlot(space: AddressSpace): void {
  const max = space.mappingsMax
  if (max === undefined || space.ledger.size < max) return
  throw new VfiodError(
    'TOO_MANY_MAPPINGS',
    `Cannot map one more range: address space "${space.id}" has ${space.ledger.size} of ${max}; map larger ranges, or raise dma_entry_limit of vfio_iommu_type1`,
    {
      quota: {
        limit: 'mappings of one address space (dma_entry_limit)',
        max: BigInt(max),
        current: BigInt(space.ledger.size),
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
export async function unmapOne(space: AddressSpace, piece: Piece | 'all'): Promise<bigint> {
  const found = piece === 'all' ? space.ledger.all() : insideOf(space, piece, 'unmap')
  const range = piece === 'all' ? piece : rangeOf(iova(piece.iova), piece.length)
  // Where nothing is mapped, some kernels say ENOENT.
  if (found.length === 0) return 0n
  const bytes = await space.iommu.unmap(range)
  for (const mapping of found) {
    space.ledger.remove(mapping)
    for (const { onUnmapped } of space.hooks) onUnmapped?.(mapping)
  }
  return bytes
}

/** The mappings inside a piece; MAPPING_STRADDLES when it would cut one. */
export function insideOf(space: AddressSpace, piece: Piece, act: string): Mapping[] {
  const range = requireRange(act, piece, space.alignment)
  const cut = space.ledger.straddling(range)
  if (cut === undefined) return space.ledger.inside(range)
  throw new VfiodError(
    'MAPPING_STRADDLES',
    `Cannot ${act} ${hex(piece.length)} bytes at iova ${hex(piece.iova)}: ${mappingText(cut)} reaches beyond; name whole mappings`,
    {
      blockers: [{ subject: mappingText(cut), found: 'only partly inside', fix: 'name all of it' }],
    },
  )
}
