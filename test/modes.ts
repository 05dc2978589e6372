/**
 * What stands behind an address space, after iommu_modes[] of the kernel's selftests/vfio: suites of
 * the contract, the domain and the whole system run over this table. A mode that a suite is not
 * asked in is skipped by name, with the reason.
 *
 * On the simulator a mode is the machine's `vfio_container`. On a real kernel it is what its
 * /dev/vfio/vfio is, which the test machine decides (VFIOD_VFIO_CONTAINER): suites of the daemon run
 * in that mode alone. Contract suites open the node that a mode names, so they run in all.
 */

import { describe, test } from 'vitest'

export interface Mode {
  readonly name: string
  /** `vfio_container` of a simulated machine. */
  readonly vfioContainer: 'type1' | 'iommufd'
  /** What opens a container on a real kernel whose /dev/vfio/vfio is type1's. */
  readonly node: '/dev/vfio/vfio' | '/dev/iommu'
}

export const TYPE1 = {
  name: 'type1v2',
  vfioContainer: 'type1',
  node: '/dev/vfio/vfio',
} as const satisfies Mode
export const COMPAT = {
  name: 'compat_type1v2',
  vfioContainer: 'iommufd',
  node: '/dev/iommu',
} as const satisfies Mode
export const MODES = [TYPE1, COMPAT] as const
export type ModeName = (typeof MODES)[number]['name']

/** Why a suite is not asked in a mode. */
export type ModeSkips = Readonly<Partial<Record<ModeName, string>>>

export const skipSuite = (name: string, why: string): void => {
  describe.skip(`${name} (skipped: ${why})`, () => {
    test('is not asked', () => {})
  })
}

const isReal = process.env.VFIOD_BACKENDS === 'linux'
const REAL_CONTAINER = process.env.VFIOD_VFIO_CONTAINER ?? 'type1'

/** The same suite of the domain or of the whole system in every mode that the machine has. */
export const describeModes = (
  name: string,
  body: (mode: Mode) => void,
  skips: ModeSkips = {},
): void => {
  for (const mode of MODES) {
    const full = `${name} [${mode.name}]`
    const why = skips[mode.name]
    if (why !== undefined) skipSuite(full, why)
    else if (isReal && mode.vfioContainer !== REAL_CONTAINER)
      skipSuite(full, `/dev/vfio/vfio of this machine is that of ${REAL_CONTAINER}`)
    else describe(full, () => body(mode))
  }
}
