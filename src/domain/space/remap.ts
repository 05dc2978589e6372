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
import { hex, iova, lengthOf, rangeOf } from '../../base/units.ts'
import { Deadline } from '../../os/deadline.ts'
import type { Client } from '../identity/clients.ts'
import type { Remap } from '../iommu/backend.ts'
import type { Memories } from '../memory/memories.ts'
import type { Memory } from '../memory/memory.ts'
import type { Window } from '../memory/window.ts'
import { isOfMemory, type MappingRecord, type MemoryMapping } from '../state/records.ts'
import type { State } from '../state/state.ts'
import { insideOf } from './mapping.ts'
import { mappingText, type Piece, requireRange } from './ranges.ts'
import type { AddressSpace } from './space.ts'

export interface UpdateItem extends Piece {
  /** The memory to go on with; the mapping's own when empty. */
  readonly memoryId: string
  readonly offset: bigint
}

export class Remaps {
  readonly #memories: Memories
  readonly #state: State
  readonly #deadlines = new Map<AddressSpace, Deadline>()
  readonly #log: (event: string, fields: Record<string, unknown>) => void

  constructor(parts: {
    readonly memories: Memories
    readonly state: State
    readonly log: (event: string, fields: Record<string, unknown>) => void
  }) {
    this.#memories = parts.memories
    this.#state = parts.state
    this.#log = parts.log
  }

  /** Invalidate every mapping inside a piece, or every one: all of them or none. */
  async invalidate(
    space: AddressSpace,
    what: { readonly piece: Piece | 'all'; readonly deadlineMs: number },
  ): Promise<{ bytes: bigint; deadlineMs: number }> {
    const remap = requireRemappable(space)
    const { piece } = what
    const inside = piece === 'all' ? space.mappings.all() : insideOf(space, piece, 'invalidate')
    if (inside.length === 0) throw notMapped(piece)
    const found = inside.filter(isOfMemory)
    const ofDevice = inside.find((mapping) => !isOfMemory(mapping))
    if (ofDevice !== undefined) throw ofRegion(ofDevice)
    const invalid = found.find((mapping) => !mapping.isVaddrValid)
    if (invalid !== undefined) {
      throw new VfiodError(
        'VADDR_INVALID',
        `Cannot invalidate the vaddr of ${mappingText(invalid)}: it is invalid already; update it first`,
      )
    }
    const range = piece === 'all' ? piece : rangeOf(iova(piece.iova), piece.length)
    const bytes = await remap.invalidate(range)
    const mappings = found.map((before) => ({ before, after: { ...before, isVaddrValid: false } }))
    this.#state.apply({ kind: 'remapped', spaceId: space.id, mappings })
    const wantedMs = Math.min(what.deadlineMs || LIMITS.vaddrInvalidMs, LIMITS.vaddrInvalidMs)
    return { bytes, deadlineMs: this.#startDeadline(space, wantedMs) }
  }

  /** Update one mapping, named by exactly its range. */
  async update(space: AddressSpace, client: Client, item: UpdateItem): Promise<bigint> {
    requireRemappable(space)
    const mapping = exactlyAt(space, item)
    requireInvalid(mapping)
    const isOwn = item.memoryId === ''
    const was = this.#memories.runtime(mapping.memoryId)
    const memory = isOwn ? was : this.#memories.get(client, item.memoryId)
    requireSameBytes(mapping, { was, memory, offset: isOwn ? mapping.offset : item.offset })
    // The memory must not be released while the kernel is asked.
    const use = memory.use()
    const isOther = mapping.memoryId !== memory.id || use.window.id !== mapping.windowId
    try {
      const window = isOther ? use.window.hold() : await this.#memories.mapAgain(client, memory)
      try {
        await this.#point(space, mapping, { memory, window })
        if (!isOther) memory.replaceWindow(window)
      } finally {
        window.drop()
      }
    } finally {
      use.drop()
    }
    this.#endDeadline(space)
    return lengthOf(mapping)
  }

  /** Update every invalid mapping with its own memory, one new window for each memory. */
  async updateAll(space: AddressSpace): Promise<bigint> {
    requireRemappable(space)
    const windows = new Map<Memory, Window>()
    let bytes = 0n
    try {
      for (const mapping of invalidIn(space)) {
        const memory = this.#memories.runtime(mapping.memoryId)
        const window = windows.get(memory) ?? (await this.#memories.mapAgain(space.client, memory))
        windows.set(memory, window)
        await this.#point(space, mapping, { memory, window })
        bytes += lengthOf(mapping)
      }
      for (const [memory, window] of windows) memory.replaceWindow(window)
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
    before: MemoryMapping,
    through: { readonly memory: Memory; readonly window: Window },
  ): Promise<void> {
    const { memory, window } = through
    await requireRemappable(space).update(before, window.at(before.offset))
    const after = { ...before, memoryId: memory.id, windowId: window.id, isVaddrValid: true }
    const mappings = [{ before, after }]
    this.#state.apply({ kind: 'remapped', spaceId: space.id, mappings })
  }

  /** Answers in how many milliseconds the space is due: that of an earlier call counts for all. */
  #startDeadline(space: AddressSpace, ms: number): number {
    const running = this.#deadlines.get(space)
    if (running !== undefined) return running.remainingMs
    const deadline = new Deadline(ms, () => {
      this.#deadlines.delete(space)
      void space.lane.run(() => this.#restore(space))
    })
    this.#deadlines.set(space, deadline)
    return ms
  }

  #endDeadline(space: AddressSpace): void {
    if (space.mappings.invalid === 0) this.forget(space)
  }

  async #restore(space: AddressSpace): Promise<void> {
    if (space.isClosed) return
    const overdue = invalidIn(space)
    if (overdue.length === 0) return
    let failed = 0
    for (const mapping of overdue) {
      const memory = this.#memories.runtime(mapping.memoryId)
      try {
        await this.#point(space, mapping, { memory, window: memory.windowOf(mapping.windowId) })
      } catch (error) {
        failed += 1
        const fields = { space: space.id, mapping: mappingText(mapping), error }
        this.#log('vaddr-not-restored', fields)
      }
    }
    const { owner, id: spaceId } = space
    const restored = overdue.length - failed
    this.#state.apply({ kind: 'vaddr-restored', spaceId, owner, restored, failed })
  }
}

const invalidIn = (space: AddressSpace): MemoryMapping[] =>
  space.mappings
    .all()
    .filter(isOfMemory)
    .filter(({ isVaddrValid }) => !isVaddrValid)

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
  const drivers = driversInTheWay(space)
  if (drivers.length > 0) {
    return drivers.map(({ subject, found, fix }) => `${subject} is ${found}; ${fix}`).join('; ')
  }
  return `${missingText(space, remap.missing)}; ${UNMAP_AND_MAP}`
}

/** The same, object by object; empty when it can. */
export function remapBlockers(space: AddressSpace): Blocker[] {
  const { remap } = space.iommu
  const subject = `address space "${space.id}"`
  if (space.state === 'empty') return [{ subject, found: 'without a group', fix: 'add one' }]
  if (space.state === 'pending') return space.blockers
  if ('offered' in remap) return []
  const drivers = driversInTheWay(space)
  if (drivers.length > 0) return drivers
  return [{ subject, found: missingText(space, remap.missing), fix: UNMAP_AND_MAP }]
}

const UNMAP_AND_MAP = 'stop the device, then unmap and map again'

const missingText = (space: AddressSpace, missing: string): string =>
  space.iommu.kind === 'type1' ? `${missing}, which kernels have from 5.12 on` : missing

/** Type1 offers no update while a member has a driver that looks memory up by vaddr. */
const driversInTheWay = (space: AddressSpace): Blocker[] => {
  if (space.iommu.kind !== 'type1' || 'offered' in space.iommu.remap) return []
  return space.emulatedGroups.map((group) => ({
    subject: `group ${group}`,
    found: 'of a mediated device, whose driver looks memory up by vaddr',
    fix: `remove the group, or ${UNMAP_AND_MAP}`,
  }))
}

function exactlyAt(space: AddressSpace, item: Piece): MemoryMapping {
  const range = requireRange('update the vaddr of', item, space.alignment)
  const mapping = space.mappings.exact(range)
  if (mapping !== undefined && isOfMemory(mapping)) return mapping
  if (mapping !== undefined) throw ofRegion(mapping)
  const near = space.mappings.conflict(range)
  throw near === undefined
    ? notMapped(item)
    : new VfiodError(
        'BAD_RANGE',
        `Cannot update the vaddr of ${hex(item.length)} bytes at iova ${hex(item.iova)}: the mapping there is ${mappingText(near)}; name exactly its iova and length`,
        { field: 'length' },
      )
}

/** Regions of devices have no vaddr that could lead to the same bytes elsewhere. */
function ofRegion(mapping: MappingRecord): VfiodError {
  const subject = mappingText(mapping)
  const fix = 'name ranges without it, or unmap it'
  return new VfiodError(
    'REMAP_BLOCKED',
    `Cannot remap ${subject}: only mappings of memory have a vaddr to update; ${fix}`,
    { blockers: [{ subject, found: 'of a region of a device', fix }] },
  )
}

function requireInvalid(mapping: MemoryMapping): void {
  if (!mapping.isVaddrValid) return
  throw new VfiodError(
    'VADDR_VALID',
    `Cannot update the vaddr of ${mappingText(mapping)}: it is valid; invalidate it first`,
  )
}

function requireSameBytes(
  mapping: MemoryMapping,
  wanted: { readonly was: Memory; readonly memory: Memory; readonly offset: bigint },
): void {
  const { was, memory, offset } = wanted
  const isSameFile = was.file.dev === memory.file.dev && was.file.inode === memory.file.inode
  if (isSameFile && offset === mapping.offset) return
  throw new VfiodError(
    'DIFFERENT_MEMORY',
    `Cannot update the vaddr of ${mappingText(mapping)}: memory "${memory.id}" at offset ${hex(offset)} is ${isSameFile ? `not offset ${hex(mapping.offset)}` : 'another file'}; devices would keep using the old bytes`,
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
