/**
 * One address space: a type1 container, its member groups, and its mappings.
 *
 *     EMPTY --add--> PENDING --every member viable--> READY
 *
 * A group may be added before it is viable: it is a member at once, and taken from the kernel when
 * it can be. Until then the space is pending, and says who is in the way. The first group that is
 * taken gives the container its IOMMU type; with the last one that leaves, the kernel drops every
 * mapping and the space is empty again.
 */

import { type Blocker, VfiodError } from '../../base/error.ts'
import { Lane } from '../../base/lane.ts'
import { type DeviceFd, type IovaRange, PAGE_SIZE } from '../../base/units.ts'
import { explained } from '../../kernel/diagnosis.ts'
import { holderDetail, holdersOf, holdersText } from '../../kernel/holders.ts'
import type { Kernel } from '../../kernel/port.ts'
import { wasErrno } from '../../kernel/refusal.ts'
import { groupDevices } from '../../kernel/sysfs.ts'
import type { GroupView, Inventory } from '../host/inventory.ts'
import { nodesOf } from '../host/outside.ts'
import { patiently } from '../host/patience.ts'
import type { Client } from '../identity/clients.ts'
import type { DeviceToOpen, IommuBackend, Limits } from '../iommu/backend.ts'
import type { GroupClaims } from '../iommu/group-claims.ts'
import type { Mappings } from '../state/mapping-table.ts'
import { holderOf, ownerText } from '../state/owner.ts'
import type { DeviceRecord, MemberRecord, OwnerRecord } from '../state/records.ts'
import type { State } from '../state/state.ts'
import { gone, invalidBlocker, notBound, refused } from './blockers.ts'
import { judgeAttach, judgeOpenDevice } from './judge-attach.ts'
import type { Piece } from './ranges.ts'

export type SpaceState = 'empty' | 'pending' | 'ready'

/** What a higher room wants of a space. Each is called in the lane of the space. */
export interface SpaceHooks {
  /** A range is about to be mapped; throws where it must not be. */
  readonly onMapping?: (piece: Piece) => void
  /** The last group has left, or the space is being released: the hooks are removed. */
  readonly onDetached?: () => void
}

export interface SpaceParts {
  readonly kernel: Kernel
  readonly inventory: Inventory
  readonly state: State
  readonly claims: GroupClaims
  /** How long an added group is waited for that the daemon has for a reset, in milliseconds. */
  readonly patienceMs: number
}

/** The runtime of an address space; what is true of it is in its records. */
export class AddressSpace {
  readonly id: string
  /** The owner as a client: asked what the policy grants it. Changes hands by handover only. */
  client: Client
  readonly iommu: IommuBackend
  /** Operations on the space and its devices run one after another. */
  readonly lane = new Lane()
  readonly hooks = new Set<SpaceHooks>()
  /** Set by Destroy and by the release of the owner: a call that waited in the lane finds it gone. */
  isClosed = false
  readonly #parts: SpaceParts
  /** Why members are not attached, by group. */
  readonly #blockers = new Map<number, readonly Blocker[]>()
  #limits: Limits | undefined

  constructor(id: string, client: Client, parts: SpaceParts, iommu: IommuBackend) {
    this.id = id
    this.client = client
    this.#parts = parts
    this.iommu = iommu
  }

  get owner(): OwnerRecord {
    return this.#state.space(this.id)?.owner ?? this.client
  }

  get mappings(): Mappings {
    return this.#state.mappings(this.id)
  }

  get members(): MemberRecord[] {
    return this.#state.membersOf(this.id)
  }

  get state(): SpaceState {
    const { members } = this
    if (members.length === 0) return 'empty'
    return members.every(({ isAttached }) => isAttached) ? 'ready' : 'pending'
  }

  /** Whether the kernel has any group in it: only then are there mappings. */
  get isAttached(): boolean {
    return this.members.some(({ isAttached }) => isAttached)
  }

  get groups(): number[] {
    return this.members.map(({ group }) => group)
  }

  /** Names of the devices that are open in it. */
  get devices(): string[] {
    return this.#state.devicesOf(this.id).map(({ name }) => name)
  }

  /** Those of them of which the host says something. */
  get conditions(): DeviceRecord[] {
    return this.#state.devicesOf(this.id).filter(({ conditions }) => conditions.length > 0)
  }

  get blockers(): Blocker[] {
    return this.groups.flatMap((group) => this.#blockers.get(group) ?? [])
  }

  /** Where mappings may lie; undefined where nothing limits them. */
  get apertures(): readonly IovaRange[] | undefined {
    return this.#limits?.apertures
  }

  get pageSizes(): bigint {
    return this.#limits?.pageSizes ?? 0n
  }

  /** What iova and length must be a multiple of: the smallest page size. */
  get alignment(): bigint {
    return this.pageSizes === 0n ? PAGE_SIZE : this.pageSizes & -this.pageSizes
  }

  /** Whether mapping pins memory, which counts against the daemon's RLIMIT_MEMLOCK. */
  get pins(): boolean {
    return this.members.some(({ pins }) => pins)
  }

  /** Member groups that no IOMMU serves: their drivers look memory up by vaddr. */
  get emulatedGroups(): number[] {
    return this.members.filter(({ pins }) => !pins).map(({ group }) => group)
  }

  /** Mappings that can be made in all; undefined on kernels that do not say. */
  mappingsMax: number | undefined

  has(group: number): boolean {
    return this.#state.member(group)?.spaceId === this.id
  }

  /** Open a device of a member group; the caller closes the fd, while the space is open. */
  async openDevice(group: number, device: DeviceToOpen): Promise<DeviceFd> {
    const opened = this.iommu.openDevice(group, device)
    const judge = judgeOpenDevice(this.#parts.kernel, this, { group, ...device })
    const fd = await explained(opened, judge)
    if (this.iommu.limitedBy === 'group') return fd
    try {
      await this.#refresh()
      return fd
    } catch (error) {
      await this.#parts.kernel.close(fd)
      throw error
    }
  }

  /** Add a group, viable or not. */
  async addGroup(group: number): Promise<void> {
    if (this.has(group)) {
      await this.settle()
      return
    }
    const view = await this.#parts.inventory.group(group)
    this.#requireFree(group)
    const { invalid } = this.mappings
    if (invalid > 0) {
      throw new VfiodError(
        'REMAP_BLOCKED',
        `Cannot add group ${group} to "${this.id}": the vaddr of ${invalid} mappings is invalid; update them first`,
        { blockers: this.mappings.all().flatMap(invalidBlocker) },
      )
    }
    const pins = view.devices.length === 0 || view.devices.some(({ bus }) => bus !== 'mdev')
    const isAttached = await this.#tryAttach(group, view)
    try {
      // Another space may have taken it while it was looked at.
      this.#requireFree(group)
    } catch (error) {
      if (isAttached) await this.iommu.detach(group)
      this.#blockers.delete(group)
      throw error
    }
    const member = { spaceId: this.id, group, pins, isAttached }
    this.#state.apply({ kind: 'member-set', member })
  }

  /** Remove a group that has no open devices; with the last one every mapping goes. */
  async removeGroup(group: number): Promise<void> {
    await this.#takeLost()
    if (!this.has(group)) {
      throw new VfiodError(
        'NO_SUCH_GROUP',
        `Cannot remove group ${group} from "${this.id}": it is not a member; members are ${this.groups.join(', ') || 'none'}`,
        { resource: { type: 'group', name: String(group) } },
      )
    }
    const openHere = this.#state
      .devicesOf(this.id)
      .filter((device) => device.group === group)
      .map(({ name }) => name)
    if (openHere.length > 0) {
      throw new VfiodError(
        'SPACE_IN_USE',
        `Cannot remove group ${group} from "${this.id}": ${openHere.join(', ')} is open; close it first`,
        {
          blockers: openHere.map((subject) => ({ subject, found: 'open', fix: 'close it' })),
        },
      )
    }
    if (this.#state.member(group)?.isAttached) await this.iommu.detach(group)
    this.#blockers.delete(group)
    this.#state.apply({ kind: 'member-removed', spaceId: this.id, group })
    if (this.members.some(({ isAttached }) => isAttached)) await this.#refresh()
    else this.#emptied()
  }

  /** Let go of the members that the kernel took out, and take the pending ones that have become viable. */
  async settle(): Promise<void> {
    await this.#takeLost()
    for (const member of this.members) {
      const { group, isAttached } = member
      if (isAttached) continue
      try {
        if (!(await this.#tryAttach(group, await this.#parts.inventory.group(group)))) continue
        this.#state.apply({ kind: 'member-set', member: { ...member, isAttached: true } })
      } catch (error) {
        if (!(error instanceof VfiodError)) throw error
        this.#blockers.set(group, [
          error.reason === 'NO_SUCH_GROUP' ? gone(group) : refused(group, error),
        ])
      }
    }
  }

  /** Whether the kernel took members out since it was asked last; the space is pending then. */
  async reconcile(): Promise<boolean> {
    if (!this.isAttached || !(await this.#takeLost())) return false
    await this.settle()
    return true
  }

  async #takeLost(): Promise<boolean> {
    const lost = await this.iommu.takeLost()
    const isEmpty =
      lost.length > 0 &&
      this.members.every(({ group, isAttached }) => !isAttached || lost.includes(group))
    const { owner } = this
    for (const member of this.members) {
      if (!lost.includes(member.group)) continue
      const mappings = isEmpty ? this.mappings.size : 0
      const unattached = { ...member, isAttached: false }
      this.#state.apply({ kind: 'member-lost', member: unattached, owner, mappings })
    }
    if (isEmpty) this.#emptied()
    else if (lost.length > 0) await this.#refresh()
    return lost.length > 0
  }

  /** Throw SPACE_NOT_READY, naming every blocker, unless the space can be mapped into. */
  async requireReady(act: string): Promise<void> {
    if (this.state === 'pending') await this.settle()
    if (this.state === 'ready') return
    const blockers = this.blockers
    const why =
      this.state === 'empty'
        ? 'it has no group; add one first'
        : blockers.map(({ subject, found, fix }) => `${subject} is ${found}; ${fix}`).join('; ')
    throw new VfiodError('SPACE_NOT_READY', `Cannot ${act} "${this.id}": ${why}`, { blockers })
  }

  /** Release everything in the legal order; the devices are closed by then. */
  async close(): Promise<void> {
    this.isClosed = true
    await this.iommu.close()
    // Only after the kernel let go of the pages may their memory be unmapped here.
    this.#emptied()
    for (const group of this.groups) {
      this.#state.apply({ kind: 'member-removed', spaceId: this.id, group })
    }
    this.#state.apply({ kind: 'space-closed', spaceId: this.id })
  }

  /** The mappings are gone or about to go: remove the hooks that follow them. */
  detachHooks(): void {
    for (const { onDetached } of this.hooks) onDetached?.()
    this.hooks.clear()
  }

  get #state(): State {
    return this.#parts.state
  }

  /** False, with the blockers noted, for a group that is not viable. */
  async #tryAttach(group: number, view: GroupView): Promise<boolean> {
    if (view.viability !== 'viable') {
      this.#blockers.set(group, view.blockers.length > 0 ? view.blockers : [notBound(view)])
      return false
    }
    await this.#attach(group)
    this.#blockers.delete(group)
    this.#state.apply({ kind: 'exports-closed', group })
    return true
  }

  /** Attach a group and learn the limits that it brings, or leave it out of the space again. */
  async #attach(group: number): Promise<void> {
    try {
      const attach = () => this.iommu.attach(group)
      await explained(this.#claimed(group, attach), judgeAttach(this.#parts.kernel, this, group))
    } catch (error) {
      throw wasErrno(error, 'EBUSY') && error.details.op === 'open /dev/vfio/GROUP'
        ? await this.#groupInUse(group, error)
        : error
    }
    try {
      await this.#refresh()
    } catch (error) {
      await this.iommu.detach(group).catch(() => undefined)
      throw error
    }
  }

  /** Act on a group that the daemon has for nothing else meanwhile. */
  #claimed<T>(group: number, operation: () => Promise<T>): Promise<T> {
    const { claims, patienceMs } = this.#parts
    const act = `add group ${group} to "${this.id}"`
    return claims.use(group, `the attachment to "${this.id}"`, operation, ({ what, ended }) =>
      patiently(ended, patienceMs, { act, step: () => what }),
    )
  }

  /** The holder, or the refusal as it was where none can be seen. */
  async #groupInUse(group: number, refused: VfiodError): Promise<VfiodError> {
    const { kernel } = this.#parts
    const nodes = await nodesOf(kernel, group, (await groupDevices(kernel, group)) ?? [])
    // Refused it is all the same, also where it cannot be said by which process.
    const holders = await holdersOf(kernel, nodes).catch(() => [])
    const exported = this.#state.exportsOf(group)
    const isSeen = holders.length > 0
    if (!isSeen && exported.length === 0) return refused
    const owner = isSeen ? holdersText(holders) : `the fd of ${exported.join(' and ')}`
    return new VfiodError(
      'GROUP_IN_USE',
      `Cannot add group ${group} to "${this.id}": ${owner} keeps it open; close it there first`,
      {
        ...refused.details,
        causes: ['group-open-elsewhere'],
        resource: { type: 'group', name: String(group), owner },
        ...(isSeen ? { holder: holderDetail(holders) } : {}),
      },
    )
  }

  #requireFree(group: number): void {
    const user = this.#state.userOfGroup(group)
    if (user === undefined) return
    const { holder, fix } = holderOf(this.#state, user.owner, 'remove it there first')
    throw new VfiodError(
      'GROUP_IN_USE',
      `Cannot add group ${group} to "${this.id}": it is a member of "${user.id}" of ${holder}; ${fix}`,
      {
        resource: { type: 'group', name: String(group), owner: ownerText(user.owner) },
        holder: { client: user.owner.id, space: user.id },
      },
    )
  }

  async #refresh(): Promise<void> {
    this.#limits = await this.iommu.limits()
    const available = this.#limits?.mappingsAvailable
    this.mappingsMax = available === undefined ? undefined : available + this.mappings.size
  }

  #emptied(): void {
    const mappings = this.mappings.all()
    if (mappings.length > 0) this.#state.apply({ kind: 'unmapped', spaceId: this.id, mappings })
    this.detachHooks()
    this.#limits = undefined
    this.mappingsMax = undefined
  }
}
