/** The address spaces there are: one verb per promise, each in the lane of its space. */

import { VfiodError } from '../../base/error.ts'
import { type Iova, iova } from '../../base/units.ts'
import type { Kernel } from '../../kernel/port.ts'
import { hasRole } from '../../rules/policy.ts'
import type { Uses } from '../host/claims.ts'
import type { Inventory } from '../host/inventory.ts'
import { type Client, requireOwner } from '../identity/clients.ts'
import { requireId } from '../identity/ids.ts'
import { requireRoom } from '../identity/limits.ts'
import { requireAllowed } from '../identity/permission.ts'
import { type Amounts, type Quotas, sum } from '../identity/quotas.ts'
import type { Memories } from '../memory/memories.ts'
import { type BatchResult, inTurn, requireBatch, Undone } from './batch.ts'
import { type MapItem, mapOne, unmapOne } from './mapping.ts'
import type { Mapping } from './mapping-table.ts'
import { Pinning } from './memlock.ts'
import type { Piece } from './ranges.ts'
import { Remaps, type UpdateItem } from './remap.ts'
import { AddressSpace } from './space.ts'

export class Spaces {
  readonly #parts: {
    readonly kernel: Kernel
    readonly inventory: Inventory
    readonly uses: Uses
    readonly memories: Memories
    readonly quotas: Quotas
    readonly log: (event: string, fields: Record<string, unknown>) => void
    readonly pinning: Pinning
  }
  readonly #remaps: Remaps
  readonly #spaces = new Map<string, AddressSpace>()

  constructor(parts: {
    readonly kernel: Kernel
    readonly inventory: Inventory
    readonly uses: Uses
    readonly memories: Memories
    readonly quotas: Quotas
    readonly log: (event: string, fields: Record<string, unknown>) => void
  }) {
    this.#parts = { ...parts, pinning: new Pinning(parts.kernel) }
    this.#remaps = new Remaps(parts)
  }

  /** Create an address space; the same client asking again gets the same one. */
  async create(client: Client, wanted: string): Promise<AddressSpace> {
    const id = requireId('space_id', wanted)
    const taken = this.#spaces.get(id)
    if (taken?.owner.id === client.id) return taken
    if (taken !== undefined) requireOwner(client, taken.owner, { type: 'address space', name: id })
    requireRoom('address spaces', this.of(client).length)
    const space = await AddressSpace.create(id, client, this.#parts)
    const raced = this.#spaces.get(id)
    if (raced === undefined) {
      this.#spaces.set(id, space)
      return space
    }
    await space.close()
    requireOwner(client, raced.owner, { type: 'address space', name: id })
    return raced
  }

  /** One space, of any owner, with pending groups taken if they have become viable. */
  async get(id: string): Promise<AddressSpace> {
    const space = this.#find(id)
    await space.lane.run(() => space.settle())
    return space
  }

  list(): AddressSpace[] {
    return [...this.#spaces.values()]
  }

  /** The caller's space, or NO_SUCH_SPACE or NOT_MM_OWNER. */
  owned(client: Client, id: string): AddressSpace {
    const space = this.#find(id)
    requireOwner(client, space.owner, { type: 'address space', name: id })
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
      requireOwner(client, space.owner, { type: 'address space', name: id })
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
      for (const device of devices) requireAllowed(space.owner, device, 'add its group')
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
   * Map a batch. Each item succeeds or fails for itself; with `allOrNothing` the first failure
   * undoes the items before it and is thrown.
   */
  async map(
    client: Client,
    id: string,
    batch: { readonly items: readonly MapItem[]; readonly allOrNothing: boolean },
  ): Promise<BatchResult> {
    requireBatch('map', batch.items)
    return this.inLane(client, id, async (space) => {
      await space.requireReady('map into')
      const done: Piece[] = []
      const result = await inTurn(batch.items, async (item) => {
        try {
          const bytes = await mapOne(this.#parts, { space, client }, item)
          done.push(item)
          return bytes
        } catch (error) {
          if (!batch.allOrNothing) throw error
          for (const piece of done.reverse()) await unmapOne(space, piece)
          throw new Undone(error)
        }
      })
      return result
    })
  }

  async unmap(client: Client, id: string, items: readonly Piece[] | 'all'): Promise<BatchResult> {
    if (items !== 'all') requireBatch('unmap', items)
    return this.inLane(client, id, async (space) => {
      // Without a group nothing is mapped, and the kernel knows no range to look at.
      if (space.state === 'empty') return nothingMapped(items)
      const result = await inTurn<Piece | 'all'>(items === 'all' ? [items] : items, (item) =>
        unmapOne(space, item),
      )
      return result
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
  ): { mappings: Mapping[]; more: boolean } {
    const { ledger } = this.owned(client, id)
    const found: Iova = iova(page.from)
    const mappings = ledger.page(found, page.count + 1)
    return { mappings: mappings.slice(0, page.count), more: mappings.length > page.count }
  }

  /** Give every space of a client to another; the caller moved what they cost. */
  transfer(from: Client, to: Client): number {
    const spaces = this.of(from)
    for (const space of spaces) {
      space.owner = to
      for (const { onHandedOver } of space.hooks) onHandedOver?.()
      for (const device of space.devices.values()) device.handOn()
    }
    return spaces.length
  }

  /** What the spaces of a client cost, with all that is in them. */
  priceOf(client: Client): Amounts {
    const prices = this.of(client).map((space) => ({
      ...space.ledger.price,
      address_spaces: 1n,
      devices: BigInt(space.devices.size),
      sessions: BigInt([...space.devices.values()].filter(({ isInSession }) => isInSession).length),
    }))
    return sum(prices)
  }

  /** Who adds a group: the owner itself, or the owner on behalf of whom an admin does. */
  #adder(client: Client, id: string): Client {
    const { owner } = this.#find(id)
    if (owner.id !== client.id && hasRole(client.grant, 'admin')) return owner
    requireOwner(client, owner, { type: 'address space', name: id })
    if (client.grant.addsGroups) return client
    throw new VfiodError(
      'ROLE_NEEDED',
      `Cannot add a group to "${id}": the policy lets ${client.identity} use groups that an admin adds, not add them; ask an admin`,
    )
  }

  #find(id: string): AddressSpace {
    const space = this.#spaces.get(id)
    if (space !== undefined) return space
    throw noSuchSpace(id)
  }

  of(client: Client): AddressSpace[] {
    return this.list().filter((space) => space.owner.id === client.id)
  }

  /** Close a space whose devices are closed; called in its lane. */
  async close(space: AddressSpace): Promise<void> {
    this.#remaps.forget(space)
    await space.close()
    this.#spaces.delete(space.id)
  }
}

const nothingMapped = (items: readonly Piece[] | 'all'): BatchResult => ({
  errors: items === 'all' ? [undefined] : items.map(() => undefined),
  bytes: 0n,
})

const noSuchSpace = (id: string): VfiodError =>
  new VfiodError('NO_SUCH_SPACE', `Cannot find address space "${id}": there is none of that id`, {
    resource: { type: 'address space', name: id },
  })
