/**
 * /dev/vfio/vfio: a container is empty until SET_IOMMU gives it the type1 backend, or the one of no-IOMMU
 * groups, and empty again when its last group leaves. vfio.h: VFIO_GET_API_VERSION, VFIO_CHECK_EXTENSION, VFIO_SET_IOMMU.
 */

import {
  VFIO_API_VERSION,
  VFIO_CHECK_EXTENSION,
  VFIO_GET_API_VERSION,
  VFIO_NOIOMMU_IOMMU,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1_NESTING_IOMMU,
  VFIO_TYPE1v2_IOMMU,
} from '../../../abi/container.ts'
import { ERRNO } from '../../../base/errno.ts'
import type { IoctlArg } from '../../../kernel/port.ts'
import type { Mm } from '../core/mm.ts'
import { type Answer, type Caller, OpenFile } from '../file/open-file.ts'
import type { IommuGroup } from '../iommu/iommu-group.ts'
import type { MachineSpec } from '../spec/machine-spec.ts'
import { checkExtension } from '../type1/extensions.ts'
import type { Type1Parameters } from '../type1/parameters.ts'
import { type1Ioctl } from '../type1/requests.ts'
import { Type1 } from '../type1/type1.ts'
import type { VfioParameters } from './parameters.ts'

export class Container extends OpenFile {
  readonly #machine: MachineSpec
  readonly #parameters: Type1Parameters
  readonly #vfio: VfioParameters
  readonly groups = new Set<IommuGroup>()
  type1: Type1 | undefined
  /** Has the backend of no-IOMMU groups, which maps nothing. Invariant: never beside type1. */
  #isNoIommu = false

  constructor(machine: MachineSpec, parameters: Type1Parameters, vfio: VfioParameters) {
    super()
    this.#vfio = vfio
    this.#parameters = parameters
    this.#machine = machine
  }

  override ioctl(caller: Caller, request: number, arg: IoctlArg): Answer {
    switch (request) {
      case VFIO_GET_API_VERSION.number:
        return VFIO_API_VERSION
      case VFIO_CHECK_EXTENSION.number:
        return this.#checkExtension(Number(arg ?? 0))
      case VFIO_SET_IOMMU.number:
        return this.#setIommu(caller.mm, Number(arg ?? 0))
      default:
        // An empty container knows no request at all, so none is unknown to it.
        if (this.#isNoIommu) return -ERRNO.ENOTTY
        return this.type1 ? type1Ioctl(this.type1, caller, request, arg) : -ERRNO.EINVAL
    }
  }

  get hasBackend(): boolean {
    return this.type1 !== undefined || this.#isNoIommu
  }

  /** Real groups and those without an IOMMU do not mix. */
  takes({ isNoIommu }: IommuGroup): boolean {
    return this.groups.size === 0 || this.#hasNoIommuGroups === isNoIommu
  }

  get #hasNoIommuGroups(): boolean {
    return [...this.groups].some((group) => group.isNoIommu)
  }

  /** An empty container asks every backend; one with groups those that may serve them. */
  #checkExtension(id: number): number {
    const isNoIommu = this.#hasNoIommuGroups
    if (id === VFIO_NOIOMMU_IOMMU && (isNoIommu || this.groups.size === 0))
      return this.#vfio.enablesNoIommu ? 1 : 0
    return isNoIommu ? 0 : checkExtension(id, this.type1, this.#machine)
  }

  removeGroup(group: IommuGroup): void {
    this.groups.delete(group)
    this.type1?.detach(group)
    if (this.groups.size > 0) return
    this.type1 = undefined
    this.#isNoIommu = false
  }

  /** Groups hold references, so none is left by now. */
  protected override release(): void {}

  #setIommu(caller: Mm, id: number): number {
    if (this.groups.size === 0 || this.hasBackend) return -ERRNO.EINVAL
    if (this.#checkExtension(id) <= 0) return -ERRNO.ENODEV
    if (id === VFIO_NOIOMMU_IOMMU) {
      this.#isNoIommu = true
      return 0
    }
    // UNMAP_ALL is an extension that is present, but not a model to open.
    const models = [VFIO_TYPE1_IOMMU, VFIO_TYPE1_NESTING_IOMMU, VFIO_TYPE1v2_IOMMU]
    if (!models.includes(id)) return -ERRNO.EINVAL

    const type1 = new Type1(this.#machine, id === VFIO_TYPE1_IOMMU ? 'v1' : 'v2', this.#parameters)
    type1.isNesting = id === VFIO_TYPE1_NESTING_IOMMU
    const attached: IommuGroup[] = []
    for (const group of this.groups) {
      const answer = type1.attach(group, caller)
      if (answer < 0) {
        for (const other of attached) type1.detach(other)
        return answer
      }
      attached.push(group)
    }
    this.type1 = type1
    return 0
  }
}
