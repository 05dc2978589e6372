/**
 * One address space: a type1 container, its member groups, and what is mapped in it.
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
import type { Kernel } from '../../kernel/port.ts'
import { wasErrno } from '../../kernel/refusal.ts'
import { commandOf, holdersOf } from '../../kernel/sysfs.ts'
import type { Uses } from '../host/claims.ts'
import type { GroupView, Inventory } from '../host/inventory.ts'
import { type Client, clientText } from '../identity/clients.ts'
import type { Quotas } from '../identity/quotas.ts'
import type { IommuBackend, Limits } from '../iommu/backend.ts'
import { openBackend } from '../iommu/modes.ts'
import { Ledger, type Mapping } from './mapping-table.ts'
import type { Piece } from './ranges.ts'

export type SpaceState = 'empty' | 'pending' | 'ready'

interface Member {
  readonly group: number
  /** Whether the IOMMU serves it: the kernel pins what is mapped. A group of mdevs asks later. */
  readonly pins: boolean
  isAttached: boolean
  /** Why it is not, when it is not. */
  blockers: readonly Blocker[]
}

/** An open device, as the space that it is open in knows it. */
export interface SpaceDevice {
  readonly name: string
  readonly group: number
  readonly isInSession: boolean
  /** The space has a new owner. */
  handOn(): void
}

/** What a higher room wants to hear of a space. Each is called in the lane of the space. */
export interface SpaceHooks {
  /** A range is about to be mapped; throws where it must not be. */
  readonly onMapping?: (piece: Piece) => void
  /** The kernel has unmapped it. */
  readonly onUnmapped?: (mapping: Mapping) => void
  /** The space has a new owner. */
  readonly onHandedOver?: () => void
  /** The last group has left, or the space is being released: the hooks are removed. */
  readonly onDetached?: () => void
}

export interface SpaceParts {
  readonly kernel: Kernel
  readonly inventory: Inventory
  readonly uses: Uses
  readonly quotas: Quotas
}

export class AddressSpace {
  readonly id: string
  /** Changes hands by handover only. */
  owner: Client
  readonly iommu: IommuBackend
  readonly ledger: Ledger
  /** Operations on the space and its devices run one after another. */
  readonly lane = new Lane()
  /** The devices that are open in it, by name. */
  readonly devices = new Map<string, SpaceDevice>()
  readonly hooks = new Set<SpaceHooks>()
  /** Set by Destroy and by the release of the owner: whoever waited in the lane finds it gone. */
  isClosed = false
  readonly #parts: SpaceParts
  readonly #members = new Map<number, Member>()
  #limits: Limits | undefined

  private constructor(id: string, owner: Client, parts: SpaceParts, iommu: IommuBackend) {
    this.id = id
    this.owner = owner
    this.#parts = parts
    this.iommu = iommu
    this.ledger = new Ledger({
      take: (amounts) => parts.quotas.take(this.owner, amounts),
      give: (amounts) => parts.quotas.give(this.owner, amounts),
    })
  }

  static async create(id: string, owner: Client, parts: SpaceParts): Promise<AddressSpace> {
    parts.quotas.take(owner, { address_spaces: 1n })
    try {
      return new AddressSpace(id, owner, parts, await openBackend(parts.kernel))
    } catch (error) {
      parts.quotas.give(owner, { address_spaces: 1n })
      throw error
    }
  }

  get state(): SpaceState {
    if (this.#members.size === 0) return 'empty'
    return [...this.#members.values()].every(({ isAttached }) => isAttached) ? 'ready' : 'pending'
  }

  get groups(): number[] {
    return [...this.#members.keys()].sort((a, b) => a - b)
  }

  get blockers(): Blocker[] {
    return [...this.#members.values()].flatMap((member) => member.blockers)
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
    return [...this.#members.values()].some(({ pins }) => pins)
  }

  /** Member groups that no IOMMU serves: their drivers look memory up by vaddr. */
  get emulatedGroups(): number[] {
    return [...this.#members.values()].filter(({ pins }) => !pins).map(({ group }) => group)
  }

  /** Mappings that can be made in all; undefined on kernels that do not say. */
  mappingsMax: number | undefined

  has(group: number): boolean {
    return this.#members.has(group)
  }

  /** Open a device of a member group; the caller closes the fd, while the space is open. */
  async openDevice(group: number, name: string): Promise<DeviceFd> {
    const fd = await this.iommu.openDevice(group, name)
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
  async addGroup(number: number): Promise<void> {
    if (this.#members.has(number)) {
      await this.settle()
      return
    }
    const view = await this.#parts.inventory.group(number)
    this.#requireFree(number)
    if (this.ledger.invalid > 0) {
      throw new VfiodError(
        'REMAP_BLOCKED',
        `Cannot add group ${number} to "${this.id}": the vaddr of ${this.ledger.invalid} mappings is invalid; update them first`,
      )
    }
    const pins = view.devices.length === 0 || view.devices.some(({ bus }) => bus !== 'mdev')
    const member: Member = { group: number, pins, isAttached: false, blockers: [] }
    await this.#tryAttach(member, view)
    this.#members.set(number, member)
    this.#parts.uses.takeGroup(number, this)
    this.#parts.inventory.nudge()
  }

  /** Remove a group that has no open devices; with the last one every mapping goes. */
  async removeGroup(number: number): Promise<void> {
    const member = this.#members.get(number)
    if (member === undefined) {
      throw new VfiodError(
        'NO_SUCH_GROUP',
        `Cannot remove group ${number} from "${this.id}": it is not a member; members are ${this.groups.join(', ') || 'none'}`,
        { resource: { type: 'group', name: String(number) } },
      )
    }
    const openHere = [...this.devices.values()]
      .filter(({ group }) => group === number)
      .map(({ name }) => name)
    if (openHere.length > 0) {
      throw new VfiodError(
        'SPACE_IN_USE',
        `Cannot remove group ${number} from "${this.id}": ${openHere.join(', ')} is open; close it first`,
        {
          blockers: openHere.map((subject) => ({ subject, found: 'open', fix: 'close it' })),
        },
      )
    }
    if (member.isAttached) await this.iommu.detach(number)
    this.#members.delete(number)
    this.#parts.uses.dropGroup(number)
    if (this.#attached().length === 0) this.#emptied()
    else await this.#refresh()
    this.#parts.inventory.nudge()
  }

  /** Take the pending members that have become viable. */
  async settle(): Promise<void> {
    for (const member of this.#members.values()) {
      if (member.isAttached) continue
      try {
        await this.#tryAttach(member, await this.#parts.inventory.group(member.group))
      } catch (error) {
        if (!(error instanceof VfiodError)) throw error
        member.blockers = [
          {
            subject: `group ${member.group}`,
            found: error.message,
            fix: 'remove the group, or free it',
          },
        ]
      }
    }
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
    const { uses, inventory } = this.#parts
    this.isClosed = true
    await this.iommu.close()
    for (const group of this.#members.keys()) uses.dropGroup(group)
    this.#members.clear()
    // Only after the kernel let go of the pages may their memory be unmapped here.
    this.#emptied()
    this.#parts.quotas.give(this.owner, { address_spaces: 1n })
    inventory.nudge()
  }

  /** The mappings are gone or about to go: nobody follows them any longer. */
  detachHooks(): void {
    for (const { onDetached } of this.hooks) onDetached?.()
    this.hooks.clear()
  }

  #attached(): Member[] {
    return [...this.#members.values()].filter(({ isAttached }) => isAttached)
  }

  async #tryAttach(member: Member, view: GroupView): Promise<void> {
    if (view.viability !== 'viable') {
      member.blockers = view.blockers.length > 0 ? view.blockers : [notBound(view)]
      return
    }
    await this.#attach(member.group)
    this.#parts.uses.clearExports(member.group)
    member.isAttached = true
    member.blockers = []
  }

  /** Attach a group and learn the limits that it brings, or leave it out of the space again. */
  async #attach(group: number): Promise<void> {
    try {
      await this.iommu.attach(group)
    } catch (error) {
      throw wasErrno(error, 'EBUSY') && error.details.op === 'open /dev/vfio/GROUP'
        ? await this.#groupInUse(group)
        : error
    }
    try {
      await this.#refresh()
    } catch (error) {
      await this.iommu.detach(group).catch(() => undefined)
      throw error
    }
  }

  async #groupInUse(group: number): Promise<VfiodError> {
    const holder = await this.#holderText(group)
    return new VfiodError(
      'GROUP_IN_USE',
      `Cannot add group ${group} to "${this.id}": ${holder} keeps it open; close it there first`,
      {
        op: 'open /dev/vfio/GROUP',
        errno: 'EBUSY',
        resource: { type: 'group', name: String(group), owner: holder },
      },
    )
  }

  async #holderText(group: number): Promise<string> {
    const { kernel } = this.#parts
    const pids = await holdersOf(kernel, `/dev/vfio/${group}`)
    if (pids.length === 0) {
      const exported = this.#parts.uses.exportsOf(group)
      return exported.length > 0 ? `the fd of ${exported.join(' and ')}` : 'another process'
    }
    const named = pids.map(
      async (pid) => `pid ${pid} (${(await commandOf(kernel, pid)) ?? 'gone'})`,
    )
    return (await Promise.all(named)).join(' and ')
  }

  #requireFree(group: number): void {
    const user = this.#parts.uses.groupUser(group)
    if (user === undefined) return
    throw new VfiodError(
      'GROUP_IN_USE',
      `Cannot add group ${group} to "${this.id}": it is a member of "${user.id}" of ${clientText(user.owner)}; remove it there first`,
      { resource: { type: 'group', name: String(group), owner: clientText(user.owner) } },
    )
  }

  async #refresh(): Promise<void> {
    this.#limits = await this.iommu.limits()
    const available = this.#limits?.mappingsAvailable
    this.mappingsMax = available === undefined ? undefined : available + this.ledger.size
  }

  #emptied(): void {
    this.ledger.clear()
    this.detachHooks()
    this.#limits = undefined
    this.mappingsMax = undefined
  }
}

const notBound = (view: GroupView): Blocker => ({
  subject: `group ${view.group}`,
  found: 'without a device that is bound to a VFIO driver',
  fix: `bind ${view.devices.map(({ name }) => name).join(' and ')} to vfio-pci`,
})
