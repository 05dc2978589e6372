/** A device behind an IOMMU that is bound to an iommufd: it owns the DMA of its group. */

import { ERRNO } from '../../../base/errno.ts'
import type { IommuGroup } from '../iommu/iommu-group.ts'
import { AttachedGroup } from './attached-group.ts'
import type { Binding } from './binding.ts'
import type { IommufdContext } from './context.ts'
import { Hwpt, HwptPaging } from './hwpt.ts'
import { Ioas } from './ioas.ts'
import { IommufdObject } from './objects.ts'

const PLAIN = { tracksDirty: false, isNestParent: false }

/** -EPERM where interrupts are not isolated or another owner has the group. */
export const bindPhysical = (
  context: IommufdContext,
  iommuGroup: IommuGroup,
): PhysicalDevice | number => {
  const { iommu } = iommuGroup
  if (iommu === undefined) return -ERRNO.ENODEV
  if (iommu.model?.isolatesInterrupts === false && !context.parameters.allowsUnsafeInterrupts)
    return -ERRNO.EPERM
  const claimed = iommuGroup.claimFor(context)
  if (claimed < 0) return claimed
  const group = context.groups.get(iommuGroup) ?? new AttachedGroup(iommuGroup, iommu)
  context.groups.set(iommuGroup, group)
  context.file.get()
  return context.objects.insert(new PhysicalDevice(context, group))
}

export class PhysicalDevice extends IommufdObject implements Binding {
  readonly #context: IommufdContext
  readonly group: AttachedGroup
  #isAttached = false

  constructor(context: IommufdContext, group: AttachedGroup) {
    super()
    this.#context = context
    this.group = group
    // The driver is a user until it unbinds.
    this.users = 1
  }

  attach(ptId: number): number {
    const found = this.#context.objects.find(ptId, IommufdObject)
    if (found === undefined) return -ERRNO.ENOENT
    let hwpt: Hwpt | number
    if (found instanceof Hwpt) hwpt = this.#move(found)
    else if (found instanceof Ioas) hwpt = this.#attachToIoas(found)
    else hwpt = -ERRNO.EINVAL
    if (typeof hwpt === 'number') return hwpt
    if (!this.#isAttached) this.users += 1
    this.#isAttached = true
    return hwpt.id
  }

  detach(): void {
    if (!this.#isAttached) return
    this.#isAttached = false
    this.users -= 1
    this.#abandon(this.group.detach(this))
  }

  unbind(): void {
    this.detach()
    this.users -= 1
    this.#context.objects.remove(this)
  }

  override destroy(): void {
    const { iommuGroup } = this.group
    if (!iommuGroup.unclaimFor(this.#context)) this.#context.groups.delete(iommuGroup)
    this.#context.file.put()
  }

  /** To a hwpt, from none or from another one: the hwpt, or -errno. */
  #move(hwpt: Hwpt): Hwpt | number {
    if (!this.#isAttached) {
      const attached = this.group.attach(this, hwpt)
      return attached < 0 ? attached : hwpt
    }
    const old = this.group.replace(this, hwpt)
    if (typeof old === 'number') return old
    if (old) this.#abandon(old)
    return hwpt
  }

  /** To the first hwpt of the ioas that suits, or to a new one. */
  #attachToIoas(ioas: Ioas): Hwpt | number {
    for (const hwpt of ioas.hwpts) {
      if (!(hwpt instanceof HwptPaging) || !hwpt.isAuto) continue
      const moved = this.#move(hwpt)
      // -EINVAL means another one may suit.
      if (moved !== -ERRNO.EINVAL) return moved
    }
    // It has its id before the hwpt that it replaces gives one back.
    const hwpt = this.#context.objects.insert(new HwptPaging(ioas, this.group.iommu, PLAIN))
    const refused = this.#isAttached ? this.#replaceByNew(hwpt) : this.#attachToNew(hwpt)
    if (refused < 0) {
      this.#context.objects.remove(hwpt)
      return refused
    }
    hwpt.isAuto = true
    return hwpt
  }

  #attachToNew(hwpt: HwptPaging): number {
    const attached = this.group.attach(this, hwpt)
    if (attached < 0) return attached
    const populated = hwpt.populate()
    if (populated < 0) this.group.detach(this)
    return populated
  }

  #replaceByNew(hwpt: HwptPaging): number {
    const populated = hwpt.populate()
    if (populated < 0) return populated
    const moved = this.#move(hwpt)
    return typeof moved === 'number' ? moved : 0
  }

  /** The client did not ask for an automatic hwpt and will not destroy it, so it goes with its last user. */
  #abandon(hwpt: Hwpt): void {
    if (hwpt instanceof HwptPaging && hwpt.isAuto && hwpt.users === 0)
      this.#context.objects.remove(hwpt)
  }
}
