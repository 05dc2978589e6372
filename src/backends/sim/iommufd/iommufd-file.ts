/**
 * /dev/iommu, and /dev/vfio/vfio of a kernel with CONFIG_IOMMUFD_VFIO_CONTAINER: each open is an
 * iommufd. Its requests are those of iommufd.h, and those of a container.
 */

import type { IoctlArg } from '../../../kernel/port.ts'
import { type Answer, type Caller, OpenFile } from '../file/open-file.ts'
import { isAtLeast } from '../spec/version.ts'
import type { Operation } from './command.ts'
import type { IommufdMachine, RlimitMode } from './context.ts'
import { IommufdContext } from './context.ts'
import { dirtyRequests } from './dirty-requests.ts'
import { hwInfoRequest } from './hw-info-request.ts'
import { hwptRequests } from './hwpt-requests.ts'
import { iovaRequests } from './iova-requests.ts'
import { laterRequests } from './later-requests.ts'
import { mapRequests } from './map-requests.ts'
import { objectRequests } from './object-requests.ts'
import { optionRequests } from './option-requests.ts'
import { compatIoctl } from './vfio-compat.ts'

const OPERATIONS: ReadonlyMap<number, Operation> = new Map(
  [
    ...objectRequests,
    ...iovaRequests,
    ...mapRequests,
    ...optionRequests,
    ...hwptRequests,
    hwInfoRequest,
    ...dirtyRequests,
    ...laterRequests,
  ].map((operation) => [operation.request, operation]),
)

export class IommufdFile extends OpenFile {
  readonly context: IommufdContext

  constructor(machine: IommufdMachine, accountMode: RlimitMode = 'user') {
    super()
    this.context = new IommufdContext(machine, { file: this, accountMode })
  }

  override ioctl(caller: Caller, request: number, arg: IoctlArg): Answer {
    const operation = OPERATIONS.get(request)
    const { machine } = this.context
    return operation && isAtLeast(machine.kernelVersion, operation.since)
      ? operation.run(this.context, caller, arg)
      : compatIoctl(this.context, caller, request, arg)
  }

  /** Bound devices keep the file, so what is left is not in use by hardware. */
  protected override release(): void {
    this.context.objects.destroyAll()
  }
}
