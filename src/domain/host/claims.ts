/**
 * Which address space has a group or an open device: asked by the inventory and by whoever must
 * not take a device away from its user.
 */

import type { Client } from '../identity/clients.ts'

/** An address space; its owner may change, so it is asked when it is needed. */
export interface User {
  readonly id: string
  readonly owner: Client
}

export class Uses {
  readonly #groups = new Map<number, User>()
  readonly #devices = new Map<string, User>()
  /** Device fds that were handed out, by group: while one is open, the kernel keeps the group. */
  readonly #exports = new Map<number, string[]>()

  groupUser(group: number): User | undefined {
    return this.#groups.get(group)
  }

  deviceUser(name: string): User | undefined {
    return this.#devices.get(name)
  }

  takeGroup(group: number, user: User): void {
    this.#groups.set(group, user)
  }

  dropGroup(group: number): void {
    this.#groups.delete(group)
  }

  takeDevice(name: string, user: User): void {
    this.#devices.set(name, user)
  }

  dropDevice(name: string): void {
    this.#devices.delete(name)
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
}
