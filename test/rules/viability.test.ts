import { describe, expect, test } from 'vitest'
import { blockersOf, isVfioDriver, type Member, viabilityOf } from '../../src/rules/viability.ts'

const pci = (name: string, driver?: string): Member => ({ name, bus: 'pci', driver })

describe('VFIO_GROUP_FLAGS_VIABLE', () => {
  test('a group is viable when every device has a VFIO driver', () => {
    expect(viabilityOf([pci('a', 'vfio-pci'), pci('b', 'mlx5_vfio_pci')])).toBe('viable')
  })

  test('a device without a driver keeps it viable', () => {
    expect(viabilityOf([pci('a', 'vfio-pci'), pci('b')])).toBe('viable')
  })

  test('a bridge on pcieport and a device on pci-stub keep it viable', () => {
    const group = [pci('a', 'pcieport'), pci('b', 'pci-stub'), pci('c', 'vfio-pci')]

    expect(viabilityOf(group)).toBe('viable')
    expect(blockersOf(group)).toEqual([])
  })

  test('a device that another driver holds makes it not viable, and is named with its driver', () => {
    const group = [pci('a', 'vfio-pci'), pci('b', 'snd_hda_intel')]

    expect(viabilityOf(group)).toBe('not-viable')
    expect(blockersOf(group)).toEqual([
      {
        subject: 'b',
        found: 'bound to snd_hda_intel',
        fix: 'bind it to vfio-pci or leave it without a driver',
      },
    ])
  })

  test('without a VFIO driver there is nothing to open', () => {
    expect(viabilityOf([pci('a'), pci('b', 'pcieport')])).toBe('not-bound')
    expect(viabilityOf([])).toBe('not-bound')
  })

  test('a mediated device has the VFIO driver that made it, whatever its name', () => {
    expect(isVfioDriver({ name: 'uuid', bus: 'mdev', driver: 'mtty' })).toBe(true)
    expect(isVfioDriver({ name: 'uuid', bus: 'mdev', driver: undefined })).toBe(false)
    expect(isVfioDriver(pci('a', 'mtty'))).toBe(false)
  })
})
