/**
 * The state of the daemon: records, their indexes, and what they cost, changed by one function.
 *
 *     const change = decide(state, request)     pure; may throw a refusal
 *     await act(kernel, change)                 the kernel
 *     state.apply(change)                       indexes, usage, and every listener
 *
 * A listener is told after the change, in the order of the changes; it must not throw and must not
 * apply another change. What cannot be written down lives in the runtime objects of the other folders.
 */

import type { Change } from './changes.ts'
import { DeviceTable } from './device-table.ts'
import { ExportTable } from './export-table.ts'
import { type Mappings, MappingTable } from './mapping-table.ts'
import { Multimap, Tallies } from './multimap.ts'
import {
  type DeviceRecord,
  isOfMemory,
  type MappingRecord,
  type MemberRecord,
  type MemoryRecord,
  type OfferRecord,
  type OwnerRecord,
  type SessionRecord,
  type SpaceRecord,
  type TrackingRecord,
} from './records.ts'
import {
  type Amounts,
  Books,
  DEVICE_PRICE,
  mappingsPrice,
  memoryPrice,
  SESSION_PRICE,
  SPACE_PRICE,
  sum,
  type Tally,
} from './usage.ts'

export type Listener = (change: Change) => void

export class State {
  readonly #spaces = new Map<string, SpaceRecord>()
  readonly #mappings = new Map<string, MappingTable>()
  /** By group. */
  readonly #members = new Map<number, MemberRecord>()
  readonly #membersOf = new Multimap<string, number>()
  readonly #memories = new Map<string, MemoryRecord>()
  /** Mappings that refer to a memory. */
  readonly #mappingsOfMemory = new Tallies<string>()
  readonly #devices = new DeviceTable()
  /** By device, by space, and by the id of the owner. */
  readonly #sessions = new Map<string, SessionRecord>()
  readonly #trackings = new Map<string, TrackingRecord>()
  readonly #offers = new Map<string, OfferRecord>()
  readonly #exports = new ExportTable()
  readonly #spacesOf = new Multimap<string, string>()
  readonly #memoriesOf = new Multimap<string, string>()
  readonly #books = new Books()
  readonly #listeners = new Set<Listener>()

  /** Call the listener with every change from now on; the answer ends that. */
  listen(listener: Listener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  apply(change: Change): void {
    this.#change(change)
    for (const listener of this.#listeners) listener(change)
  }

  space(id: string): SpaceRecord | undefined {
    return this.#spaces.get(id)
  }

  /** The mappings of a space that is there. */
  mappings(spaceId: string): Mappings {
    return this.#tableOf(spaceId)
  }

  /** Ids of the spaces of a client, in the order of their making. */
  spacesOf(ownerId: string): readonly string[] {
    return this.#spacesOf.of(ownerId)
  }

  member(group: number): MemberRecord | undefined {
    return this.#members.get(group)
  }

  /** The members of a space, by number. */
  membersOf(spaceId: string): MemberRecord[] {
    const groups = this.#membersOf.of(spaceId).toSorted((a, b) => a - b)
    return groups.map((group) => this.#members.get(group) as MemberRecord)
  }

  memory(id: string): MemoryRecord | undefined {
    return this.#memories.get(id)
  }

  memories(): MemoryRecord[] {
    return [...this.#memories.values()]
  }

  memoriesOf(ownerId: string): MemoryRecord[] {
    return this.#memoriesOf.of(ownerId).map((id) => this.#memories.get(id) as MemoryRecord)
  }

  /** How many mappings refer to a memory. */
  mappingsOfMemory(memoryId: string): number {
    return this.#mappingsOfMemory.of(memoryId)
  }

  device(name: string): DeviceRecord | undefined {
    return this.#devices.get(name)
  }

  /** The open devices of a space, in the order of their opening. */
  devicesOf(spaceId: string): DeviceRecord[] {
    return this.#devices.of(spaceId)
  }

  /** Who has used a device since it was last reset, as far as is known. */
  lastUserOf(name: string): OwnerRecord | undefined {
    return this.#devices.lastUserOf(name)
  }

  session(device: string): SessionRecord | undefined {
    return this.#sessions.get(device)
  }

  tracking(spaceId: string): TrackingRecord | undefined {
    return this.#trackings.get(spaceId)
  }

  /** By the id of the owner. */
  get offers(): ReadonlyMap<string, OfferRecord> {
    return this.#offers
  }

  /** Device fds of the group that clients have, as far as is known. */
  exportsOf(group: number): readonly string[] {
    return this.#exports.of(group)
  }

  /** Who owns the space that has the group. */
  userOfGroup(group: number): SpaceRecord | undefined {
    return this.#spaces.get(this.#members.get(group)?.spaceId ?? '')
  }

  /** Who owns the space in which the device is open. */
  userOfDevice(name: string): SpaceRecord | undefined {
    return this.#spaces.get(this.#devices.get(name)?.spaceId ?? '')
  }

  /** What the records of an account cost. */
  usageOf(account: string): Tally {
    return this.#books.of(account)
  }

  totalUsage(): Tally {
    return this.#books.total
  }

  /** By account: of those that have some. */
  usageByAccount = (): Iterable<[string, Amounts]> => this.#books

  /** What everything of one client costs. */
  priceOf(ownerId: string): Amounts {
    const spaces = this.spacesOf(ownerId).map((id) => this.#priceOfSpace(id))
    return sum([...spaces, ...this.memoriesOf(ownerId).map(memoryPrice)])
  }

  /** Every record, as one plain value: two states are the same when these are. */
  snapshot(): object {
    return {
      spaces: [...this.#spaces.values()].map((space) => ({
        ...space,
        members: this.membersOf(space.id),
        mappings: this.mappings(space.id).all(),
      })),
      memories: this.memories(),
      devices: this.#devices.all(),
      lastUsers: this.#devices.lastUsers(),
      sessions: [...this.#sessions.values()],
      trackings: [...this.#trackings.values()],
      offers: [...this.#offers.values()],
      exports: this.#exports.all(),
      usage: [...this.#books].sort(([a], [b]) => (a < b ? -1 : 1)),
    }
  }

  /** What the records cost, added up anew: it equals the running sums. */
  recount(): Books {
    const books = new Books()
    for (const { id, owner } of this.#spaces.values())
      books.add(owner.account, sum([SPACE_PRICE, mappingsPrice(this.mappings(id).all())]))
    for (const memory of this.#memories.values())
      books.add(memory.owner.account, memoryPrice(memory))
    for (const { spaceId } of this.#devices.all()) books.add(this.#payerOf(spaceId), DEVICE_PRICE)
    for (const { device } of this.#sessions.values())
      books.add(this.#payerOfDevice(device), SESSION_PRICE)
    return books
  }

  #change(change: Change): void {
    switch (change.kind) {
      case 'space-created':
        this.#addSpace(change.space)
        return
      case 'space-closed':
        this.#removeSpace(change.spaceId)
        return
      case 'member-set':
      case 'member-lost':
        this.#members.set(change.member.group, change.member)
        this.#membersOf.add(change.member.spaceId, change.member.group)
        return
      case 'member-removed':
        this.#members.delete(change.group)
        this.#membersOf.delete(change.spaceId, change.group)
        return
      case 'mapped':
        for (const mapping of change.mappings) this.#addMapping(change.spaceId, mapping)
        this.#books.add(this.#payerOf(change.spaceId), mappingsPrice(change.mappings))
        return
      case 'unmapped':
        for (const mapping of change.mappings) this.#removeMapping(change.spaceId, mapping)
        this.#books.add(this.#payerOf(change.spaceId), mappingsPrice(change.mappings), -1n)
        return
      case 'remapped':
        for (const { before } of change.mappings) this.#removeMapping(change.spaceId, before)
        for (const { after } of change.mappings) this.#addMapping(change.spaceId, after)
        return
      case 'memory-added':
        this.#addMemory(change.memory)
        return
      case 'memory-released':
        this.#removeMemory(change.memoryId)
        return
      case 'device-opened':
        this.#devices.add(change.device, this.#require(this.#spaces, change.device.spaceId).owner)
        this.#books.add(this.#payerOf(change.device.spaceId), DEVICE_PRICE)
        return
      case 'device-closed':
        this.#removeDevice(change)
        return
      case 'devices-reset':
        this.#devices.markReset(change.devices)
        return
      case 'condition-set':
        this.#devices.setCondition(change.device.name, change.condition)
        return
      case 'condition-cleared':
        this.#devices.clearCondition(change.name, change.condition)
        return
      case 'session-opened':
        this.#endSession(change.session.device)
        this.#sessions.set(change.session.device, change.session)
        this.#books.add(this.#payerOfDevice(change.session.device), SESSION_PRICE)
        return
      case 'session-ended':
        this.#endSession(change.device)
        return
      case 'tracking-started':
        this.#trackings.set(change.tracking.spaceId, change.tracking)
        return
      case 'tracking-stopped':
        this.#trackings.delete(change.spaceId)
        return
      case 'device-exported':
      case 'exports-closed':
        this.#exports.apply(change)
        return
      case 'handover-offered':
      case 'owner-gone':
      case 'owner-returned':
        this.#offers.set(change.offer.owner.id, change.offer)
        return
      case 'adopted':
        this.#adopt(change)
        return
      case 'released':
      case 'handover-expired':
        this.#offers.delete(change.owner.id)
        return
      case 'device-taken':
      case 'regions-unmapped':
      case 'lease-expired':
      case 'vaddr-restored':
      case 'drivers-changed':
        return
      default:
        // A change that the compiler does not know has nothing to do here.
        change satisfies never
    }
  }

  #addSpace(space: SpaceRecord): void {
    this.#spaces.set(space.id, space)
    this.#mappings.set(space.id, new MappingTable())
    this.#spacesOf.add(space.owner.id, space.id)
    this.#books.add(space.owner.account, SPACE_PRICE)
  }

  #removeSpace(id: string): void {
    const { owner } = this.#require(this.#spaces, id)
    if (this.#tableOf(id).size > 0) throw new Error(`space "${id}" still has mappings`)
    this.#books.add(owner.account, SPACE_PRICE, -1n)
    this.#mappings.delete(id)
    this.#spaces.delete(id)
    this.#spacesOf.delete(owner.id, id)
  }

  #addMapping(spaceId: string, mapping: MappingRecord): void {
    this.#tableOf(spaceId).add(mapping)
    if (isOfMemory(mapping)) this.#mappingsOfMemory.add(mapping.memoryId, 1)
  }

  #removeMapping(spaceId: string, mapping: MappingRecord): void {
    this.#tableOf(spaceId).remove(mapping.start)
    if (isOfMemory(mapping)) this.#mappingsOfMemory.add(mapping.memoryId, -1)
  }

  #addMemory(memory: MemoryRecord): void {
    this.#memories.set(memory.id, memory)
    this.#memoriesOf.add(memory.owner.id, memory.id)
    this.#books.add(memory.owner.account, memoryPrice(memory))
  }

  #removeMemory(id: string): void {
    const memory = this.#require(this.#memories, id)
    this.#memories.delete(id)
    this.#memoriesOf.delete(memory.owner.id, id)
    this.#books.add(memory.owner.account, memoryPrice(memory), -1n)
  }

  #removeDevice({ name, isReset }: Extract<Change, { kind: 'device-closed' }>): void {
    const device = this.#devices.require(name)
    this.#endSession(name)
    this.#books.add(this.#payerOf(device.spaceId), DEVICE_PRICE, -1n)
    this.#devices.remove(device, isReset)
  }

  #endSession(device: string): void {
    if (!this.#sessions.has(device)) return
    this.#books.add(this.#payerOfDevice(device), SESSION_PRICE, -1n)
    this.#sessions.delete(device)
  }

  #adopt({ from, to, spaceIds, memoryIds }: Extract<Change, { kind: 'adopted' }>): void {
    const price = this.priceOf(from.id)
    this.#books.add(from.account, price, -1n)
    this.#books.add(to.account, price)
    for (const id of spaceIds) {
      this.#spaces.set(id, { ...this.#require(this.#spaces, id), owner: to })
      this.#spacesOf.delete(from.id, id)
      this.#spacesOf.add(to.id, id)
      this.#devices.handOn(id, to)
    }
    for (const id of memoryIds) {
      this.#memories.set(id, { ...this.#require(this.#memories, id), owner: to })
      this.#memoriesOf.delete(from.id, id)
      this.#memoriesOf.add(to.id, id)
    }
    this.#offers.delete(from.id)
  }

  #priceOfSpace(id: string): Amounts {
    const devices = this.devicesOf(id)
    const sessions = devices.filter(({ name }) => this.#sessions.has(name))
    return sum([
      SPACE_PRICE,
      this.mappings(id).price,
      ...devices.map(() => DEVICE_PRICE),
      ...sessions.map(() => SESSION_PRICE),
    ])
  }

  #payerOf(spaceId: string): string {
    return this.#require(this.#spaces, spaceId).owner.account
  }

  #payerOfDevice(name: string): string {
    return this.#payerOf(this.#devices.require(name).spaceId)
  }

  #tableOf(spaceId: string): MappingTable {
    return this.#require(this.#mappings, spaceId)
  }

  /** A change that names what is not there is a bug of the daemon. */
  #require<Value>(records: ReadonlyMap<string, Value>, id: string): Value {
    const found = records.get(id)
    if (found === undefined) throw new Error(`the state has no record of "${id}"`)
    return found
  }
}
