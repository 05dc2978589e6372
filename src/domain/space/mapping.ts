/** Mapping and unmapping in one address space: everything is checked before the kernel is asked. */

import { VfiodError } from '../../base/error.ts'
import { undo } from '../../base/undo.ts'
import { type Access, hex, type IovaRange, iova, lengthOf, rangeOf } from '../../base/units.ts'
import { explained } from '../../kernel/diagnosis.ts'
import type { Kernel } from '../../kernel/port.ts'
import { RangeMap } from '../../rules/range-map.ts'
import type { Client } from '../identity/clients.ts'
import type { Charge, Quotas } from '../identity/quotas.ts'
import type { Memories } from '../memory/memories.ts'
import type { Memory, MemoryUse } from '../memory/memory.ts'
import { requireOwner } from '../state/owner.ts'
import type { MappingRecord } from '../state/records.ts'
import type { State } from '../state/state.ts'
import { judgeMap } from './judge-mapping.ts'
import type { MemlockCheck } from './memlock.ts'
import { mappingText, type Piece, requireInside, requireRange } from './ranges.ts'
import type { AddressSpace } from './space.ts'

export interface MapItem extends Piece {
  readonly memoryId: string
  /** Where in the memory to start. */
  readonly offset: bigint
  readonly access: Access
}

/**
 * The mappings that one call makes, until they are recorded all at once: the kernel has them, and they
 * hold their memory and their charge.
 */
export class MapBatch {
  readonly space: AddressSpace
  readonly client: Client
  /** Whether mapping pins memory; members do not change while a batch is made. */
  readonly pins: boolean
  readonly #made = new RangeMap<{ readonly mapping: MappingRecord; readonly use: MemoryUse }>()
  readonly #charge: Charge

  constructor(space: AddressSpace, client: Client, quotas: Quotas) {
    this.space = space
    this.client = client
    this.pins = space.pins
    this.#charge = quotas.charge(client, {})
  }

  get size(): number {
    return this.#made.size
  }

  /** The lowest mapping of the batch that shares an address with the range. */
  conflict(range: IovaRange): MappingRecord | undefined {
    return this.#made.size === 0 ? undefined : this.#made.firstOverlap(range)?.value.mapping
  }

  /** Have a mapping made; the memory is held from before the call, for it may be released meanwhile. */
  async make(mapping: MappingRecord, memory: Memory, make: (use: MemoryUse) => Promise<void>) {
    const price = { mappings: 1n, locked_bytes: lengthOf(mapping) }
    this.#charge.add(price)
    const use = memory.use()
    try {
      await make(use)
    } catch (error) {
      use.drop()
      this.#charge.giveBack(price)
      throw error
    }
    this.#made.insert(mapping, { mapping, use })
  }

  /** Unmap what was made, the last one first; answers the mappings that could not be unmapped. */
  async undo(): Promise<MappingRecord[]> {
    const left = await undo([...this.#made].reverse(), async ({ start, value }) => {
      await this.space.iommu.unmap(value.mapping)
      this.#made.remove(start)
      value.use.drop()
    })
    return left.map(({ done }) => done.value.mapping)
  }

  /** Record what was made and is still there. */
  record(state: State): void {
    const mappings = [...this.#made].map(({ value }) => value.mapping)
    if (mappings.length > 0) state.apply({ kind: 'mapped', spaceId: this.space.id, mappings })
    for (const { value } of this.#made) value.use.drop()
    this.#charge.release()
  }
}

/** Map one range as a part of a batch. The kernel maps all of it or nothing. */
export async function mapOne(
  parts: {
    readonly kernel: Kernel
    readonly memories: Memories
    readonly memlock: MemlockCheck
  },
  batch: MapBatch,
  item: MapItem,
): Promise<void> {
  const { space, client, pins } = batch
  // The space may have been handed over since the item before.
  requireOwner(client, space.owner, { type: 'address space', name: space.id })
  const range = requireRange('map', item, space.alignment)
  // Before the rest, because it waits: the memory may be released meanwhile.
  if (pins) await parts.memlock.requireAvailable(item.length)
  const memory = parts.memories.get(client, item.memoryId)
  requireInMemory(item, memory, space.alignment)
  const taken = space.mappings.conflict(range) ?? batch.conflict(range)
  if (taken !== undefined) {
    throw new VfiodError(
      'IOVA_IN_USE',
      `Cannot map iova ${hex(item.iova)} of ${hex(item.length)} bytes: ${mappingText(taken)} is already mapped there; unmap it first`,
      { blockers: [{ subject: mappingText(taken), found: 'mapped', fix: 'unmap it' }] },
    )
  }
  requireInside('map', range, space.apertures)
  for (const { onMapping } of space.hooks) onMapping?.(item)
  requireSlot(space, batch.size)
  const { offset, access } = item
  const { start, last } = range
  const { id: memoryId, window } = memory
  const windowId = window.id
  const mapping = { start, last, memoryId, offset, access, windowId, isVaddrValid: true }
  await batch.make(mapping, memory, async (use) => {
    const vaddr = use.window.at(offset)
    const wanted = {
      range,
      vaddr,
      alignment: space.alignment,
      memory: { id: memory.id, fd: memory.fd, offset },
    }
    const mapped = space.iommu.map(range, { vaddr, access })
    await explained(mapped, judgeMap(parts.kernel, space.iommu, wanted))
  })
}

/** The vaddr must be whole pages of the IOMMU, wherever the pages of the memory begin. */
function requireInMemory(item: MapItem, memory: Memory, alignment: bigint): void {
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
