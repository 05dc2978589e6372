/** Every cause that vfiod has a name for; docs/refusals.md lists them. */

import type { Cause } from './cause.ts'
import { DEVICE_CAUSES } from './of-devices.ts'
import { GROUP_CAUSES } from './of-groups.ts'
import { HOST_CAUSES } from './of-host.ts'
import { MAPPING_CAUSES } from './of-mappings.ts'

export const CAUSES = {
  ...GROUP_CAUSES,
  ...MAPPING_CAUSES,
  ...DEVICE_CAUSES,
  ...HOST_CAUSES,
} as const satisfies Record<string, Cause>

export type CauseId = keyof typeof CAUSES
