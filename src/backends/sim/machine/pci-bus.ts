/**
 * The PCI bus and its drivers: which driver may have a function, and binding and unbinding it as
 * writing to sysfs does.
 */

import { ERRNO } from '../../../base/errno.ts'
import type { Pending } from '../core/pending.ts'
import { PciDevice } from '../devices/pci/pci-device.ts'
import { PciFunction } from '../devices/pci/pci-function.ts'
import type { Answer } from '../file/open-file.ts'
import type { IommuGroup } from '../iommu/iommu-group.ts'
import type { MachineSpec } from '../spec/machine-spec.ts'
import { isAtLeast } from '../spec/version.ts'
import type { VfioRegistry } from '../vfio/vfio-registry.ts'
import type { Virqfds } from '../vfio/virqfds.ts'

const VFIO_PCI = 'vfio-pci'

export class PciBus {
  readonly drivers: readonly string[]
  readonly functions = new Map<string, PciFunction>()
  readonly #vfio: VfioRegistry
  readonly #virqfds: Virqfds
  readonly #devices = new Map<PciFunction, PciDevice>()

  constructor(
    { drivers, functions, kernelVersion }: MachineSpec,
    machine: {
      readonly groups: ReadonlyMap<number, IommuGroup>
      readonly vfio: VfioRegistry
      readonly pending: Pending
      readonly virqfds: Virqfds
    },
  ) {
    this.drivers = drivers
    this.#vfio = machine.vfio
    this.#virqfds = machine.virqfds
    for (const spec of functions) {
      const group = machine.groups.get(spec.group)
      if (!group) throw new Error(`Cannot place ${spec.address}: there is no group ${spec.group}`)
      const { boundDriver, ...unbound } = spec
      const fn = new PciFunction(boundDriver === VFIO_PCI ? unbound : spec, group, {
        pending: machine.pending,
        virqfds: machine.virqfds,
        functions: () => this.functions.values(),
        hasDynamicMsix: isAtLeast(kernelVersion, '6.5'),
      })
      this.functions.set(spec.address, fn)
      group.members.add(fn)
      if (boundDriver === VFIO_PCI) {
        fn.driverOverride = VFIO_PCI
        this.#probe(fn, VFIO_PCI)
      }
    }
  }

  /** A write to drivers_probe: a function without a driver gets one that matches, if any does. */
  probe(address: string): number {
    const fn = this.functions.get(address)
    if (!fn) return -ERRNO.ENODEV
    if (fn.driver !== undefined) return 0
    for (const driver of this.drivers.filter((name) => this.#matches(fn, name))) {
      const answer = this.#probe(fn, driver)
      if (answer === -ERRNO.EBUSY) return -ERRNO.EINVAL
      // A driver that does not want the function leaves it to the next one.
      if (answer === 0) return 0
    }
    return 0
  }

  /** A write to a driver's `bind`. */
  bind(driver: string, address: string): number {
    const fn = this.functions.get(address)
    if (!fn || !this.#matches(fn, driver)) return -ERRNO.ENODEV
    if (fn.driver !== undefined) return -ERRNO.EBUSY
    return this.#probe(fn, driver)
  }

  /** A write to a driver's `unbind`: vfio-pci waits until no process has the device open. */
  unbind(driver: string, address: string): Answer {
    const fn = this.functions.get(address)
    if (fn?.driver !== driver) return -ERRNO.ENODEV
    const device = this.#devices.get(fn)
    if (!device) {
      fn.driver = undefined
      return 0
    }
    return this.#removeFromVfio(fn, device)
  }

  async #removeFromVfio(fn: PciFunction, device: PciDevice): Promise<number> {
    await this.#vfio.unregister(device)
    this.#devices.delete(fn)
    fn.vfio = undefined
    fn.driver = undefined
    return 0
  }

  #matches(fn: PciFunction, driver: string): boolean {
    if (fn.driverOverride !== undefined) return fn.driverOverride === driver
    return fn.spec.nativeDriver === driver
  }

  #probe(fn: PciFunction, driver: string): number {
    if (driver === VFIO_PCI) {
      // A bridge keeps its own driver: vfio-pci takes only functions with a normal header.
      if (fn.spec.isBridge) return -ERRNO.EINVAL
      fn.driver = driver
      const device = this.#vfio.register(
        fn.iommuGroup,
        (group, index) => new PciDevice(fn, this.#virqfds, group, index),
      )
      this.#devices.set(fn, device)
      fn.vfio = device
      return 0
    }
    if (fn.iommuGroup.isClaimed && driver !== 'pcieport') return -ERRNO.EBUSY
    fn.driver = driver
    fn.config.setBusMaster(true)
    return 0
  }

  /** The vfio device of a function, for sysfs. */
  vfioOf(fn: PciFunction): PciDevice | undefined {
    return this.#devices.get(fn)
  }
}
