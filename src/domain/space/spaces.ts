/** The address spaces there are: one verb per promise, each in the lane of its space. */

import { VfiodError } from '../../base/error.ts'
import { undone } from '../../base/undo.ts'
import { iova } from '../../base/units.ts'
import type { Kernel } from '../../kernel/port.ts'
import { hasRole } from '../../rules/policy.ts'
import type { DeviceView, Inventory } from '../host/inventory.ts'
import { type Client, ownerOf } from '../identity/clients.ts'
import { requireId } from '../identity/ids.ts'
import { requireBelowLimit } from '../identity/limits.ts'
import { requireAllowed } from '../identity/permission.ts'
import type { Quotas } from '../identity/quotas.ts'
import type { GroupClaims } from '../iommu/group-claims.ts'
import { openBackend } from '../iommu/modes.ts'
import type { Memories } from '../memory/memories.ts'
import { requireOwner } from '../state/owner.ts'
import type { MappingRecord, OwnerRecord } from '../state/records.ts'
import type { State } from '../state/state.ts'
import { SPACE_PRICE } from '../state/usage.ts'
import { type BatchResult, inTurn, inTurnOrNone, requireBatch } from './batch.ts'
import { MapBatch } from './map-batch.ts'
import { type MapItem, mapOne, unmapOne } from './mapping.ts'
import { MemlockCheck } from './memlock.ts'
import { mappingText, type Piece } from './ranges.ts'
import type { RegionSources } from './region-mapping.ts'
import { Remaps, type UpdateItem } from './remap.ts'
import { AddressSpace } from './space.ts'

interface Parts {
  readonly kernel: Kernel
  readonly state: State
  readonly inventory: Inventory
  readonly memories: Memories
  readonly quotas: Quotas
  readonly claims: GroupClaims
  readonly patienceMs: number
  /** A region of an open device, as the source of a mapping. */
  readonly regionOf: RegionSources
  readonly log: (event: string, fields: Record<string, unknown>) => void
}

export class Spaces {
  readonly #parts: Parts & { readonly memlock: MemlockCheck }
  readonly #remaps: Remaps
  readonly #spaces = new Map<string, AddressSpace>()

  constructor(parts: Parts) {
    this.#parts = { ...parts, memlock: new MemlockCheck(parts.kernel) }
    this.#remaps = new Remaps(parts)
  }

  /** Create an address space; the same client asking again gets the same one. */
  async create(client: Client, wanted: string): Promise<AddressSpace> {
    const id = requireId('space_id', wanted)
    const taken = this.#taken(client, id)
    if (taken !== undefined) return taken
    const { kernel, state, quotas } = this.#parts
    requireBelowLimit('address spaces', state.spacesOf(client.id).length)
    const charge = quotas.charge(client, SPACE_PRICE)
    try {
      const iommu = await openBackend(kernel)
      // Another call may have taken the id meanwhile.
      const raced = this.#spaces.get(id)
      if (raced !== undefined) await iommu.close()
      const other = this.#taken(client, id)
      if (other !== undefined) return other
      const space = new AddressSpace(id, client, this.#parts, iommu)
      this.#spaces.set(id, space)
      state.apply({ kind: 'space-created', space: { id, owner: ownerOf(client) } })
      return space
    } finally {
      charge.release()
    }
  }

  /** One space, of any owner, with pending groups taken if they have become viable. */
  async get(id: string): Promise<AddressSpace> {
    const space = this.#find(id)
    // Reading needs no turn: a pin that takes minutes does not delay a reader.
    if (!space.lane.isBusy) await space.lane.run(() => space.settle())
    return space
  }

  list(): AddressSpace[] {
    return [...this.#spaces.values()]
  }

  /** The caller's space, or NO_SUCH_SPACE or NOT_MM_OWNER. */
  owned(client: Client, id: string): AddressSpace {
    const space = this.#find(id)
    requireOwner(client, space.owner, { type: 'address space', name: id }, this.#parts.state)
    return space
  }

  /** Run in the lane of the caller's space, unless it is gone or another's when its turn comes. */
  async inLane<T>(
    client: Client,
    id: string,
    operation: (space: AddressSpace) => Promise<T>,
  ): Promise<T> {
    const space = this.owned(client, id)
    return space.lane.run(() => {
      // It may have been destroyed while the call waited in the lane.
      if (space.isClosed) throw noSuchSpace(id)
      // Or handed over.
      requireOwner(client, space.owner, { type: 'address space', name: id }, this.#parts.state)
      return operation(space)
    })
  }

  /**
   * Add a group: the owner may where the policy lets it add groups, an admin may always. Every
   * device of the group must be allowed to the owner, who is then the one to use them.
   */
  async addGroup(client: Client, id: string, group: number): Promise<AddressSpace> {
    return this.inLane(this.#adder(client, id), id, async (space) => {
      const { devices } = await this.#parts.inventory.group(group)
      for (const device of served(devices)) requireAllowed(space.client, device, 'add its group')
      await space.addGroup(group)
      return space
    })
  }

  async removeGroup(client: Client, id: string, group: number): Promise<AddressSpace> {
    return this.inLane(client, id, async (space) => {
      await space.removeGroup(group)
      return space
    })
  }

  /**
   * Map a batch. Each item succeeds or fails independently; with `allOrNothing` the first failure
   * undoes the items before it and is thrown.
   */
  async map(
    client: Client,
    id: string,
    batch: { readonly items: readonly MapItem[]; readonly allOrNothing: boolean },
  ): Promise<BatchResult> {
    requireBatch('map', batch.items)
    return this.inLane(client, id, async (space) => {
      // iommufd takes mappings without any group, so it does not refuse where the groups are gone.
      if (space.iommu.limitedBy === 'device') await space.reconcile()
      await space.requireReady('map into')
      return reconciled(space, 'map into', () => this.#map(client, space, batch))
    })
  }

  async #map(
    client: Client,
    space: AddressSpace,
    batch: { readonly items: readonly MapItem[]; readonly allOrNothing: boolean },
  ): Promise<BatchResult> {
    const into = new MapBatch(space, client, this.#parts.quotas)
    const map = async (item: MapItem) => {
      await mapOne(this.#parts, into, item)
      return item.length
    }
    try {
      if (!batch.allOrNothing) return await inTurn(batch.items, map)
      return await inTurnOrNone(batch.items, map)
    } catch (error) {
      throw undone(error, (await into.undo()).map(mappingText))
    } finally {
      into.record(this.#parts.state)
    }
  }

  async unmap(client: Client, id: string, items: readonly Piece[] | 'all'): Promise<BatchResult> {
    if (items !== 'all') requireBatch('unmap', items)
    return this.inLane(client, id, async (space) => {
      // Without a group nothing is mapped, and the kernel knows no range to look at.
      if (!space.isAttached) return nothingMapped(items)
      const result = await inTurn<Piece | 'all'>(items === 'all' ? [items] : items, (item) =>
        unmapOne(this.#parts.state, space, item),
      )
      if (!(await isLost(space, result.errors))) return result
      return space.mappings.size === 0 ? nothingMapped(items) : result
    })
  }

  async invalidate(
    client: Client,
    id: string,
    what: { readonly piece: Piece | 'all'; readonly deadlineMs: number },
  ): Promise<{ bytes: bigint; deadlineMs: number }> {
    return this.inLane(client, id, (space) => this.#remaps.invalidate(space, what))
  }

  async update(
    client: Client,
    id: string,
    items: readonly UpdateItem[] | 'all',
  ): Promise<BatchResult> {
    if (items !== 'all') requireBatch('update', items)
    return this.inLane(client, id, (space) =>
      items === 'all'
        ? inTurn([items], () => this.#remaps.updateAll(space))
        : inTurn(items, (item) => this.#remaps.update(space, client, item)),
    )
  }

  /** Up to `count` mappings from an iova on, and whether there are more. */
  mappings(
    client: Client,
    id: string,
    page: { readonly from: bigint; readonly count: number },
  ): { mappings: MappingRecord[]; more: boolean } {
    const mappings = this.owned(client, id).mappings.page(iova(page.from), page.count + 1)
    return { mappings: mappings.slice(0, page.count), more: mappings.length > page.count }
  }

  /** Look in every space where no call is working for groups that the kernel took out. */
  async reconcile(): Promise<void> {
    const idle = this.list().filter(({ lane, isAttached }) => isAttached && !lane.isBusy)
    await Promise.all(
      idle.map((space) => space.lane.run(async () => space.isClosed || space.reconcile())),
    )
  }

  of(client: OwnerRecord): AddressSpace[] {
    return this.#parts.state.spacesOf(client.id).map((id) => this.#find(id))
  }

  /** Throw DEVICE_NOT_ALLOWED unless a client may use every device of these spaces. */
  async requireAllowed(client: Client, spaces: readonly AddressSpace[]): Promise<void> {
    for (const group of spaces.flatMap(({ groups }) => groups)) {
      const { devices } = await this.#parts.inventory.group(group)
      for (const device of served(devices)) requireAllowed(client, device, `adopt group ${group}`)
    }
  }

  /** Close a space whose devices are closed; called in its lane. */
  async close(space: AddressSpace): Promise<void> {
    this.#remaps.forget(space)
    await space.close()
    this.#spaces.delete(space.id)
  }

  /** Who adds a group: the owner itself, or the owner on behalf of whom an admin does. */
  #adder(client: Client, id: string): Client {
    const space = this.#find(id)
    if (space.owner.id !== client.id && hasRole(client.grant, 'admin')) return space.client
    requireOwner(client, space.owner, { type: 'address space', name: id }, this.#parts.state)
    if (client.grant.addsGroups) return client
    throw new VfiodError(
      'ROLE_NEEDED',
      `Cannot add a group to "${id}": the policy lets ${client.identity} use groups that an admin adds, not add them; ask an admin`,
    )
  }

  /** The space of that id where the client has it; NOT_MM_OWNER where another client has. */
  #taken(client: Client, id: string): AddressSpace | undefined {
    const space = this.#spaces.get(id)
    if (space !== undefined)
      requireOwner(client, space.owner, { type: 'address space', name: id }, this.#parts.state)
    return space
  }

  #find(id: string): AddressSpace {
    const space = this.#spaces.get(id)
    if (space !== undefined) return space
    throw noSuchSpace(id)
  }
}

/** Whether the kernel refused something, and has taken groups out of the space, which is why. */
const isLost = async (space: AddressSpace, errors: readonly unknown[]): Promise<boolean> =>
  errors.some((error) => error instanceof VfiodError && error.details.errno !== undefined) &&
  (await space.reconcile())

/** What the operation answers, or SPACE_NOT_READY where the kernel has taken groups out of the space. */
async function reconciled(
  space: AddressSpace,
  act: string,
  operation: () => Promise<BatchResult>,
): Promise<BatchResult> {
  try {
    const result = await operation()
    if (await isLost(space, result.errors)) await space.requireReady(act)
    return result
  } catch (error) {
    if (await isLost(space, [error])) await space.requireReady(act)
    throw error
  }
}

/** No client can open a device of another bus, so no policy has to allow it. */
const served = (devices: readonly DeviceView[]): DeviceView[] =>
  devices.filter(({ bus }) => bus !== 'other')

const nothingMapped = (items: readonly Piece[] | 'all'): BatchResult => ({
  errors: items === 'all' ? [undefined] : items.map(() => undefined),
  bytes: 0n,
})

const noSuchSpace = (id: string): VfiodError =>
  new VfiodError(
    'NO_SUCH_SPACE',
    `Cannot find address space "${id}": no address space has that id`,
    {
      resource: { type: 'address space', name: id },
    },
  )
