/** Mediated devices: their parents, the types a parent makes, and what has been made. */

import { ERRNO } from '../../../base/errno.ts'
import { MttyDevice } from '../devices/mtty/mtty-device.ts'
import { PinningDevice } from '../devices/pinning-device.ts'
import type { Answer } from '../file/open-file.ts'
import { type GroupMember, IommuGroup } from '../iommu/iommu-group.ts'
import type { MachineSpec, MdevParentSpec, MdevTypeSpec } from '../spec/machine-spec.ts'
import type { VfioDevice } from '../vfio/vfio-device.ts'
import type { VfioRegistry } from '../vfio/vfio-registry.ts'

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

export interface Mdev extends GroupMember {
  readonly uuid: string
  readonly parent: MdevParentSpec
  readonly type: MdevTypeSpec
  readonly iommuGroup: IommuGroup
  readonly device: VfioDevice
}

export class MdevBus {
  readonly parents: readonly MdevParentSpec[]
  readonly mdevs = new Map<string, Mdev>()
  readonly #vfio: VfioRegistry
  readonly #groups: Map<number, IommuGroup>

  constructor(
    { mdevParents, mdevs }: MachineSpec,
    machine: { readonly groups: Map<number, IommuGroup>; readonly vfio: VfioRegistry },
  ) {
    this.parents = mdevParents
    this.#vfio = machine.vfio
    this.#groups = machine.groups
    for (const { uuid, parent: name, type: id } of mdevs) {
      const parent = mdevParents.find((candidate) => candidate.name === name)
      const type = parent?.types.find((candidate) => candidate.id === id)
      const made = parent && type ? this.create(parent, type, uuid) : -ERRNO.ENODEV
      if (made < 0) throw new Error(`Cannot make the mdev ${uuid}: ${name} has no ${id} left`)
    }
  }

  available(parent: MdevParentSpec, type: MdevTypeSpec): number {
    return Math.floor(this.#freePorts(parent) / type.ports)
  }

  /** A write to a type's `create`. */
  create(parent: MdevParentSpec, type: MdevTypeSpec, text: string): number {
    if (!UUID.test(text)) return -ERRNO.EINVAL
    const uuid = text.toLowerCase()
    if (this.mdevs.has(uuid)) return -ERRNO.EEXIST
    if (this.#freePorts(parent) < type.ports) return -ERRNO.ENOSPC

    const iommuGroup = this.#newGroup()
    const device = this.#vfio.register(iommuGroup, (group, index) =>
      parent.kind === 'mtty'
        ? new MttyDevice(uuid, type.ports, group, index)
        : new PinningDevice(uuid, group, index),
    )
    const sysfsPath = `/sys/devices/virtual/${parent.kind}/${parent.name}/${uuid}`
    const mdev: Mdev = {
      uuid,
      name: uuid,
      sysfsPath,
      parent,
      type,
      iommuGroup,
      device,
      usesDefaultDomain: false,
    }
    iommuGroup.members.add(mdev)
    this.mdevs.set(uuid, mdev)
    return 0
  }

  /** A write to an instance's `remove`: waits until no process has it open. */
  remove(mdev: Mdev, value: string): Answer {
    if (!/^\s*(0x[0-9a-f]+|[0-9]+)\s*$/i.test(value)) return -ERRNO.EINVAL
    // 0 is understood, and means: do not.
    return Number(value) === 0 ? 0 : this.#removeNow(mdev)
  }

  async #removeNow(mdev: Mdev): Promise<number> {
    await this.#vfio.unregister(mdev.device)
    this.mdevs.delete(mdev.uuid)
    this.#groups.delete(mdev.iommuGroup.id)
    return 0
  }

  #freePorts(parent: MdevParentSpec): number {
    const used = [...this.mdevs.values()]
      .filter((mdev) => mdev.parent === parent)
      .reduce((ports, { type }) => ports + type.ports, 0)
    return parent.poolPorts - used
  }

  #newGroup(): IommuGroup {
    let id = 0
    while (this.#groups.has(id)) id += 1
    const group = new IommuGroup({ id, reserved: [] }, undefined)
    this.#groups.set(id, group)
    return group
  }
}
