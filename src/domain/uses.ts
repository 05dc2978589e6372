/**
 * Which address space has a group or an open device: asked by the inventory and by whoever must
 * not take a device away from its user.
 */

import type { Client } from './clients.ts'

export interface GroupUse {
  readonly spaceId: string
  readonly owner: Client
}

export class Uses {
  readonly #groups = new Map<number, GroupUse>()
  readonly #devices = new Map<string, GroupUse>()
  /** Device fds that were handed out, by group: while one is open, the kernel keeps the group. */
  readonly #exports = new Map<number, string[]>()

  groupUse(group: number): GroupUse | undefined {
    return this.#groups.get(group)
  }

  deviceUse(name: string): GroupUse | undefined {
    return this.#devices.get(name)
  }

  spaceOfGroup(group: number): string | undefined {
    return this.#groups.get(group)?.spaceId
  }

  spaceOfDevice(name: string): string | undefined {
    return this.#devices.get(name)?.spaceId
  }

  takeGroup(group: number, use: GroupUse): void {
    this.#groups.set(group, use)
  }

  dropGroup(group: number): void {
    this.#groups.delete(group)
  }

  /** A device fd of the group went to a client. */
  noteExport(group: number, what: string): void {
    this.#exports.set(group, [...(this.#exports.get(group) ?? []), what])
  }

  exportsOf(group: number): readonly string[] {
    return this.#exports.get(group) ?? []
  }

  /** The group could be opened again, so every exported fd of it is closed. */
  clearExports(group: number): void {
    this.#exports.delete(group)
  }

  takeDevice(name: string, use: GroupUse): void {
    this.#devices.set(name, use)
  }

  dropDevice(name: string): void {
    this.#devices.delete(name)
  }
}
