/** The open devices, by name and by address space, and who used the ones that were not reset since. */

import { Multimap } from './multimap.ts'
import type { ConditionKind, DeviceCondition, DeviceRecord, OwnerRecord } from './records.ts'

export class DeviceTable {
  readonly #devices = new Map<string, DeviceRecord>()
  readonly #bySpace = new Multimap<string, string>()
  /** By device: who used it last, until it is reset. */
  readonly #users = new Map<string, OwnerRecord>()

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

  /** Who has used it since its last reset; an open device is in use. */
  lastUserOf(name: string): OwnerRecord | undefined {
    return this.#users.get(name)
  }

  lastUsers(): [string, OwnerRecord][] {
    return [...this.#users]
  }

  add(device: DeviceRecord, user: OwnerRecord): void {
    this.#devices.set(device.name, device)
    this.#bySpace.add(device.spaceId, device.name)
    this.#users.set(device.name, user)
  }

  remove({ name, spaceId }: DeviceRecord, isReset: boolean): void {
    this.#devices.delete(name)
    this.#bySpace.delete(spaceId, name)
    if (isReset) this.#users.delete(name)
  }

  /** The devices of an address space have another user. */
  handOn(spaceId: string, user: OwnerRecord): void {
    for (const name of this.#bySpace.of(spaceId)) this.#users.set(name, user)
  }

  /** Devices were reset. */
  markReset(names: readonly string[]): void {
    for (const name of names) if (!this.#devices.has(name)) this.#users.delete(name)
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
