/** Devices of the platform, as firmware describes them: members of groups, which no client here opens. */

import { ERRNO } from '../../../base/errno.ts'
import type { GroupMember, IommuGroup } from '../iommu/iommu-group.ts'
import { managesDma } from '../spec/drivers.ts'
import type { PlatformDeviceSpec } from '../spec/machine-spec.ts'

export class PlatformDevice implements GroupMember {
  readonly name: string
  readonly sysfsPath: string
  readonly iommuGroup: IommuGroup
  /** The driver that knows it. */
  readonly #native: string | undefined
  driver: string | undefined

  constructor({ name, driver }: PlatformDeviceSpec, iommuGroup: IommuGroup) {
    this.name = name
    this.sysfsPath = `/sys/devices/platform/${name}`
    this.iommuGroup = iommuGroup
    this.#native = driver
    this.driver = driver
  }

  get usesDefaultDomain(): boolean {
    return this.driver !== undefined && !managesDma(this.driver)
  }

  isKnownTo(driver: string): boolean {
    return this.#native === driver
  }
}

export class PlatformBus {
  readonly devices = new Map<string, PlatformDevice>()
  /** Those that any device had at the start. */
  readonly drivers: readonly string[]

  constructor(specs: readonly PlatformDeviceSpec[], groups: ReadonlyMap<number, IommuGroup>) {
    for (const spec of specs) {
      const group = groups.get(spec.group)
      if (!group) throw new Error(`Cannot place ${spec.name}: there is no group ${spec.group}`)
      const device = new PlatformDevice(spec, group)
      this.devices.set(spec.name, device)
      group.members.add(device)
    }
    this.drivers = [...new Set(specs.flatMap(({ driver }) => driver ?? []))]
  }

  /** A write to a driver's `unbind`. */
  unbind(driver: string, name: string): number {
    const device = this.devices.get(name)
    if (device?.driver !== driver) return -ERRNO.ENODEV
    device.driver = undefined
    return 0
  }

  /** A write to a driver's `bind`. */
  bind(driver: string, name: string): number {
    const device = this.devices.get(name)
    if (!device?.isKnownTo(driver)) return -ERRNO.ENODEV
    if (device.driver !== undefined) return -ERRNO.EBUSY
    if (device.iommuGroup.isClaimed && !managesDma(driver)) return -ERRNO.EBUSY
    device.driver = driver
    return 0
  }
}
