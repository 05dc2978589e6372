/**
 * What vfiod promises, put together over one kernel, real or simulated: nothing here can tell
 * which. The api room translates calls into these verbs and their errors into statuses.
 */

import type { Kernel } from '../kernel/port.ts'
import { Binding } from './binding.ts'
import { type Client, clientText } from './clients.ts'
import { Devices } from './devices.ts'
import { Inventory } from './inventory.ts'
import { Irqs } from './irqs.ts'
import { Memories } from './memory.ts'
import { Migration } from './migration.ts'
import { Spaces } from './spaces.ts'
import { Tickets } from './tickets.ts'
import { Uses } from './uses.ts'

export type Log = (event: string, fields: Record<string, unknown>) => void

export interface Domain {
  readonly inventory: Inventory
  readonly binding: Binding
  readonly memories: Memories
  readonly spaces: Spaces
  readonly devices: Devices
  readonly irqs: Irqs
  readonly migration: Migration
  readonly tickets: Tickets
  /** Release everything that a client owns, in the legal order; `why` goes to the log. */
  releaseClient(client: Client, why: string): Promise<void>
  /** Release everything: the daemon is going away. */
  releaseAll(why: string): Promise<void>
}

export function createDomain(parts: {
  readonly kernel: Kernel
  readonly log?: Log
  /** How often watchers look at sysfs. */
  readonly watchMs?: number
}): Domain {
  const { kernel, log = () => {}, watchMs = 1000 } = parts
  const uses = new Uses()
  const tickets = new Tickets()
  const inventory = new Inventory({ kernel, uses, watchMs })
  const binding = new Binding({ kernel, inventory, uses })
  const memories = new Memories(tickets)
  const spaces = new Spaces({ kernel, inventory, uses, memories, devices: () => devices, log })
  const devices: Devices = new Devices({
    kernel,
    inventory,
    uses,
    tickets,
    spaceOf: (client, id) => spaces.owned(client, id),
  })
  const irqs = new Irqs({ kernel, devices, tickets })
  const migration = new Migration({ kernel, devices })

  const releaseClient = async (client: Client, why: string): Promise<void> => {
    tickets.releaseClient(client)
    const released = await spaces.releaseClient(client)
    const memory = memories.list(client).length
    memories.releaseClient(client)
    if (released + memory > 0) {
      log('released', { client: clientText(client), why, spaces: released, memory })
    }
  }

  const releaseAll = async (why: string): Promise<void> => {
    const owners = new Map(
      [...spaces.list(), ...memories.all()].map(({ owner }) => [owner.id, owner]),
    )
    for (const owner of owners.values()) await releaseClient(owner, why)
  }

  return {
    inventory,
    binding,
    memories,
    spaces,
    devices,
    irqs,
    migration,
    tickets,
    releaseClient,
    releaseAll,
  }
}
