/** The areas of the conformance run. */

import type { Area } from './areas/area.ts'
import { groups } from './areas/group.ts'
import { type1 } from './areas/type1.ts'

export const areas: readonly Area[] = [type1, groups]
