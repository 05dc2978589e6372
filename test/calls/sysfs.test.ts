/** What is read from sysfs where a host has less than usual. */

import { describe, expect, test } from 'vitest'
import { ERRNO } from '../../src/base/errno.ts'
import type { Kernel } from '../../src/kernel/port.ts'
import { hostDevice, onBusOf, whyNoGroups } from '../../src/kernel/sysfs.ts'

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

describe('the ways to reset a function', () => {
  const PCI = '/sys/bus/pci/devices'
  const ROOT = '../../../devices/pci0000:00'
  const [BRIDGE, FIRST, SECOND] = ['0000:00:09.0', '0000:02:01.0', '0000:02:02.0']

  /** A function on a bus with others, and the methods that the kernel lists for it. */
  const kernel = (methods: string | undefined, others: readonly string[] = []): Kernel => {
    const on = [FIRST, ...others]
    const names = methods === undefined ? [] : ['reset', 'reset_method']
    const folders: Record<string, string[]> = {
      [PCI]: [BRIDGE, ...on],
      [`${PCI}/${BRIDGE}`]: ['vendor', ...on],
      [`${PCI}/${FIRST}`]: ['vendor', ...names],
    }
    const links: Record<string, string> = {
      [`${PCI}/${BRIDGE}`]: `${ROOT}/${BRIDGE}`,
      ...Object.fromEntries(on.map((name) => [`${PCI}/${name}`, `${ROOT}/${BRIDGE}/${name}`])),
      [`${PCI}/${FIRST}/iommu_group`]: '../../../kernel/iommu_groups/7',
    }
    return {
      readDir: async (path: string) => folders[path] ?? -ERRNO.ENOENT,
      readLink: async (path: string) => links[path] ?? -ERRNO.ENOENT,
      readFile: async (path: string) =>
        path.endsWith('reset_method') && methods ? Buffer.from(methods) : -ERRNO.ENOENT,
    } as unknown as Kernel
  }

  test.each([
    ['no method', undefined, [], false],
    ['a function level reset', 'flr bus\n', [SECOND], true],
    ['its bus, where it is alone', 'bus\n', [], true],
    ['its bus, which has others by now', 'bus\n', [SECOND], false],
    ['a method of a kernel that does not name it', '', [SECOND], true],
  ])('by %s', async (_what, methods, others, byItself) => {
    const device = await hostDevice(kernel(methods, others), FIRST)

    expect(device?.resets).toEqual({ byItself, byBus: true })
  })

  test('by its bus hits all that is on it', async () => {
    expect(await onBusOf(kernel('flr', [SECOND]), FIRST)).toEqual([FIRST, SECOND])
    expect(await onBusOf(kernel('flr'), BRIDGE)).toBeUndefined()
  })
})
