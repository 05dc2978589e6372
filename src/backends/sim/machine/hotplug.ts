/**
 * Functions that come and go while the machine runs. Taking one from the bus (a write to `remove`,
 * or the button of its slot) waits for its driver, and so for who has it open; scanning the bus finds
 * what the hardware has. The kernel's drivers/pci: remove.c, probe.c, pci-sysfs.c.
 */

import { ERRNO } from '../../../base/errno.ts'
import { Lane } from '../../../base/lane.ts'
import type { PciFunction } from '../devices/pci/pci-function.ts'
import type { Answer } from '../file/open-file.ts'
import { isVfioDriver } from '../spec/drivers.ts'
import type { FunctionSpec, SriovSpec } from '../spec/machine-spec.ts'
import type { PciBus } from './pci-bus.ts'

/** kstrtoul() with base 0: one newline may follow. */
const NUMBER = /^\+?(0x[0-9a-f]+|[0-9]+)\n?$/i

/** A place on the bus. */
interface Slot {
  readonly spec: FunctionSpec
  /** Whether the hardware is in it. */
  isFilled: boolean
}

export class Hotplug {
  readonly #bus: PciBus
  /** What is above comes before what is below. */
  readonly #slots: ReadonlyMap<string, Slot>
  /** pci_lock_rescan_remove(): a removal that waits holds up every other removal and scan. */
  readonly #lane = new Lane()

  constructor(functions: readonly FunctionSpec[], bus: PciBus) {
    this.#bus = bus
    const slots = topDown(functions).map(
      (spec): Slot => ({ spec, isFilled: spec.isPlugged !== false }),
    )
    this.#slots = new Map(slots.map((slot) => [slot.spec.address, slot]))
    for (const slot of slots) if (this.#isReachable(slot)) this.#addAtStart(slot.spec)
  }

  has(address: string): boolean {
    return this.#slots.has(address)
  }

  /** A write to a function's `remove`, which is the last that can be made to it. */
  remove(fn: PciFunction, data: string): Answer {
    if (!NUMBER.test(data)) return -ERRNO.EINVAL
    if (Number(data) === 0) return 0
    fn.isLeaving = true
    return this.#lane.run(async () => {
      await this.#take(fn)
      return 0
    })
  }

  /** A write to `rescan`: of the whole bus, or of the bus that a function is on. */
  rescan(data: string, fn?: PciFunction): Answer {
    if (!NUMBER.test(data)) return -ERRNO.EINVAL
    if (Number(data) === 0) return 0
    return this.#lane.run(async () => {
      this.#scan(fn)
      return 0
    })
  }

  /** A write to sriov_numvfs: the driver makes virtual functions, or takes them away. */
  setVfs(fn: PciFunction, data: string): Answer {
    if (!NUMBER.test(data) || Number(data) > 0xffff) return -ERRNO.EINVAL
    const count = Number(data)
    if (count > (fn.spec.sriov?.totalVfs ?? 0)) return -ERRNO.ERANGE
    return this.#bus.locked(fn, () => {
      const { virtualFunctions: present } = fn
      if (count === present.length) return 0
      if (!this.#bus.canEnableVfs(fn)) return -ERRNO.ENOENT
      if (count === 0) return this.#bus.disableVfs(fn).then(() => 0)
      if (present.length > 0) return -ERRNO.EBUSY
      this.#bus.enableVfs(fn, count)
      return 0
    })
  }

  /** The button of the slot: the kernel takes the function from the bus, then its power goes. */
  unplug(address: string): Promise<void> {
    return this.#lane.run(async () => {
      const fn = this.#bus.functions.get(address)
      if (fn) await this.#take(fn)
      for (const slot of this.#below(address)) slot.isFilled = false
    })
  }

  /** The hardware is put into its slot, and the kernel finds it. */
  plug(address: string): Promise<void> {
    return this.#lane.run(async () => {
      const stale = this.#bus.functions.get(address)
      const slots = this.#below(address)
      // What was lost is still on the bus, until it is taken from there.
      if (stale && slots[0]?.isFilled === false) await this.#take(stale)
      for (const slot of slots) slot.isFilled = true
      this.#scan()
    })
  }

  /** The hardware is gone by surprise; the kernel still has the function. */
  lose(address: string): void {
    for (const slot of this.#below(address)) {
      slot.isFilled = false
      const fn = this.#bus.functions.get(slot.spec.address)
      if (!fn) continue
      fn.isLost = true
      fn.config.setBusMaster(false)
      this.#bus.vfioOf(fn)?.lose()
    }
  }

  /** Takes a function and those below it from the bus, the last one first. */
  async #take(fn: PciFunction): Promise<void> {
    const functions = this.#below(fn.name)
      .flatMap(({ spec }) => this.#bus.functions.get(spec.address) ?? [])
      .reverse()
    for (const each of functions) each.isLeaving = true
    for (const each of functions) await this.#bus.detach(each)
    for (const each of functions) if (this.#isOnBus(each)) this.#bus.drop(each)
  }

  #scan(on?: PciFunction): void {
    for (const slot of this.#slots.values()) {
      const { spec } = slot
      if (this.#bus.functions.has(spec.address) || !this.#isReachable(slot)) continue
      if (on && !this.#isOnBusOf(spec, on)) continue
      const { boundDriver: _, ...unbound } = spec
      this.#bus.add(unbound)
      void this.#bus.probe(spec.address)
    }
  }

  #addAtStart(spec: FunctionSpec): void {
    const { boundDriver, ...unbound } = spec
    const isForVfio = boundDriver !== undefined && isVfioDriver(boundDriver)
    const fn = this.#bus.add(isForVfio ? unbound : spec)
    if (isForVfio) this.#bus.giveToVfio(fn, boundDriver)
    else if (boundDriver === undefined)
      for (const driver of this.#bus.drivers) this.#bus.takeById(fn, driver)
    if (spec.sriov && this.#bus.canEnableVfs(fn)) this.#addVfsAtStart(fn, spec.sriov)
  }

  #addVfsAtStart(fn: PciFunction, { numVfs, vf: { boundDriver } }: SriovSpec): void {
    this.#bus.enableVfs(fn, numVfs)
    if (boundDriver === undefined || !isVfioDriver(boundDriver)) return
    for (const vf of fn.virtualFunctions)
      if (vf.driver === undefined) this.#bus.giveToVfio(vf, boundDriver)
  }

  /** Whether the hardware is there, and what it is behind has been found. */
  #isReachable({ spec, isFilled }: Slot): boolean {
    return isFilled && (spec.parent === undefined || this.#bus.functions.has(spec.parent))
  }

  #isOnBus(fn: PciFunction): boolean {
    return this.#bus.functions.get(fn.name) === fn
  }

  /** On the same bus as the function, or behind one that is. */
  #isOnBusOf(spec: FunctionSpec, fn: PciFunction): boolean {
    if (spec.parent === fn.spec.parent) return true
    const parent = spec.parent === undefined ? undefined : this.#slots.get(spec.parent)
    return parent !== undefined && this.#isOnBusOf(parent.spec, fn)
  }

  /** The slot and those behind it, from the top down. */
  #below(address: string): Slot[] {
    const found = new Set([address])
    return [...this.#slots.values()].filter(({ spec }) => {
      const isIn = found.has(spec.address) || (spec.parent !== undefined && found.has(spec.parent))
      if (isIn) found.add(spec.address)
      return isIn
    })
  }
}

/** Every function behind the bridge above it. */
const topDown = (functions: readonly FunctionSpec[]): FunctionSpec[] => {
  const parents = new Map(functions.map(({ address, parent }) => [address, parent]))
  const depth = (address: string): number => {
    const parent = parents.get(address)
    return parent === undefined ? 0 : depth(parent) + 1
  }
  return functions.toSorted((a, b) => depth(a.address) - depth(b.address))
}
