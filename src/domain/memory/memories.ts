/**
 * Memory that clients registered or had allocated. It is backed by an fd, so the daemon has its own
 * vaddr for it, and does not need the client's mapping.
 */

import { errnoName } from '../../base/errno.ts'
import { VfiodError } from '../../base/error.ts'
import { LIMITS } from '../../base/limits.ts'
import { hex, PAGE_SIZE } from '../../base/units.ts'
import { accept, refusal } from '../../kernel/refusal.ts'
import { sys } from '../../os/libc.ts'
import { addSeals, type FileIdentity, fileIdentity, memfdCreate, SEALS } from '../../os/memory.ts'
import { type Client, ownerOf } from '../identity/clients.ts'
import { requireId } from '../identity/ids.ts'
import { requireBelowLimit } from '../identity/limits.ts'
import type { Quotas } from '../identity/quotas.ts'
import { type Redeemed, requireNoFds, type Ticket, type Tickets } from '../identity/tickets.ts'
import type { Change } from '../state/changes.ts'
import { requireOwner } from '../state/owner.ts'
import {
  type HugePage,
  isOfMemory,
  type MemoryMapping,
  type MemoryRecord,
  type OwnerRecord,
} from '../state/records.ts'
import type { State } from '../state/state.ts'
import { type Amounts, memoryPrice, sum } from '../state/usage.ts'
import { Memory, mapWhole } from './memory.ts'
import type { Window } from './window.ts'

const HUGE_BYTES: Record<HugePage, bigint> = { '2M': 1n << 21n, '1G': 1n << 30n }

export class Memories {
  readonly #tickets: Tickets
  readonly #quotas: Quotas
  readonly #state: State
  readonly #memories = new Map<string, Memory>()

  constructor(parts: {
    readonly tickets: Tickets
    readonly quotas: Quotas
    readonly state: State
  }) {
    this.#tickets = parts.tickets
    this.#quotas = parts.quotas
    this.#state = parts.state
    parts.state.listen((change) => this.#follow(change))
  }

  /** A ticket for which the fd channel takes the memory's fd. */
  register(client: Client, wanted: string): { id: string; ticket: Ticket } {
    const id = requireId('memory_id', wanted)
    this.#requireFreeId(client, id)
    this.#requireBelowLimit(client)
    const purpose = { act: 'register memory', object: { memoryId: id } }
    const ticket = this.#tickets.issue(client, purpose, (fds) => this.#take(client, id, fds))
    return { id, ticket }
  }

  /** A memfd made by the daemon; the same call again answers with the same memory. */
  async allocate(
    client: Client,
    wanted: {
      readonly id: string
      readonly length: bigint
      readonly hugePage: HugePage | undefined
    },
  ): Promise<MemoryRecord> {
    const id = requireId('memory_id', wanted.id)
    const { length, hugePage } = wanted
    const pageSize = hugePage === undefined ? PAGE_SIZE : HUGE_BYTES[hugePage]
    if (length <= 0n || length % pageSize !== 0n || length > LIMITS.allocateBytes) {
      throw new VfiodError(
        'BAD_RANGE',
        `Cannot allocate ${length} bytes: a multiple of ${pageSize} up to ${LIMITS.allocateBytes} is needed`,
        { field: 'length' },
      )
    }
    const same = this.#same(client, wanted)
    if (same !== undefined) return same
    this.#requireFreeId(client, id)
    this.#requireBelowLimit(client)
    const fd = memfdCreate(`vfiod:${id}`, length, hugePage === undefined ? {} : { hugePage })
    if (fd < 0) throw refusal('memfd_create', fd, `allocate ${hex(length)} bytes of memory`)
    try {
      return await this.#add({ id, client, fd, hugePage, isAllocated: true })
    } catch (error) {
      sys.closeSync(fd)
      // The same call made twice at once: the other one was faster.
      const made = this.#same(client, wanted)
      if (made !== undefined) return made
      throw error
    }
  }

  /** A ticket for which the fd channel hands out the memory's fd. */
  export(client: Client, id: string): Ticket {
    const memory = this.get(client, id)
    const purpose = { act: 'export memory', object: { memoryId: memory.id } }
    return this.#tickets.issue(client, purpose, async (fds) => {
      requireNoFds(fds)
      // The memory may be gone by the time the ticket is used.
      const { fd } = this.get(client, memory.id)
      return {
        reply: { memoryId: memory.id, length: memory.length.toString() },
        fds: [accept('dup', sys.dup(fd), `export memory "${memory.id}"`)],
      }
    })
  }

  /** The caller's memory of that id, or NO_SUCH_MEMORY or NOT_MM_OWNER. */
  get(client: Client, id: string): Memory {
    const record = this.#state.memory(id)
    if (record === undefined) {
      throw new VfiodError('NO_SUCH_MEMORY', `Cannot find memory "${id}": it is not registered`, {
        resource: { type: 'memory', name: id },
      })
    }
    requireOwner(client, record.owner, { type: 'memory', name: id }, this.#state)
    return this.runtime(id)
  }

  /** The runtime of a memory that has a record. */
  runtime(id: string): Memory {
    const memory = this.#memories.get(id)
    if (memory === undefined) throw new Error(`memory "${id}" has no runtime`)
    return memory
  }

  /** Map a memory of the client once more, at its charge; the caller holds the new window. */
  mapAgain(client: Client, memory: Memory): Promise<Window> {
    return memory.mapAgain(this.#quotas.charge(client, { memory_bytes: memory.length }))
  }

  /** How many windows a memory has; none once it is released. */
  views(id: string): number {
    return this.#memories.get(id)?.windows ?? 0
  }

  /** What the windows of a client's memories cost beyond what the records do. */
  windowsPrice(client: OwnerRecord): Amounts {
    return sum(this.list(client).map(({ id }) => this.runtime(id).windowsPrice))
  }

  list(client: OwnerRecord): MemoryRecord[] {
    return this.#state.memoriesOf(client.id)
  }

  release(client: Client, id: string): void {
    const { isInUse } = this.get(client, id)
    const mappings = this.#state.mappingsOfMemory(id)
    if (mappings > 0 || isInUse) {
      const users = mappings > 0 ? `${mappings} mappings refer to it` : 'a call is mapping it'
      throw new VfiodError(
        'MEMORY_IN_USE',
        `Cannot release memory "${id}": ${users}; unmap them first`,
        { resource: { type: 'memory', name: id } },
      )
    }
    this.#state.apply({ kind: 'memory-released', memoryId: id })
  }

  /** Forget everything of a client; its address spaces are gone by then. */
  releaseClient(client: OwnerRecord): void {
    for (const { id } of this.list(client)) {
      this.#state.apply({ kind: 'memory-released', memoryId: id })
    }
  }

  /** Each mapping holds the window that it goes through. */
  #follow(change: Change): void {
    switch (change.kind) {
      case 'mapped':
        for (const mapping of change.mappings.filter(isOfMemory)) this.#windowOf(mapping).hold()
        return
      case 'unmapped':
        for (const mapping of change.mappings.filter(isOfMemory)) this.#windowOf(mapping).drop()
        return
      case 'remapped':
        for (const { before, after } of change.mappings) {
          this.#windowOf(after).hold()
          this.#windowOf(before).drop()
        }
        return
      case 'adopted':
        for (const id of change.memoryIds) this.runtime(id).handOn(change.to.account)
        return
      case 'memory-released':
        this.runtime(change.memoryId).close()
        this.#memories.delete(change.memoryId)
        return
    }
  }

  #windowOf({ memoryId, windowId }: MemoryMapping): Window {
    return this.runtime(memoryId).windowOf(windowId)
  }

  async #take(client: Client, id: string, fds: readonly number[]): Promise<Redeemed> {
    const [fd] = fds
    if (fd === undefined || fds.length !== 1) {
      throw new VfiodError(
        'BAD_ARGUMENT',
        `Cannot register memory "${id}": ${fds.length} fds arrived; send exactly one`,
        { field: 'fd' },
      )
    }
    this.#requireFreeId(client, id)
    this.#requireBelowLimit(client)
    const memory = await this.#add({ id, client, fd, hugePage: undefined, isAllocated: false })
    return { reply: { memoryId: id, length: memory.length.toString() }, fds: [] }
  }

  async #add(from: {
    readonly id: string
    readonly client: Client
    readonly fd: number
    readonly hugePage: HugePage | undefined
    readonly isAllocated: boolean
  }): Promise<MemoryRecord> {
    const { id, client, fd, hugePage, isAllocated } = from
    const { size: length } = requireMappable(id, fd)
    this.#requireFreeId(client, id)
    const charge = this.#quotas.charge(client, memoryPrice({ length, isAllocated }))
    try {
      // Nothing but the file itself can refuse from here on: a seal cannot be taken back.
      const sealed = addSeals(fd, SEALS.SHRINK) >= 0
      const file = requireMappable(id, fd)
      const record: MemoryRecord = {
        id,
        owner: ownerOf(client),
        length,
        pageSize: file.pageSize,
        isAllocated,
        isSealed: sealed || (file.seals & SEALS.SHRINK) !== 0,
        file: { dev: file.dev, inode: file.inode },
        hugePage,
      }
      const memory = new Memory(fd, record, await mapWhole({ id, fd, length }))
      try {
        // Another call may have taken the id while the file was mapped.
        this.#requireFreeId(client, id)
      } catch (error) {
        memory.window.drop()
        throw error
      }
      this.#memories.set(id, memory)
      this.#state.apply({ kind: 'memory-added', memory: record })
      return record
    } finally {
      charge.release()
    }
  }

  /** What the client has allocated by the same call. */
  #same(
    client: Client,
    { id, length, hugePage }: Pick<MemoryRecord, 'id' | 'length' | 'hugePage'>,
  ): MemoryRecord | undefined {
    const memory = this.#state.memory(id)
    if (memory?.owner.id !== client.id || !memory.isAllocated) return undefined
    return memory.length === length && memory.hugePage === hugePage ? memory : undefined
  }

  #requireFreeId(client: Client, id: string): void {
    const taken = this.#state.memory(id)
    if (taken === undefined) return
    requireOwner(client, taken.owner, { type: 'memory', name: id }, this.#state)
    throw idInUse(id)
  }

  #requireBelowLimit(client: Client): void {
    requireBelowLimit('memory objects', this.list(client).length)
  }
}

const idInUse = (id: string): VfiodError =>
  new VfiodError('ID_IN_USE', `Cannot add memory "${id}": the id is in use with other arguments`, {
    resource: { type: 'memory', name: id },
  })

/** What the fd refers to, if devices can be given it: shared memory that the daemon can write. */
function requireMappable(id: string, fd: number): FileIdentity {
  const file = fileIdentity(fd)
  const refuse = (found: string): VfiodError =>
    new VfiodError(
      'BAD_ARGUMENT',
      `Cannot register memory "${id}": ${found}; send a memfd, or a file on tmpfs or hugetlbfs, open for reading and writing`,
      { field: 'fd' },
    )
  if (typeof file === 'number') throw refuse(`the fd cannot be examined (${errnoName(-file)})`)
  if (file.kind !== 'memfd-or-shm' && file.kind !== 'hugetlbfs') {
    throw refuse('the fd is not shared memory')
  }
  if (!file.writable) throw refuse('the fd is not writable')
  if (file.size === 0n || file.size % file.pageSize !== 0n) {
    throw refuse(`its size is ${file.size} bytes, not a multiple of ${file.pageSize}`)
  }
  return file
}
