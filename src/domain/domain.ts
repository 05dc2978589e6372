/**
 * What vfiod promises, put together over one kernel, real or simulated: nothing here can tell
 * which. The api room translates calls into these verbs and their errors into statuses.
 */

import { LIMITS } from '../base/limits.ts'
import type { Kernel } from '../kernel/port.ts'
import { onAccountOf } from '../os/thread-shares.ts'
import { defaultQuotas, type Quota } from '../rules/policy.ts'
import { Devices } from './device/devices.ts'
import { Irqs } from './device/irqs.ts'
import { Dirty } from './dirty/dirty.ts'
import { DriverBinding } from './host/binding.ts'
import { DeviceUsers } from './host/device-users.ts'
import { Inventory } from './host/inventory.ts'
import { patiently } from './host/patience.ts'
import { VirtualFunctions } from './host/virtual-functions.ts'
import { type Client, ownerOf } from './identity/clients.ts'
import { Handovers } from './identity/handover.ts'
import { Quotas } from './identity/quotas.ts'
import { Tickets } from './identity/tickets.ts'
import { GroupClaims } from './iommu/group-claims.ts'
import { Memories } from './memory/memories.ts'
import { Migration } from './migration/migration.ts'
import { watchMembers } from './space/member-watch.ts'
import { Spaces } from './space/spaces.ts'
import type { Counts } from './state/changes.ts'
import { type Event, type EventLog, eventOf, isWarning, watchEvents } from './state/events.ts'
import type { OwnerRecord } from './state/records.ts'
import { State } from './state/state.ts'
import { sum } from './state/usage.ts'
import { Teardown } from './teardown.ts'

export interface Domain {
  /** The records, and the stream of their changes. */
  readonly state: State
  readonly inventory: Inventory
  readonly binding: DriverBinding
  readonly virtualFunctions: VirtualFunctions
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
  releaseClient(client: OwnerRecord, why: string): Promise<void>
  /** A client that was gone is there again, under its id: an offer that stands keeps nothing from it. */
  clientReturned(client: OwnerRecord): void
  /** The lease of the client ran out: the same. */
  expireLease(client: OwnerRecord, why: string): Promise<void>
  /** Release everything a client owns, offered or not, although it is there. */
  evict(client: OwnerRecord, why: string): Promise<void>
  /** Release everything: the daemon is going away. */
  releaseAll(why: string): Promise<void>
}

export function createDomain(parts: {
  readonly kernel: Kernel
  readonly log?: EventLog
  /** How often watchers look at sysfs. */
  readonly watchMs?: number
  /** How often attached groups are asked whether they are still there. */
  readonly reconcileMs?: number
  /** How long callers wait for a step of the kernel that may never end. */
  readonly patienceMs?: number
  /** What all clients may use together; asked at each call. */
  readonly totalQuota?: () => Quota
  /** Memory of the host, of which a share may be pinned and allocated: 16 TiB where it is not said. */
  readonly memoryBytes?: bigint
}): Domain {
  const {
    kernel,
    log = () => {},
    watchMs = 1000,
    reconcileMs = 1000,
    totalQuota = () => ({}),
    memoryBytes = 1n << 44n,
  } = parts
  const { patienceMs = LIMITS.patienceMs } = parts
  const state = new State()
  const quotas = new Quotas(state, totalQuota, defaultQuotas(memoryBytes))
  const tickets = new Tickets()
  const users = new DeviceUsers({ kernel, state })
  const inventory = new Inventory({ kernel, state, quotas, users, watchMs })
  const binding = new DriverBinding({ kernel, inventory, state, users, log, patienceMs })
  const host = { kernel, inventory, state, users, patienceMs }
  const virtualFunctions = new VirtualFunctions(host)
  const memories = new Memories({ tickets, quotas, state })
  const claims = new GroupClaims()
  const spaces = new Spaces({
    ...{ kernel, inventory, state, quotas, memories, log, claims, patienceMs },
    regionOf: (client, space, at) => devices.regionOf(client, space, at),
  })
  watchMembers({ state, spaces, everyMs: reconcileMs })
  const devices: Devices = new Devices({
    kernel,
    inventory,
    state,
    tickets,
    quotas,
    spaceOf: (client, id) => spaces.owned(client, id),
    spacesOf: (client) => spaces.of(client),
    claims,
    patienceMs,
  })
  const irqs = new Irqs({ kernel, devices, tickets, quotas })
  const migration = new Migration({ kernel, devices, quotas, state })
  const dirty = new Dirty({ kernel, spaces, devices, quotas, state })
  const teardown = new Teardown({ tickets, devices, spaces, memories })

  // What happens without a call of the client is in no line of a call.
  state.listen((change) => {
    const event = eventOf(change)
    if (event === undefined) return
    const { kind, clients: _, ...fields } = event
    log(kind, fields, isWarning(event) ? 'warn' : 'info')
  })

  const countsOf = ({ id }: OwnerRecord): Counts => ({
    spaces: state.spacesOf(id).length,
    memories: state.memoriesOf(id).length,
  })

  const release = async (client: OwnerRecord, why: string): Promise<void> => {
    const counts = await onAccountOf(client.account, () => teardown.release(client))
    if (counts.spaces + counts.memories === 0) return
    state.apply({ kind: 'released', owner: ownerOf(client), why, counts })
  }

  const transfer = async (from: OwnerRecord, to: Client): Promise<Counts> => {
    await spaces.requireAllowed(to, spaces.of(from))
    // Nothing is awaited from here on: what is checked is what is moved.
    const owned = spaces.of(from)
    const price = sum([state.priceOf(from.id), memories.windowsPrice(from)])
    quotas.requireRoomToAdopt(from.account, to, price)
    for (const space of owned) space.client = to
    const spaceIds = owned.map(({ id }) => id)
    const memoryIds = memories.list(from).map(({ id }) => id)
    state.apply({ kind: 'adopted', from, to: ownerOf(to), spaceIds, memoryIds })
    return { spaces: spaceIds.length, memories: memoryIds.length }
  }

  const handovers = new Handovers({
    transfer,
    release,
    offered: (owner, deadlineMs) =>
      state.apply({
        kind: 'handover-offered',
        offer: { owner, deadlineMs, expiresAt: Date.now() + deadlineMs },
        counts: countsOf(owner),
      }),
    orphaned: (owner, why) => {
      const offer = state.offers.get(owner.id)
      if (offer !== undefined) state.apply({ kind: 'owner-gone', offer: { ...offer, gone: why } })
    },
    returned: (owner) => {
      const offer = state.offers.get(owner.id)
      if (offer === undefined) return
      const { gone: _, ...standing } = offer
      state.apply({ kind: 'owner-returned', offer: standing })
    },
    expired: (owner, isOrphaned) =>
      state.apply({
        kind: 'handover-expired',
        owner,
        why: isOrphaned ? 'its owner is gone' : 'its owner keeps everything',
        counts: countsOf(owner),
      }),
  })

  const releaseClient = async (client: OwnerRecord, why: string): Promise<void> => {
    if (handovers.keeps(client, why)) tickets.releaseClient(client)
    else await release(client, why)
  }

  const evict = async (client: OwnerRecord, why: string): Promise<void> => {
    if (handovers.withdraw(client)) {
      const counts = countsOf(client)
      state.apply({ kind: 'handover-expired', owner: ownerOf(client), why, counts })
    }
    await release(client, why)
  }

  return {
    state,
    inventory,
    binding,
    virtualFunctions,
    memories,
    spaces,
    devices,
    irqs,
    migration,
    dirty,
    tickets,
    quotas,
    watchEvents: (client, isWanted, signal) => {
      const charge = quotas.charge(client, { watches: 1n })
      signal.addEventListener('abort', () => charge.release(), { once: true })
      return watchEvents(state, isWanted, signal)
    },
    evict: (client, why) => {
      const evicted = evict(client, why)
      const busy = spaces.of(client).filter(({ lane }) => lane.isBusy)
      const waits = busy.map(({ id }) => `the call that runs in address space "${id}"`)
      return patiently(evicted, patienceMs, {
        act: `release ${client.id}`,
        step: () => waits.join(' and ') || 'the kernel',
      })
    },
    destroySpace: (client, id) => teardown.destroySpace(client, id),
    handOver: (client, deadlineMs) => handovers.offer(client, deadlineMs),
    adopt: (client, token) => handovers.adopt(client, token),
    releaseClient,
    clientReturned: (client) => handovers.returned(client),
    expireLease: async (client, why) => {
      const counts = countsOf(client)
      if (counts.spaces + counts.memories > 0) {
        state.apply({ kind: 'lease-expired', owner: ownerOf(client), counts })
      }
      await releaseClient(client, why)
    },
    releaseAll: async (why) => {
      handovers.clear()
      const owners = [...spaces.list(), ...state.memories()].map(({ owner }) => owner)
      for (const owner of new Map(owners.map((each) => [each.id, each])).values()) {
        await release(owner, why)
      }
    },
  }
}
