// The test machine is the one that every other kernel test counts on.

import { existsSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { release } from 'node:os'
import { basename } from 'node:path'
import { describe, expect, test } from 'vitest'

const pci = (address: string) => `/sys/bus/pci/devices/0000:${address}`
const groupOf = (address: string) => basename(readlinkSync(`${pci(address)}/iommu_group`))
const driverOf = (address: string) => basename(readlinkSync(`${pci(address)}/driver`))

function idOf(address: string): string {
  const read = (name: string) =>
    readFileSync(`${pci(address)}/${name}`, 'utf8')
      .trim()
      .slice(2)
  return `${read('vendor')}:${read('device')}`
}

describe('test machine', () => {
  test('runs Linux 6.12', () => {
    expect(release()).toMatch(/^6\.12\./)
  })

  test.each(['/dev/vfio/vfio', '/dev/iommu'])('has %s', (path) => {
    expect(statSync(path).isCharacterDevice()).toBe(true)
  })

  test('has two edu devices, each in a separate group', () => {
    const edu = ['00:04.0', '00:05.0']

    expect(edu.map(idOf)).toEqual(['1234:11e8', '1234:11e8'])
    expect(new Set([...edu, '00:06.0'].map(groupOf)).size).toBe(3)
  })

  test('has one group of three chipset functions, one of which a driver owns', () => {
    const chipset = ['00:1f.0', '00:1f.2', '00:1f.3']

    expect(new Set(chipset.map(groupOf)).size).toBe(1)
    expect(driverOf('00:1f.3')).toBe('i801_smbus')
  })

  test('has network cards that their own driver owns, two of them in one group', () => {
    const cards = ['00:07.0', '01:00.0', '01:00.1']

    expect(cards.map(driverOf)).toEqual(['e1000e', 'e1000e', 'e1000e'])
    expect(groupOf('01:00.0')).toBe(groupOf('01:00.1'))
    expect(groupOf('00:07.0')).not.toBe(groupOf('01:00.0'))
  })

  test('has the parent of migratable mediated devices', () => {
    expect(existsSync('/sys/class/mdev_bus/mtty/mdev_supported_types/mtty-2/create')).toBe(true)
  })

  test('has iommufd and type1 side by side', () => {
    expect(existsSync('/sys/module/vfio_iommu_type1')).toBe(true)
    expect(existsSync('/sys/class/vfio-dev')).toBe(true)
  })
})
