/** The open devices: by name, and by the address space that they are open in. */

import { Multimap } from './multimap.ts'
import type { ConditionKind, DeviceCondition, DeviceRecord } from './records.ts'

export class DeviceTable {
  readonly #devices = new Map<string, DeviceRecord>()
  readonly #bySpace = new Multimap<string, string>()

  get(name: string): DeviceRecord | undefined {
    return this.#devices.get(name)
  }

  all(): DeviceRecord[] {
    return [...this.#devices.values()]
  }

  /** Those of one address space, in the order of their opening. */
  of(spaceId: string): DeviceRecord[] {
    return this.#bySpace.of(spaceId).map((name) => this.#devices.get(name) as DeviceRecord)
  }

  add(device: DeviceRecord): void {
    this.#devices.set(device.name, device)
    this.#bySpace.add(device.spaceId, device.name)
  }

  remove({ name, spaceId }: DeviceRecord): void {
    this.#devices.delete(name)
    this.#bySpace.delete(spaceId, name)
  }

  /** In the place of a condition of the same kind. */
  setCondition(name: string, condition: DeviceCondition): void {
    this.clearCondition(name, condition.kind)
    const device = this.require(name)
    this.#devices.set(name, { ...device, conditions: [...device.conditions, condition] })
  }

  clearCondition(name: string, kind: ConditionKind): void {
    const device = this.require(name)
    const conditions = device.conditions.filter((each) => each.kind !== kind)
    this.#devices.set(name, { ...device, conditions })
  }

  /** A change that names what is not there is a bug of the daemon. */
  require(name: string): DeviceRecord {
    const found = this.#devices.get(name)
    if (found === undefined) throw new Error(`the state has no open device "${name}"`)
    return found
  }
}
