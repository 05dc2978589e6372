/** The mappings that one call makes, until they are recorded all at once, and where they may lie. */

import { VfiodError } from '../../base/error.ts'
import { undo } from '../../base/undo.ts'
import { hex, type IovaRange } from '../../base/units.ts'
import { RangeMap } from '../../rules/range-map.ts'
import type { Client } from '../identity/clients.ts'
import type { Charge, Quotas } from '../identity/quotas.ts'
import type { MappingRecord } from '../state/records.ts'
import type { State } from '../state/state.ts'
import { mappingsPrice } from '../state/usage.ts'
import { mappingText, type Piece, requireInside } from './ranges.ts'
import type { AddressSpace } from './space.ts'

/** What keeps the source of a mapping in place: a memory unreleased, a device undisturbed. */
export interface Held {
  drop(): void
}

/** The kernel has the mappings of a batch, and they hold their source and their charge. */
export class MapBatch {
  readonly space: AddressSpace
  readonly client: Client
  /** Whether mapping pins memory; members do not change while a batch is made. */
  readonly pins: boolean
  readonly #made = new RangeMap<{ readonly mapping: MappingRecord; readonly held: Held }>()
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

  /** Have a mapping made; its source is held from before the call, for it may be released meanwhile. */
  async make<Source extends Held>(
    mapping: MappingRecord,
    hold: () => Source,
    make: (source: Source) => Promise<void>,
  ): Promise<void> {
    const price = mappingsPrice([mapping])
    this.#charge.add(price)
    const held = hold()
    try {
      await make(held)
    } catch (error) {
      held.drop()
      this.#charge.giveBack(price)
      throw error
    }
    this.#made.insert(mapping, { mapping, held })
  }

  /** Unmap what was made, the last one first; answers the mappings that could not be unmapped. */
  async undo(): Promise<MappingRecord[]> {
    const left = await undo([...this.#made].reverse(), async ({ start, value }) => {
      await this.space.iommu.unmap(value.mapping)
      this.#made.remove(start)
      value.held.drop()
    })
    return left.map(({ done }) => done.value.mapping)
  }

  /** Record what was made and is still there. */
  record(state: State): void {
    const mappings = [...this.#made].map(({ value }) => value.mapping)
    if (mappings.length > 0) state.apply({ kind: 'mapped', spaceId: this.space.id, mappings })
    for (const { value } of this.#made) value.held.drop()
    this.#charge.release()
  }
}

/** Throw unless the range is free, inside an aperture, and one more mapping may be made. */
export function requirePlace(batch: MapBatch, item: Piece, range: IovaRange): void {
  const { space } = batch
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
