/** Every request of the headers in one list, for what goes by numbers and names: traces, faults. */

import type { FdKind } from '../base/units.ts'
import * as container from './container.ts'
import * as device from './device.ts'
import * as feature from './feature.ts'
import * as group from './group.ts'
import type { Ioctl } from './ioctl.ts'
import * as iommufd from './iommufd.ts'
import * as iommufdLater from './iommufd-later.ts'
import * as migV2 from './mig-v2.ts'

const isRequest = (value: unknown): value is Ioctl<FdKind> =>
  typeof value === 'object' && value !== null && 'cName' in value && 'number' in value

export const REQUESTS: readonly Ioctl<FdKind>[] = [
  container,
  device,
  feature,
  group,
  iommufd,
  iommufdLater,
  migV2,
].flatMap((header) => Object.values(header as Readonly<Record<string, unknown>>).filter(isRequest))
