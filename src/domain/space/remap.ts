/**
 * Remap: same iova and length, another vaddr, while devices go on with DMA. Two halves: invalidate
 * marks the old vaddr as void, update gives the new one. The kernel does not check that the new
 * vaddr shows the same memory, so vfiod does: the same bytes of the same file, or DIFFERENT_MEMORY.
 *
 * Bounded. A vaddr that is still invalid at the deadline is restored through the window it had, so
 * that a client that dies or dawdles between the halves leaves nothing hanging.
 */

import { VfiodError } from '../../base/error.ts'
import { LIMITS } from '../../base/limits.ts'
import { hex, iova, rangeOf } from '../../base/units.ts'
import { invalidateVaddr, updateVaddr } from '../../kernel/container-calls.ts'
import type { Kernel } from '../../kernel/port.ts'
import type { Client } from '../identity/clients.ts'
import type { Memories, Memory, Window } from '../memory/memories.ts'
import { insideOf } from './mapping.ts'
import { type Mapping, mappingText } from './mapping-table.ts'
import { type Piece, requireRange } from './ranges.ts'
import type { AddressSpace } from './space.ts'

export interface UpdateItem extends Piece {
  /** The memory to go on with; the mapping's own when empty. */
  readonly memoryId: string
  readonly offset: bigint
}

export class Remaps {
  readonly #kernel: Kernel
  readonly #memories: Memories
  readonly #deadlines = new Map<AddressSpace, NodeJS.Timeout>()
  readonly #log: (event: string, fields: Record<string, unknown>) => void

  constructor(parts: {
    readonly kernel: Kernel
    readonly memories: Memories
    readonly log: (event: string, fields: Record<string, unknown>) => void
  }) {
    this.#kernel = parts.kernel
    this.#memories = parts.memories
    this.#log = parts.log
  }

  /** Invalidate every mapping inside a piece, or every one: all of them or none. */
  async invalidate(
    space: AddressSpace,
    what: { readonly piece: Piece | 'all'; readonly deadlineMs: number },
  ): Promise<{ bytes: bigint; deadlineMs: number }> {
    requireRemappable(space)
    const { piece } = what
    const found = piece === 'all' ? space.ledger.all() : insideOf(space, piece, 'invalidate')
    if (found.length === 0) throw notMapped(piece)
    const invalid = found.find((mapping) => !mapping.isVaddrValid)
    if (invalid !== undefined) {
      throw new VfiodError(
        'VADDR_INVALID',
        `Cannot invalidate the vaddr of ${mappingText(invalid)}: it is invalid already; update it first`,
      )
    }
    const range = piece === 'all' ? piece : rangeOf(iova(piece.iova), piece.length)
    const bytes = await invalidateVaddr(this.#kernel, space.containerFd, range)
    for (const mapping of found) space.ledger.invalidate(mapping)
    const deadlineMs = Math.min(what.deadlineMs || LIMITS.vaddrInvalidMs, LIMITS.vaddrInvalidMs)
    this.#startDeadline(space, deadlineMs)
    return { bytes, deadlineMs }
  }

  /** Update one mapping, named by exactly its range. */
  async update(space: AddressSpace, client: Client, item: UpdateItem): Promise<bigint> {
    requireRemappable(space)
    const mapping = exactlyAt(space, item)
    requireInvalid(mapping)
    const memory = item.memoryId === '' ? mapping.memory : this.#memories.get(client, item.memoryId)
    requireSameBytes(mapping, memory, item.memoryId === '' ? mapping.offset : item.offset)
    const isOther = memory.window !== mapping.window
    const window = isOther ? memory.window.hold() : await this.#memories.renew(memory)
    try {
      await this.#point(space, mapping, { memory, window })
      if (!isOther) replaceWindow(memory, window)
    } finally {
      window.drop()
    }
    this.#endDeadline(space)
    return mapping.length
  }

  /** Update every invalid mapping with its own memory, one new window for each memory. */
  async updateAll(space: AddressSpace): Promise<bigint> {
    requireRemappable(space)
    const windows = new Map<Memory, Window>()
    let bytes = 0n
    try {
      for (const mapping of space.ledger.all().filter(({ isVaddrValid }) => !isVaddrValid)) {
        const { memory } = mapping
        const window = windows.get(memory) ?? (await this.#memories.renew(memory))
        windows.set(memory, window)
        await this.#point(space, mapping, { memory, window })
        bytes += mapping.length
      }
      for (const [memory, window] of windows) replaceWindow(memory, window)
    } finally {
      for (const window of windows.values()) window.drop()
    }
    this.#endDeadline(space)
    return bytes
  }

  /** Stop the clock of a space that is going away. */
  forget(space: AddressSpace): void {
    clearTimeout(this.#deadlines.get(space))
    this.#deadlines.delete(space)
  }

  async #point(
    space: AddressSpace,
    mapping: Mapping,
    through: { readonly memory: Memory; readonly window: Window },
  ): Promise<void> {
    const vaddr = through.window.at(mapping.offset)
    await updateVaddr(this.#kernel, space.containerFd, mapping, vaddr)
    space.ledger.renew(mapping, through)
  }

  #startDeadline(space: AddressSpace, ms: number): void {
    if (this.#deadlines.has(space)) return
    const timer = setTimeout(() => {
      this.#deadlines.delete(space)
      void space.lane.run(() => this.#restore(space))
    }, ms)
    timer.unref()
    this.#deadlines.set(space, timer)
  }

  #endDeadline(space: AddressSpace): void {
    if (space.ledger.invalid === 0) this.forget(space)
  }

  async #restore(space: AddressSpace): Promise<void> {
    if (space.isClosed) return
    const overdue = space.ledger.all().filter(({ isVaddrValid }) => !isVaddrValid)
    for (const mapping of overdue) {
      const { memory, window } = mapping
      await this.#point(space, mapping, { memory, window }).catch((error: unknown) =>
        this.#log('vaddr-not-restored', { space: space.id, mapping: mappingText(mapping), error }),
      )
    }
    this.#log('vaddr-restored', { space: space.id, mappings: overdue.length })
  }
}

/** New mappings go through the new window; the old one goes with its last holder. */
function replaceWindow(memory: Memory, window: Window): void {
  const old = memory.window
  memory.window = window.hold()
  old.drop()
}

function requireRemappable(space: AddressSpace): void {
  if (space.canRemap) return
  throw new VfiodError('REMAP_BLOCKED', `Cannot remap in "${space.id}": ${remapBlocked(space)}`, {
    op: 'VFIO_CHECK_EXTENSION',
    blockers: [],
  })
}

/** Why the space cannot remap; empty when it can. */
export function remapBlocked(space: AddressSpace): string {
  if (space.canRemap) return ''
  if (space.state !== 'ready') return 'it is not ready'
  return 'the kernel does not offer VFIO_UPDATE_VADDR here: it is older than 5.12, or a member group holds a mediated device, which looks memory up by vaddr; stop the device, then unmap and map again'
}

function exactlyAt(space: AddressSpace, item: Piece): Mapping {
  const range = requireRange('update the vaddr of', item, space.alignment)
  const mapping = space.ledger.exact(range)
  if (mapping !== undefined) return mapping
  const near = space.ledger.conflict(range)
  throw near === undefined
    ? notMapped(item)
    : new VfiodError(
        'BAD_RANGE',
        `Cannot update the vaddr of ${hex(item.length)} bytes at iova ${hex(item.iova)}: the mapping there is ${mappingText(near)}; name exactly its iova and length`,
        { field: 'length' },
      )
}

function requireInvalid(mapping: Mapping): void {
  if (!mapping.isVaddrValid) return
  throw new VfiodError(
    'VADDR_VALID',
    `Cannot update the vaddr of ${mappingText(mapping)}: it is valid; invalidate it first`,
  )
}

function requireSameBytes(mapping: Mapping, memory: Memory, offset: bigint): void {
  const was = mapping.memory
  const isSameFile = was.file.dev === memory.file.dev && was.file.inode === memory.file.inode
  if (isSameFile && offset === mapping.offset) return
  throw new VfiodError(
    'DIFFERENT_MEMORY',
    `Cannot update the vaddr of ${mappingText(mapping)}: memory "${memory.id}" at offset ${hex(offset)} is ${isSameFile ? `not offset ${hex(mapping.offset)}` : 'another file'}; devices would go on with the old bytes`,
    { field: isSameFile ? 'offset' : 'memory_id' },
  )
}

const notMapped = (piece: Piece | 'all'): VfiodError =>
  new VfiodError(
    'IOVA_NOT_MAPPED',
    piece === 'all'
      ? 'Cannot invalidate every vaddr: nothing is mapped'
      : `Cannot find a mapping inside ${hex(piece.length)} bytes at iova ${hex(piece.iova)}: nothing is mapped there`,
  )
