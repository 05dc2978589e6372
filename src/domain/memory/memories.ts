/**
 * Memory that clients registered or had allocated. It is fd-backed, so the daemon always has a
 * vaddr of its own for it, and the client may come and go.
 *
 * A *window* is one mmap of the whole memory. Mappings of address spaces hold the window they were
 * made through; a remap makes a new window, and the old one goes when no mapping holds it.
 */

import { errnoName } from '../../base/errno.ts'
import { VfiodError } from '../../base/error.ts'
import { LIMITS } from '../../base/limits.ts'
import { hex, PAGE_SIZE, type Vaddr, vaddr } from '../../base/units.ts'
import { isErrno, refusal } from '../../kernel/refusal.ts'
import { sys } from '../../os/libc.ts'
import {
  addSeals,
  type FileIdentity,
  fileIdentity,
  freeSegment,
  mapFd,
  memfdCreate,
  SEALS,
  type Segment,
} from '../../os/memory.ts'
import { type Client, requireOwner } from '../identity/clients.ts'
import { requireId } from '../identity/ids.ts'
import { requireRoom } from '../identity/limits.ts'
import { type Amounts, type Quotas, sum } from '../identity/quotas.ts'
import { type Redeemed, requireNoFds, type Ticket, type Tickets } from '../identity/tickets.ts'

/** One mmap of a memory, held by the memory while it is current and by each mapping through it. */
export class Window {
  readonly #segment: Segment
  #holders = 0

  constructor(segment: Segment) {
    this.#segment = segment
  }

  at(offset: bigint): Vaddr {
    return vaddr(this.#segment.address + offset)
  }

  hold(): this {
    this.#holders += 1
    return this
  }

  /** The last holder unmaps it. */
  drop(): void {
    this.#holders -= 1
    if (this.#holders === 0) freeSegment(this.#segment)
  }
}

export interface Memory {
  readonly id: string
  /** Changes hands by handover only. */
  owner: Client
  readonly fd: number
  readonly length: bigint
  /** What `length`, and the length of its mappings, must be a multiple of. */
  readonly pageSize: bigint
  readonly isAllocated: boolean
  readonly isSealed: boolean
  readonly file: { readonly dev: bigint; readonly inode: bigint }
  /** How it was allocated; a repeated call with the same arguments gets the same memory. */
  readonly hugePage: HugePage | undefined
  /** Through which new mappings are made. */
  window: Window
  /** Mappings that refer to it. */
  mappings: number
}

export type HugePage = '2M' | '1G'
const HUGE_BYTES: Record<HugePage, bigint> = { '2M': 1n << 21n, '1G': 1n << 30n }

export class Memories {
  readonly #tickets: Tickets
  readonly #quotas: Quotas
  readonly #memories = new Map<string, Memory>()

  constructor(parts: { readonly tickets: Tickets; readonly quotas: Quotas }) {
    this.#tickets = parts.tickets
    this.#quotas = parts.quotas
  }

  /** A ticket for which the fd channel takes the memory's fd. */
  register(client: Client, wanted: string): { id: string; ticket: Ticket } {
    const id = requireId('memory_id', wanted)
    this.#requireFreeId(client, id)
    this.#requireRoom(client)
    return { id, ticket: this.#tickets.issue(client, (fds) => this.#take(client, id, fds)) }
  }

  /** A memfd made by the daemon; the same call again answers with the same memory. */
  async allocate(
    client: Client,
    wanted: {
      readonly id: string
      readonly length: bigint
      readonly hugePage: HugePage | undefined
    },
  ): Promise<Memory> {
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
    this.#requireRoom(client)
    const fd = memfdCreate(`vfiod:${id}`, length, hugePage === undefined ? {} : { hugePage })
    if (fd < 0) throw cannotHold('allocate', length, fd)
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
    return this.#tickets.issue(client, async (fds) => {
      requireNoFds(fds)
      // The memory may be gone by the time the ticket is used.
      const { fd } = this.get(client, memory.id)
      return {
        reply: { memoryId: memory.id, length: memory.length.toString() },
        fds: [sys.dup(fd)],
      }
    })
  }

  /** The caller's memory of that id, or NO_SUCH_MEMORY or NOT_MM_OWNER. */
  get(client: Client, id: string): Memory {
    const memory = this.#memories.get(id)
    if (memory === undefined) {
      throw new VfiodError('NO_SUCH_MEMORY', `Cannot find memory "${id}": it is not registered`, {
        resource: { type: 'memory', name: id },
      })
    }
    requireOwner(client, memory.owner, { type: 'memory', name: id })
    return memory
  }

  list(client: Client): Memory[] {
    return this.#of(client)
  }

  /** Every memory of every client. */
  all(): Memory[] {
    return [...this.#memories.values()]
  }

  /** Give every memory of a client to another; the caller moved what they cost. */
  transfer(from: Client, to: Client): number {
    const memories = this.#of(from)
    for (const memory of memories) memory.owner = to
    return memories.length
  }

  /** What the memories of a client cost. */
  priceOf(client: Client): Amounts {
    return sum(this.#of(client).map(priceOf))
  }

  release(client: Client, id: string): void {
    const memory = this.get(client, id)
    if (memory.mappings > 0) {
      throw new VfiodError(
        'MEMORY_IN_USE',
        `Cannot release memory "${id}": ${memory.mappings} mappings refer to it; unmap them first`,
        { resource: { type: 'memory', name: id } },
      )
    }
    this.#forget(memory)
  }

  /** Forget everything of a client; its address spaces are gone by then. */
  releaseClient(client: Client): void {
    for (const memory of this.#of(client)) this.#forget(memory)
  }

  /** Map the memory once more, at another address; the caller holds the new window. */
  async renew(memory: Memory): Promise<Window> {
    const segment = await mapFd(memory.fd, {
      offset: 0n,
      length: memory.length,
      access: 'read-write',
    })
    if (typeof segment === 'number') throw cannotHold('map again', memory.length, segment)
    return new Window(segment).hold()
  }

  #of(client: Client): Memory[] {
    return this.all().filter((memory) => memory.owner.id === client.id)
  }

  #forget(memory: Memory): void {
    this.#memories.delete(memory.id)
    this.#quotas.give(memory.owner, priceOf(memory))
    memory.window.drop()
    sys.closeSync(memory.fd)
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
    this.#requireRoom(client)
    const memory = await this.#add({ id, client, fd, hugePage: undefined, isAllocated: false })
    return { reply: { memoryId: id, length: memory.length.toString() }, fds: [] }
  }

  async #add(from: {
    readonly id: string
    readonly client: Client
    readonly fd: number
    readonly hugePage: HugePage | undefined
    readonly isAllocated: boolean
  }): Promise<Memory> {
    const { id, client, fd, hugePage, isAllocated } = from
    const sealed = addSeals(fd, SEALS.SHRINK) >= 0
    const file = requireMappable(id, fd)
    const segment = await mapFd(fd, { offset: 0n, length: file.size, access: 'read-write' })
    if (typeof segment === 'number') throw cannotHold('map', file.size, segment)
    const memory: Memory = {
      id,
      owner: client,
      fd,
      length: file.size,
      pageSize: file.pageSize,
      isAllocated,
      isSealed: sealed || (file.seals & SEALS.SHRINK) !== 0,
      file: { dev: file.dev, inode: file.inode },
      hugePage,
      window: new Window(segment).hold(),
      mappings: 0,
    }
    try {
      // Somebody may have taken the id while the file was mapped.
      this.#requireFreeId(client, id)
      this.#quotas.take(client, priceOf(memory))
    } catch (error) {
      memory.window.drop()
      throw error
    }
    this.#memories.set(id, memory)
    return memory
  }

  /** What the client has allocated by the same call. */
  #same(
    client: Client,
    { id, length, hugePage }: Pick<Memory, 'id' | 'length' | 'hugePage'>,
  ): Memory | undefined {
    const memory = this.#memories.get(id)
    if (memory?.owner.id !== client.id || !memory.isAllocated) return undefined
    return memory.length === length && memory.hugePage === hugePage ? memory : undefined
  }

  #requireFreeId(client: Client, id: string): void {
    const taken = this.#memories.get(id)
    if (taken === undefined) return
    requireOwner(client, taken.owner, { type: 'memory', name: id })
    throw idInUse(id)
  }

  #requireRoom(client: Client): void {
    requireRoom('memory objects', this.#of(client).length)
  }
}

/** What a memory costs its owner. */
export const priceOf = ({ length, isAllocated }: Memory): Amounts =>
  isAllocated ? { memories: 1n, allocated_bytes: length } : { memories: 1n }

const idInUse = (id: string): VfiodError =>
  new VfiodError('ID_IN_USE', `Cannot add memory "${id}": the id is in use with other arguments`, {
    resource: { type: 'memory', name: id },
  })

function cannotHold(verb: string, length: bigint, answer: number): VfiodError {
  const errno = errnoName(-answer)
  if (isErrno(answer, 'EMFILE'))
    return refusal('memfd_create', answer, `${verb} ${hex(length)} bytes of memory`)
  const isShort = isErrno(answer, 'ENOMEM')
  return new VfiodError(
    isShort ? 'LIMIT_REACHED' : 'KERNEL_REFUSED',
    `Cannot ${verb} ${hex(length)} bytes of memory: the kernel answered ${errno}${isShort ? '; release memory or ask for less' : ''}`,
    { errno, op: 'mmap' },
  )
}

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
