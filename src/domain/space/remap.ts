/**
 * Remap: same iova and length, another vaddr, while devices go on with DMA. Two halves: invalidate
 * marks the old vaddr as void, update gives the new one. The kernel does not check that the new
 * vaddr shows the same memory, so vfiod does: the same bytes of the same file, or DIFFERENT_MEMORY.
 *
 * Bounded. A vaddr that is still invalid at the deadline is restored through the window it had, so
 * that a client that dies or dawdles between the halves leaves nothing hanging.
 */

import { type Blocker, VfiodError } from '../../base/error.ts'
import { LIMITS } from '../../base/limits.ts'
import { hex, iova, rangeOf } from '../../base/units.ts'
import { Deadline } from '../../os/deadline.ts'
import type { Client } from '../identity/clients.ts'
import type { Remap } from '../iommu/backend.ts'
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
  readonly #memories: Memories
  readonly #deadlines = new Map<AddressSpace, Deadline>()
  readonly #log: (event: string, fields: Record<string, unknown>) => void

  constructor(parts: {
    readonly memories: Memories
    readonly log: (event: string, fields: Record<string, unknown>) => void
  }) {
    this.#memories = parts.memories
    this.#log = parts.log
  }

  /** Invalidate every mapping inside a piece, or every one: all of them or none. */
  async invalidate(
    space: AddressSpace,
    what: { readonly piece: Piece | 'all'; readonly deadlineMs: number },
  ): Promise<{ bytes: bigint; deadlineMs: number }> {
    const remap = requireRemappable(space)
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
    const bytes = await remap.invalidate(range)
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
    this.#deadlines.get(space)?.cancel()
    this.#deadlines.delete(space)
  }

  async #point(
    space: AddressSpace,
    mapping: Mapping,
    through: { readonly memory: Memory; readonly window: Window },
  ): Promise<void> {
    const vaddr = through.window.at(mapping.offset)
    await requireRemappable(space).update(mapping, vaddr)
    space.ledger.renew(mapping, through)
  }

  #startDeadline(space: AddressSpace, ms: number): void {
    if (this.#deadlines.has(space)) return
    const deadline = new Deadline(ms, () => {
      this.#deadlines.delete(space)
      void space.lane.run(() => this.#restore(space))
    })
    this.#deadlines.set(space, deadline)
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

function requireRemappable(space: AddressSpace): Remap {
  const { remap } = space.iommu
  if (space.state === 'ready' && 'offered' in remap) return remap.offered
  throw new VfiodError('REMAP_BLOCKED', `Cannot remap in "${space.id}": ${remapBlocked(space)}`, {
    blockers: remapBlockers(space),
  })
}

/** Why the space cannot remap; empty when it can. */
export function remapBlocked(space: AddressSpace): string {
  const { remap } = space.iommu
  if (space.state !== 'ready') return 'it is not ready'
  if ('offered' in remap) return ''
  const blockers = remapBlockers(space)
  if (blockers.length > 0) {
    return blockers.map(({ subject, found, fix }) => `${subject} is ${found}; ${fix}`).join('; ')
  }
  const isOld = space.iommu.kind === 'type1' ? ', which kernels have from 5.12 on' : ''
  return `${remap.missing}${isOld}; stop the device, then unmap and map again`
}

/** Type1 offers no update while a member has a driver that looks memory up by vaddr. */
const remapBlockers = (space: AddressSpace): Blocker[] => {
  if (space.iommu.kind !== 'type1' || 'offered' in space.iommu.remap) return []
  return space.emulatedGroups.map((group) => ({
    subject: `group ${group}`,
    found: 'of a mediated device, whose driver looks memory up by vaddr',
    fix: 'remove the group, or stop the device, then unmap and map again',
  }))
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
