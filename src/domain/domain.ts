/**
 * What vfiod promises, put together over one kernel, real or simulated: nothing here can tell
 * which. The api room translates calls into these verbs and their errors into statuses.
 */

import type { Kernel } from '../kernel/port.ts'
import type { Quota } from '../rules/policy.ts'
import { Devices } from './device/devices.ts'
import { Irqs } from './device/irqs.ts'
import { Dirty } from './dirty/dirty.ts'
import { Binding } from './host/binding.ts'
import { Uses } from './host/claims.ts'
import { Inventory } from './host/inventory.ts'
import { type Client, clientText } from './identity/clients.ts'
import { Handovers } from './identity/handover.ts'
import { Quotas, sum } from './identity/quotas.ts'
import { Tickets } from './identity/tickets.ts'
import { Memories } from './memory/memories.ts'
import { Migration } from './migration/migration.ts'
import { Spaces } from './space/spaces.ts'
import { type Event, type EventKind, Events } from './state/events.ts'
import { type Counts, Teardown } from './teardown.ts'

export type Log = (event: string, fields: Record<string, unknown>) => void

export interface Domain {
  readonly inventory: Inventory
  readonly binding: Binding
  readonly memories: Memories
  readonly spaces: Spaces
  readonly devices: Devices
  readonly irqs: Irqs
  readonly migration: Migration
  readonly dirty: Dirty
  readonly tickets: Tickets
  readonly quotas: Quotas
  /** What happens from this call on, of what is wanted, until the signal: it must be aborted. */
  watchEvents(
    client: Client,
    isWanted: (event: Event) => boolean,
    signal: AbortSignal,
  ): AsyncIterable<Event>
  /** Offer everything the client owns; the token is for the next owner. */
  handOver(client: Client, deadlineMs: number): { token: string; deadlineMs: number }
  /** Destroy an address space of the client, with everything that is in it. */
  destroySpace(client: Client, id: string): Promise<void>
  /** Become the owner of what a token is for. */
  adopt(client: Client, token: string): Promise<Counts>
  /** The client is gone: release everything it owns, in the legal order, unless it is handed over. */
  releaseClient(client: Client, why: string): Promise<void>
  /** Release everything a client owns, offered or not, although it is there. */
  evict(client: Client, why: string): Promise<void>
  /** Release everything: the daemon is going away. */
  releaseAll(why: string): Promise<void>
}

export function createDomain(parts: {
  readonly kernel: Kernel
  readonly log?: Log
  /** How often watchers look at sysfs. */
  readonly watchMs?: number
  /** What all clients may use together; asked at each call. */
  readonly totalQuota?: () => Quota
}): Domain {
  const { kernel, log = () => {}, watchMs = 1000, totalQuota = () => ({}) } = parts
  const uses = new Uses()
  const quotas = new Quotas(totalQuota)
  const tickets = new Tickets()
  const events = new Events()
  const inventory = new Inventory({ kernel, uses, quotas, watchMs })
  const binding = new Binding({ kernel, inventory, uses })
  const memories = new Memories({ tickets, quotas })

  const publish = (
    kind: EventKind,
    about: Counts & { readonly clients: readonly [Client, ...Client[]]; readonly why: string },
  ): void => {
    const { clients, why, spaces, memories } = about
    const client = clientText(clients[0])
    log(kind, { client, why, spaces, memories })
    events.publish({ kind, clients: clients.map(({ id }) => id), client, why, spaces, memories })
  }

  const spaces = new Spaces({
    kernel,
    inventory,
    uses,
    quotas,
    memories,
    log: (event, fields) => log(event, fields),
  })
  const devices = new Devices({
    kernel,
    inventory,
    uses,
    tickets,
    quotas,
    spaceOf: (client, id) => spaces.owned(client, id),
  })
  const irqs = new Irqs({ kernel, devices, tickets, quotas })
  const migration = new Migration({ kernel, devices, quotas })
  const dirty = new Dirty({ kernel, spaces, devices, quotas })
  const teardown = new Teardown({ tickets, devices, spaces, memories })

  const release = async (client: Client, why: string): Promise<void> => {
    const counts = await teardown.release(client)
    if (counts.spaces + counts.memories === 0) return
    publish('released', { clients: [client], why, ...counts })
  }

  const handovers = new Handovers({
    transfer: async (from, to) => {
      quotas.move(from, to, sum([spaces.priceOf(from), memories.priceOf(from)]))
      return { spaces: spaces.transfer(from, to), memories: memories.transfer(from, to) }
    },
    release,
    expired: (owner, isOrphaned) =>
      publish('handover-expired', {
        clients: [owner],
        why: isOrphaned ? 'its owner is gone' : 'its owner keeps everything',
        ...countsOf(owner),
      }),
  })

  const countsOf = (client: Client): Counts => ({
    spaces: spaces.list().filter(({ owner }) => owner.id === client.id).length,
    memories: memories.list(client).length,
  })

  return {
    inventory,
    binding,
    memories,
    spaces,
    devices,
    irqs,
    migration,
    dirty,
    tickets,
    quotas,
    watchEvents: (client, isWanted, signal) => {
      quotas.take(client, { watches: 1n })
      const giveBack = () => quotas.give(client, { watches: 1n })
      signal.addEventListener('abort', giveBack, { once: true })
      return events.watch(isWanted, signal)
    },
    evict: release,
    destroySpace: (client, id) => teardown.destroySpace(client, id),
    handOver: (client, deadlineMs) => {
      const offer = handovers.offer(client, deadlineMs)
      const why = `for ${offer.deadlineMs} ms`
      publish('handover-offered', { clients: [client], why, ...countsOf(client) })
      return offer
    },
    adopt: async (client, token) => {
      const { from, ...counts } = await handovers.adopt(client, token)
      publish('adopted', { clients: [client, from], why: `from ${clientText(from)}`, ...counts })
      return counts
    },
    releaseClient: async (client, why) => {
      if (handovers.keeps(client, why)) tickets.releaseClient(client)
      else await release(client, why)
    },
    releaseAll: async (why) => {
      handovers.clear()
      const owners = [...spaces.list(), ...memories.all()].map(({ owner }) => owner)
      for (const owner of new Map(owners.map((each) => [each.id, each])).values()) {
        await release(owner, why)
      }
    },
  }
}
