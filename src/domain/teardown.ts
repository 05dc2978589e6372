/**
 * Releasing in the one order that the kernel allows:
 *
 *     devices -> mappings -> groups -> container -> memories
 *
 * A device is silenced, reset, its last dirty pages are read, its session ended, and then it is
 * closed (device/devices.ts). Mappings go with the last group, groups before the container that they
 * are members of (space/space.ts). Only after the kernel let go of the pages is memory unmapped here.
 */

import type { Devices } from './device/devices.ts'
import type { Client } from './identity/clients.ts'
import type { Tickets } from './identity/tickets.ts'
import type { Memories } from './memory/memories.ts'
import type { AddressSpace } from './space/space.ts'
import type { Spaces } from './space/spaces.ts'
import type { Counts } from './state/changes.ts'
import type { OwnerRecord } from './state/records.ts'

export class Teardown {
  readonly #tickets: Tickets
  readonly #devices: Devices
  readonly #spaces: Spaces
  readonly #memories: Memories

  constructor(parts: {
    readonly tickets: Tickets
    readonly devices: Devices
    readonly spaces: Spaces
    readonly memories: Memories
  }) {
    this.#tickets = parts.tickets
    this.#devices = parts.devices
    this.#spaces = parts.spaces
    this.#memories = parts.memories
  }

  /** Destroy one address space, for its owner. */
  destroySpace(client: Client, id: string): Promise<void> {
    return this.#spaces.inLane(client, id, (space) => this.#close(space))
  }

  /** Release everything that a client owns; answers what that was. */
  async release(client: OwnerRecord): Promise<Counts> {
    this.#tickets.releaseClient(client)
    const spaces = this.#spaces.of(client)
    for (const space of spaces) {
      await space.lane.run(async () => {
        if (!space.isClosed) await this.#close(space)
      })
    }
    const memories = this.#memories.list(client)
    this.#memories.releaseClient(client)
    return { spaces: spaces.length, memories: memories.length }
  }

  /** Called in the lane of the space. */
  async #close(space: AddressSpace): Promise<void> {
    space.detachHooks()
    await this.#devices.closeAllOf(space)
    await this.#spaces.close(space)
  }
}
