/** What is read from sysfs where a host has less than usual. */

import { describe, expect, test } from 'vitest'
import { ERRNO } from '../../src/base/errno.ts'
import type { Kernel } from '../../src/kernel/port.ts'
import { whyNoGroups } from '../../src/kernel/sysfs.ts'

/** A kernel of folders alone. */
const withFolders = (folders: Readonly<Record<string, string[]>>): Kernel =>
  ({ readDir: async (path: string) => folders[path] ?? -ERRNO.ENOENT }) as unknown as Kernel

describe('a host without IOMMU groups', () => {
  test.each([
    ['a kernel without IOMMU support', {}, /is not there: the kernel has no IOMMU support/],
    [
      'an IOMMU that is switched off',
      { '/sys/kernel/iommu_groups': [] },
      /the kernel drives no IOMMU: switch on VT-d, AMD-Vi or the SMMU in the firmware/,
    ],
    [
      'an IOMMU that is switched off, with an empty class',
      { '/sys/kernel/iommu_groups': [], '/sys/class/iommu': [] },
      /intel_iommu=on$/,
    ],
    [
      'an IOMMU with nothing behind it',
      { '/sys/kernel/iommu_groups': [], '/sys/class/iommu': ['dmar0', 'dmar1'] },
      /^no device is behind dmar0 and dmar1$/,
    ],
  ])('is explained: %s', async (_what, folders, why) => {
    expect(await whyNoGroups(withFolders(folders))).toMatch(why)
  })
})
