/**
 * The devices of the vfio drivers: each registered device has its own number, and a group
 * node exists as long as a device of the group is registered.
 */

import type { Pending } from '../core/pending.ts'
import type { IommuGroup } from '../iommu/iommu-group.ts'
import { VfioGroup } from './group.ts'
import type { VfioParameters } from './parameters.ts'
import type { VfioDevice } from './vfio-device.ts'

/** How often a user is asked again for a device that its driver is to leave; Linux does every 10 s. */
const REQUEST_STEPS = 100

export class VfioRegistry {
  readonly parameters: VfioParameters
  readonly #pending: Pending
  readonly groups = new Map<number, VfioGroup>()
  /** By the number that each has, until its driver has left it. */
  readonly devices = new Map<number, VfioDevice>()

  constructor(pending: Pending, parameters: VfioParameters) {
    this.parameters = parameters
    this.#pending = pending
  }

  register<Device extends VfioDevice>(
    iommuGroup: IommuGroup,
    make: (group: VfioGroup, index: number) => Device,
  ): Device {
    const group = this.groups.get(iommuGroup.id) ?? new VfioGroup(iommuGroup)
    this.groups.set(iommuGroup.id, group)
    let index = 0
    while (this.devices.has(index)) index += 1
    const device = make(group, index)
    this.devices.set(index, device)
    group.devices.add(device)
    return device
  }

  /**
   * Waits until no process has the device open, and requests it meanwhile (the REQ interrupt). From
   * the start on no process can open it: its group does not know it, and its cdev has no node.
   */
  async unregister(device: VfioDevice): Promise<void> {
    const { group } = device
    device.isRegistered = false
    group.devices.delete(device)
    if (device.isOpen) {
      device.request()
      let steps = 0
      const stopAsking = this.#pending.watch(() => {
        steps += 1
        if (steps % REQUEST_STEPS === 0) device.request()
        return false
      })
      await device.whenClosed()
      stopAsking()
    }
    this.devices.delete(device.index)
    if ([...this.devices.values()].some((other) => other.group === group)) return
    group.vanish()
    this.groups.delete(group.iommuGroup.id)
  }
}
