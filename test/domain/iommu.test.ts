/** An address space on a host whose /dev/vfio/vfio is iommufd's: what differs from type1. */

import { beforeEach, describe, expect, test } from 'vitest'
import { COMPAT, TYPE1 } from '../modes.ts'
import { EDU, EDU_GROUP, readySpace, type World, world } from './machine.ts'
import { alice } from './people.ts'

const PAGE = 0x1000n

let at: World

const item = (iova: bigint) => ({
  iova,
  length: PAGE,
  memoryId: 'ram',
  offset: 0n,
  access: 'read-write' as const,
})

const map = async (...iovas: bigint[]) => {
  const batch = { items: iovas.map(item), allOrNothing: false }
  const { errors } = await at.domain.spaces.map(alice, 'space', batch)
  return errors.map((error) => error?.reason)
}

/** A space that is ready in a mode. */
async function start(mode: World['mode']) {
  at = world({}, { mode })
  await at.domain.memories.allocate(alice, { id: 'ram', length: PAGE, hugePage: undefined })
  return readySpace(at, alice)
}

describe('the backend of an address space', () => {
  test('is what stands behind /dev/vfio/vfio', async () => {
    expect((await start(TYPE1)).iommu.kind).toBe('type1')
    expect((await start(COMPAT)).iommu.kind).toBe('iommufd-compat')
  })
})

describe('the container of iommufd', () => {
  beforeEach(() => start(COMPAT))

  test('knows its apertures once a device is open, and keeps to them from then on', async () => {
    const space = at.domain.spaces.owned(alice, 'space')
    const whole = space.apertures
    await at.domain.devices.open(alice, 'space', EDU)

    expect(space.apertures).not.toEqual(whole)
    expect(await map(0xfee0_0000n)).toEqual(['IOVA_OUT_OF_APERTURE'])
  })

  test('pins the mapped pages as a device is opened', async () => {
    await map(0n)
    expect(at.pinned()).toBe(0n)
    await at.domain.devices.open(alice, 'space', EDU)

    expect(at.pinned()).toBe(1n)
  })

  test('limits no number of mappings', () => {
    expect(at.domain.spaces.owned(alice, 'space').mappingsMax).toBeUndefined()
  })

  test('refuses to remap, and says why: REMAP_BLOCKED', async () => {
    await map(0n)
    const refused = at.domain.spaces.invalidate(alice, 'space', { piece: 'all', deadlineMs: 0 })

    await expect(refused).rejects.toMatchObject({ reason: 'REMAP_BLOCKED' })
    await expect(refused).rejects.toThrow('the one of iommufd, which has no VFIO_UPDATE_VADDR')
  })

  test('refuses to track writes by the IOMMU, and says why: UNSUPPORTED', async () => {
    const asked = { iommu: true, devices: [], ranges: [], pageSize: 0n }
    const refused = at.domain.dirty.start(alice, 'space', asked)

    await expect(refused).rejects.toMatchObject({ reason: 'UNSUPPORTED' })
    await expect(refused).rejects.toThrow('which has no VFIO_IOMMU_DIRTY_PAGES')
    expect(at.domain.dirty.view(alice, 'space')).toBeUndefined()
  })

  test('gives up every mapping with the last group, as a type1 container does', async () => {
    await map(0n)
    await at.domain.spaces.removeGroup(alice, 'space', EDU_GROUP)
    await at.domain.spaces.addGroup(alice, 'space', EDU_GROUP)
    await at.domain.devices.open(alice, 'space', EDU)

    expect(at.domain.spaces.owned(alice, 'space').mappings.size).toBe(0)
    expect(at.pinned()).toBe(0n)
    expect(await map(0n)).toEqual([undefined])
  })

  test('unmaps nothing where nothing is mapped', async () => {
    const { errors, bytes } = await at.domain.spaces.unmap(alice, 'space', [item(0n)])

    expect([errors, bytes]).toEqual([[undefined], 0n])
  })
})
