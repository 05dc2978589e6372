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
import { isVfioDriver, managesDma } from '../spec/drivers.ts'
import type { FunctionSpec, MachineSpec } from '../spec/machine-spec.ts'
import { virtualFunctions } from '../spec/sriov.ts'
import { isAtLeast } from '../spec/version.ts'
import type { VfioRegistry } from '../vfio/vfio-registry.ts'
import type { Virqfds } from '../vfio/virqfds.ts'
import { DynamicIds } from './dynamic-ids.ts'

/** The parameters of the module vfio_pci, which root may change at any time. */
export interface VfioPciParameters {
  /** Whether it makes virtual functions of a physical one that it has. */
  enablesSriov: boolean
}

/** What a bus needs of the machine that it is in. */
export interface BusParts {
  readonly groups: ReadonlyMap<number, IommuGroup>
  readonly vfio: VfioRegistry
  readonly pending: Pending
  readonly virqfds: Virqfds
  readonly vfioPci: VfioPciParameters
}

export class PciBus {
  readonly drivers: readonly string[]
  readonly functions = new Map<string, PciFunction>()
  readonly #parts: BusParts
  readonly #hasDynamicMsix: boolean
  readonly #ids = new DynamicIds()
  readonly #devices = new Map<PciFunction, PciDevice>()

  constructor({ drivers, kernelVersion, dynamicIds = [] }: MachineSpec, parts: BusParts) {
    this.drivers = drivers
    for (const { driver, vendor, device } of dynamicIds)
      this.#ids.add(driver, `${vendor.toString(16)} ${device.toString(16)}`)
    this.#parts = parts
    this.#hasDynamicMsix = isAtLeast(kernelVersion, '6.5')
  }

  /** A function is found; what is above it is there already. No driver is asked for it yet. */
  add(spec: FunctionSpec, physicalFunction?: PciFunction): PciFunction {
    const group = this.#parts.groups.get(spec.group)
    if (!group) throw new Error(`Cannot place ${spec.address}: there is no group ${spec.group}`)
    const bridge = spec.parent === undefined ? undefined : this.functions.get(spec.parent)
    const root = spec.address.slice(0, spec.address.lastIndexOf(':'))
    const fn = new PciFunction(spec, group, {
      pending: this.#parts.pending,
      virqfds: this.#parts.virqfds,
      physicalFunction,
      above: bridge?.sysfsPath ?? `/sys/devices/pci${root}`,
      functions: () => this.functions.values(),
      hasDynamicMsix: this.#hasDynamicMsix,
    })
    this.functions.set(spec.address, fn)
    // A no-IOMMU group is there while vfio has the function.
    if (!group.isNoIommu) group.members.add(fn)
    return fn
  }

  /** What add() answered is there no more; no driver has it. */
  drop(fn: PciFunction): void {
    fn.config.setBusMaster(false)
    fn.iommuGroup.members.delete(fn)
    this.functions.delete(fn.name)
  }

  /** It was given to a vfio driver before the machine started. */
  giveToVfio(fn: PciFunction, driver: string): void {
    fn.driverOverride = driver
    this.#probe(fn, driver)
  }

  /** A write to a driver's `new_id`: functions without a driver that it matches get this one. */
  newId(driver: string, text: string): number {
    const added = this.#ids.add(driver, text)
    if (added < 0) return added
    for (const fn of this.functions.values()) this.takeById(fn, driver)
    return 0
  }

  /** A write to `remove_id`. */
  removeId(driver: string, text: string): number {
    return this.#ids.remove(driver, text)
  }

  /** Gives a function without a driver to the one whose dynamic id it has. */
  takeById(fn: PciFunction, driver: string): void {
    const isFree = fn.driver === undefined && fn.driverOverride === undefined
    if (isFree && this.#ids.matches(driver, fn.spec)) this.#probe(fn, driver)
  }

  /** A write to drivers_probe: a function without a driver gets one that matches, if any does. */
  probe(address: string): Answer {
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
  bind(driver: string, address: string): Answer {
    const fn = this.functions.get(address)
    if (!fn || !this.#matches(fn, driver)) return -ERRNO.ENODEV
    return this.locked(fn, () => (fn.driver === undefined ? this.#probe(fn, driver) : -ERRNO.EBUSY))
  }

  /** A write to a driver's `unbind`: vfio-pci waits until no process has the device open. */
  unbind(driver: string, address: string): Answer {
    const fn = this.functions.get(address)
    if (fn?.driver !== driver) return -ERRNO.ENODEV
    return this.detach(fn)
  }

  /** Its driver leaves it, if it has one: device_release_driver() of the kernel. */
  detach(fn: PciFunction): Answer {
    return this.locked(fn, () => {
      const device = this.#devices.get(fn)
      if (device) return this.#unbind(fn, this.#leaveVfio(fn, device))
      // The driver of a physical function takes its virtual ones away before it leaves.
      if (fn.virtualFunctions.length > 0) return this.#unbind(fn, this.disableVfs(fn))
      fn.driver = undefined
      return 0
    })
  }

  /** Acts once nothing else changes the function: the lock of a device in the kernel. */
  locked(fn: PciFunction, act: () => Answer): Answer {
    if (fn.busy) return fn.busy.then(() => this.locked(fn, act))
    const answer = act()
    if (typeof answer === 'number') return answer
    const done = answer.then(() => {
      fn.busy = undefined
    })
    fn.busy = done
    return done.then(() => answer)
  }

  /** Whether the driver of a physical function makes virtual ones. */
  canEnableVfs({ driver }: PciFunction): boolean {
    if (driver === undefined) return false
    return !isVfioDriver(driver) || this.#parts.vfioPci.enablesSriov
  }

  /** Makes the first virtual functions of a physical one, and finds drivers for them. */
  enableVfs(fn: PciFunction, count: number): void {
    for (const spec of virtualFunctions(fn.spec).slice(0, count)) {
      const vf = this.add(spec, fn)
      fn.virtualFunctions.push(vf)
      // vfio_pci_bus_notifier(): a physical function of user space has no virtual ones of the kernel.
      if (fn.driver !== undefined && isVfioDriver(fn.driver)) vf.driverOverride = fn.driver
      void this.probe(vf.name)
    }
  }

  /** Takes them from the bus, the last one first, once no process has them open. */
  async disableVfs(fn: PciFunction): Promise<void> {
    for (const vf of fn.virtualFunctions.toReversed()) {
      vf.isLeaving = true
      await this.detach(vf)
      this.drop(vf)
    }
    fn.virtualFunctions.length = 0
  }

  /** The vfio device of a function, for sysfs. */
  vfioOf(fn: PciFunction): PciDevice | undefined {
    return this.#devices.get(fn)
  }

  async #unbind(fn: PciFunction, left: Promise<void>): Promise<number> {
    fn.isUnbinding = true
    await left
    fn.isUnbinding = false
    fn.driver = undefined
    return 0
  }

  async #leaveVfio(fn: PciFunction, device: PciDevice): Promise<void> {
    if (fn.virtualFunctions.length > 0) await this.disableVfs(fn)
    await this.#parts.vfio.unregister(device)
    this.#devices.delete(fn)
    fn.vfio = undefined
    if (fn.iommuGroup.isNoIommu) fn.iommuGroup.members.delete(fn)
  }

  #matches(fn: PciFunction, driver: string): boolean {
    if (fn.driverOverride !== undefined) return fn.driverOverride === driver
    return fn.spec.nativeDriver === driver || this.#ids.matches(driver, fn.spec)
  }

  #probe(fn: PciFunction, driver: string): number {
    if (isVfioDriver(driver)) {
      // A bridge keeps its own driver: vfio drivers take only functions with a normal header.
      if (fn.spec.isBridge) return -ERRNO.EINVAL
      if (fn.iommuGroup.isNoIommu) {
        if (!this.#parts.vfio.parameters.enablesNoIommu) return -ERRNO.EINVAL
        fn.iommuGroup.members.add(fn)
      }
      fn.driver = driver
      const device = this.#parts.vfio.register(
        fn.iommuGroup,
        (group, index) => new PciDevice(fn, this.#parts.virqfds, group, index),
      )
      this.#devices.set(fn, device)
      fn.vfio = device
      return 0
    }
    if (fn.iommuGroup.isClaimed && !managesDma(driver)) return -ERRNO.EBUSY
    fn.driver = driver
    fn.config.setBusMaster(true)
    return 0
  }
}
