/** vfio.h: struct vfio_info_cap_header, chains as VFIO_IOMMU_GET_INFO of 6.12 answers them. */

import { describe, expect, test } from 'vitest'
import { capabilities, vfio_info_cap_header } from '../../src/abi/caps.ts'
import {
  VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
  VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION,
  VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
  vfio_iommu_type1_info,
  vfio_iommu_type1_info_cap_iova_range,
  vfio_iommu_type1_info_cap_migration,
  vfio_iommu_type1_info_dma_avail,
  vfio_iova_range,
} from '../../src/abi/container.ts'

/** Capability headers alone: `[at, id, next]`. */
function chain(length: number, ...headers: readonly (readonly [number, number, number])[]) {
  const bytes = new Uint8Array(length)
  for (const [at, id, next] of headers) {
    vfio_info_cap_header.write(bytes, { id, version: 1, next }, at)
  }
  return bytes
}

const idsOf = (bytes: Uint8Array, capOffset: number) =>
  [...capabilities(bytes, capOffset)].map(({ id }) => id)

describe('capabilities', () => {
  test('finds the three of a type1 container with two iova ranges, 120 bytes', () => {
    const bytes = vfio_iommu_type1_info.encode({ argsz: 120, flags: 3, cap_offset: 24 }, 96)
    vfio_iommu_type1_info_cap_migration.write(
      bytes,
      { 'header.id': 2, 'header.version': 1, 'header.next': 56, pgsize_bitmap: 0x1000n },
      24,
    )
    vfio_iommu_type1_info_dma_avail.write(
      bytes,
      { 'header.id': 3, 'header.version': 1, 'header.next': 72, avail: 65535 },
      56,
    )
    vfio_iommu_type1_info_cap_iova_range.write(
      bytes,
      { 'header.id': 1, 'header.version': 1, 'header.next': 0, nr_iovas: 2 },
      72,
    )
    vfio_iova_range.write(bytes, { start: 0n, end: 0xfedf_ffffn }, 88)
    vfio_iova_range.write(bytes, { start: 0xfef0_0000n, end: 0xffff_ffff_ffff_ffffn }, 104)

    const found = [...capabilities(bytes, vfio_iommu_type1_info.decode(bytes).cap_offset)]

    expect(found).toEqual([
      { id: VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION, version: 1, offset: 24 },
      { id: VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, version: 1, offset: 56 },
      { id: VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, version: 1, offset: 72 },
    ])
    expect(vfio_iommu_type1_info_dma_avail.decode(bytes, 56).avail).toBe(65535)
    expect(vfio_iova_range.decode(bytes, 104).end).toBe(0xffff_ffff_ffff_ffffn)
  })

  test('an offset of 0 is an empty chain', () => {
    expect(idsOf(chain(64), 0)).toEqual([])
  })

  test('follows a chain that runs backwards', () => {
    expect(idsOf(chain(64, [40, 7, 24], [24, 5, 0]), 40)).toEqual([7, 5])
  })

  test('a header that ends with the buffer is inside', () => {
    expect(idsOf(chain(32, [24, 9, 0]), 24)).toEqual([9])
  })

  test('refuses a header that leaves the buffer, after the capabilities before it', () => {
    const walk = capabilities(chain(48, [24, 1, 41]), 24)

    expect(walk.next().value).toMatchObject({ id: 1 })
    expect(() => walk.next()).toThrow(
      new RangeError('Cannot read the capability at 41: the buffer has 48 bytes'),
    )
  })

  test('refuses a chain that returns to itself', () => {
    expect(() => idsOf(chain(64, [24, 1, 24]), 24)).toThrow(
      new RangeError('Cannot walk the capabilities: the chain returns to 24'),
    )
    expect(() => idsOf(chain(64, [24, 1, 40], [40, 2, 24]), 24)).toThrow(RangeError)
  })
})
