/** Sequences that someone wrote, each for a rule; they are recorded with the random ones. */

import { group } from './directed/group.ts'
import { iommufd } from './directed/iommufd.ts'
import { irq } from './directed/irq.ts'
import { migration } from './directed/migration.ts'
import type { Directed } from './directed/steps.ts'
import { type1 } from './directed/type1.ts'

export const directed: Readonly<Record<string, readonly Directed[]>> = {
  type1,
  group,
  migration,
  irq,
  iommufd,
}
