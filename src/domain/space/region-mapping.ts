/**
 * Peer to peer: a part of a device as the target of the DMA of the other devices of its address space.
 *
 * The IOMMU keeps leading to it whatever becomes of the device, so the mapping goes before the device
 * stops decoding: the caller that is about to stop it uses `unmapRegionsOf` in the lane of the space.
 */

import { VfiodError } from '../../base/error.ts'
import { type Access, hex, type IovaRange, type Vaddr } from '../../base/units.ts'
import type { Region, RegionArea } from '../../kernel/device-calls.ts'
import { explained, type Judge } from '../../kernel/diagnosis.ts'
import type { Client } from '../identity/clients.ts'
import type { RegionMaps } from '../iommu/backend.ts'
import type { State } from '../state/state.ts'
import { judgeMapRegion } from './judge-mapping.ts'
import { type Held, type MapBatch, requirePlace } from './map-batch.ts'
import type { Piece } from './ranges.ts'
import type { AddressSpace } from './space.ts'

export interface RegionItem extends Piece {
  /** Open in the space. */
  readonly device: string
  readonly region: number
  /** Where in the region to start. */
  readonly offset: bigint
  readonly access: Access
}

/** A region of an open device, as the source of mappings. */
export interface RegionSource {
  readonly device: string
  readonly region: Region
  /** Run while the device is neither accessed, reset nor closed, and still belongs to the caller. */
  run<T>(operation: () => Promise<T>): Promise<T>
  /** Make known that there is a mapping of the device, or is about to be. */
  hold(): Held
  /** Where a byte of an area is mapped here; it stays there until the device is closed. */
  vaddrIn(area: RegionArea, offset: bigint): Promise<Vaddr>
  /** Why the kernel refuses to map it. */
  readonly judge: Judge
}

/** The region of a device that is open in the space, or the refusal. */
export type RegionSources = (
  client: Client,
  space: AddressSpace,
  at: Pick<RegionItem, 'device' | 'region'>,
) => RegionSource

/** Map a part of a region as a part of a batch. */
export async function mapRegion(
  regionOf: RegionSources,
  batch: MapBatch,
  { item, range }: { readonly item: RegionItem; readonly range: IovaRange },
): Promise<void> {
  const { space, client } = batch
  const source = regionOf(client, space, item)
  const regions = requireOffered(space, item)
  const area = requireArea(item, source, space.alignment)
  requireAccess(item, source)
  const { device } = source
  const { region, offset, access } = item
  await source.run(async () => {
    requirePlace(batch, item, range)
    await batch.make(
      { ...range, device, region, offset, access },
      () => source.hold(),
      async () => {
        const vaddr = await source.vaddrIn(area, offset)
        const wanted = { range, vaddr, alignment: space.alignment }
        const judge = judgeMapRegion(space.iommu, wanted, source.judge)
        await explained(regions.map(range, { vaddr, access }), judge)
      },
    )
  })
}

/** Remove every mapping of the regions of a device; answers how many. Runs in the lane of the space. */
export async function unmapRegionsOf(
  state: State,
  space: AddressSpace,
  device: string,
): Promise<number> {
  const mappings = space.mappings.ofDevice(device)
  for (const mapping of mappings) {
    await space.iommu.unmap(mapping)
    state.apply({ kind: 'unmapped', spaceId: space.id, mappings: [mapping] })
  }
  return mappings.length
}

const regionText = ({ region, device }: Pick<RegionItem, 'region' | 'device'>): string =>
  `region ${region} of ${device}`

function requireOffered(space: AddressSpace, item: RegionItem): RegionMaps {
  const { regions } = space.iommu
  if ('offered' in regions) return regions.offered
  throw new VfiodError(
    'UNSUPPORTED',
    `Cannot map ${regionText(item)} into "${space.id}": ${regions.missing}; let the devices exchange data through memory`,
  )
}

/** The area that has the whole piece: what the kernel lets be mapped, in whole pages. */
function requireArea(item: RegionItem, source: RegionSource, alignment: bigint): RegionArea {
  const { offset, length } = item
  const { region } = source
  const act = `Cannot map ${hex(length)} bytes from offset ${hex(offset)} of ${regionText(item)}`
  const refused = (reason: 'BAD_RANGE' | 'OUT_OF_REGION', why: string) =>
    new VfiodError(reason, `${act}: ${why}`, { field: 'offset' })
  if (offset % alignment !== 0n) {
    throw refused('BAD_RANGE', `a multiple of ${hex(alignment)} is needed, the smallest page`)
  }
  if (offset + length > region.size) {
    throw refused('OUT_OF_REGION', `it has ${hex(region.size)} bytes`)
  }
  const areas = region.areas.map((area) => wholePages(area, alignment)).filter(isLong)
  if (areas.length === 0) {
    throw new VfiodError('UNSUPPORTED', `${act}: the region cannot be mapped`, { field: 'region' })
  }
  const area = areas.find(
    (each) => each.offset <= offset && offset + length <= each.offset + each.length,
  )
  if (area !== undefined) return area
  const parts = areas.map((each) => `${hex(each.length)} bytes from ${hex(each.offset)} on`)
  throw refused('BAD_RANGE', `of it only ${parts.join(' and ')} can be mapped; stay inside`)
}

function wholePages({ offset, length }: RegionArea, page: bigint): RegionArea {
  const start = ((offset + page - 1n) / page) * page
  return { offset: start, length: ((offset + length) / page) * page - start }
}

const isLong = ({ length }: RegionArea): boolean => length > 0n

function requireAccess(item: RegionItem, { region }: RegionSource): void {
  const { access } = item
  const isReadable = access === 'write' || region.isReadable
  const isWritable = access === 'read' || region.isWritable
  if (isReadable && isWritable) return
  throw new VfiodError(
    'UNSUPPORTED',
    `Cannot map ${regionText(item)} for ${access}: the region cannot be ${isReadable ? 'written' : 'read'}`,
    { field: 'access' },
  )
}
