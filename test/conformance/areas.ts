/** The areas of the conformance run. */

import type { Area } from './areas/area.ts'
import { features } from './areas/feature.ts'
import { groups } from './areas/group.ts'
import { iommufd } from './areas/iommufd.ts'
import { irqs } from './areas/irq.ts'
import { migration } from './areas/migration.ts'
import { type1 } from './areas/type1.ts'

export const areas: readonly Area[] = [type1, groups, migration, irqs, features, iommufd]
