// The machine of this folder has no IOMMU, because only then iommufd offers its mock domain.

import { existsSync, readdirSync } from 'node:fs'
import { expect, test } from 'vitest'

test('the mock machine has the mock IOMMU of iommufd and no other', () => {
  expect(readdirSync('/sys/class/iommu')).toEqual(['iommufd_selftest_iommu.0'])
})

test('the mock machine has no group of a PCI device', () => {
  const devices = readdirSync('/sys/bus/pci/devices')

  const grouped = devices.filter((name) => existsSync(`/sys/bus/pci/devices/${name}/iommu_group`))

  expect(grouped).toEqual([])
})
