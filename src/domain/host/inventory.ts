/** The inventory of the host: groups, their devices, the blockers of a group, and changes. */

import { type Blocker, VfiodError } from '../../base/error.ts'
import { Mailbox } from '../../base/mailbox.ts'
import { OneLook } from '../../base/one-look.ts'
import { holderText } from '../../kernel/holders.ts'
import type { Holder } from '../../kernel/host-looks.ts'
import type { Kernel } from '../../kernel/port.ts'
import {
  busOf,
  groupDevices,
  groupName,
  groupNumbers,
  type HostDevice,
  hostDevice,
  memberDevice,
  whyNoGroups,
} from '../../kernel/sysfs.ts'
import { canonicalName } from '../../rules/device-name.ts'
import type { HostUse } from '../../rules/host-use.ts'
import {
  blockersOf,
  isNoIommuGroup,
  isVfioDriver,
  type Viability,
  viabilityOf,
} from '../../rules/viability.ts'
import type { Client } from '../identity/clients.ts'
import type { Quotas } from '../identity/quotas.ts'
import type { DeviceCondition, OwnerRecord } from '../state/records.ts'
import type { State } from '../state/state.ts'
import type { DeviceUsers } from './device-users.ts'
import { GroupLooks, type Look } from './group-looks.ts'
import { nodesOf, OutsideHolders } from './outside.ts'

export interface DeviceView extends HostDevice {
  /** The address space the device is open in. */
  readonly spaceId: string | undefined
  /** What the host says of it while it is open. */
  readonly conditions: readonly DeviceCondition[]
  /** Who has used it since it was last reset, as far as the daemon knows. */
  readonly lastUser: OwnerRecord | undefined
  /** What the host uses it for; undefined where that was not looked at, for it takes a while. */
  readonly hostUses?: readonly HostUse[]
}

export interface GroupView {
  readonly group: number
  /** No IOMMU is behind it, so that nothing the daemon is for can be done with it. */
  readonly isNoIommu: boolean
  /** By the drivers of its devices. */
  readonly viability: Viability
  /** What keeps the group from being used: devices with other drivers, and processes that have it open. */
  readonly blockers: readonly Blocker[]
  /** Processes outside the daemon that have the group or a device of it open. */
  readonly holders: readonly Holder[]
  readonly devices: readonly DeviceView[]
  /** The address space that has the group. */
  readonly spaceId: string | undefined
}

/** What a look at the inventory finds out besides what sysfs says of groups. */
interface Scope {
  /** What the host uses the devices for. */
  readonly hostUses?: boolean
}

export type InventoryEvent =
  | { readonly kind: 'group'; readonly group: GroupView }
  | { readonly kind: 'removed'; readonly group: number }
  | { readonly kind: 'present-sent' }

export class Inventory {
  readonly #kernel: Kernel
  readonly #state: State
  readonly #quotas: Quotas
  readonly #hostUses: OneLook<ReadonlyMap<string, readonly HostUse[]>>
  readonly #outside: OutsideHolders
  readonly #looks: GroupLooks<GroupView>

  constructor(parts: {
    readonly kernel: Kernel
    readonly state: State
    readonly quotas: Quotas
    readonly users: DeviceUsers
    readonly watchMs: number
  }) {
    this.#kernel = parts.kernel
    this.#outside = new OutsideHolders(parts.kernel)
    this.#state = parts.state
    this.#quotas = parts.quotas
    this.#hostUses = new OneLook(async () => {
      const used = await parts.users.usedByHost(await this.devices())
      return new Map(used.map(({ name, uses }) => [name, uses]))
    })
    this.#looks = new GroupLooks({
      views: () => this.groups(),
      state: parts.state,
      everyMs: parts.watchMs,
    })
  }

  /** Every group, by number. */
  async groups(scope: Scope = {}): Promise<GroupView[]> {
    const numbers = await groupNumbers(this.#kernel)
    const found = await Promise.all(numbers.map((number) => this.#groupView(number)))
    const views = found.filter((view) => view !== undefined)
    const devices = await this.#inScope(
      views.flatMap((view) => view.devices),
      scope,
    )
    return views.map((view) => ({
      ...view,
      devices: devices.filter(({ group }) => group === view.group),
    }))
  }

  /** Why `groups` answers none. */
  whyEmpty(): Promise<string> {
    return whyNoGroups(this.#kernel)
  }

  /** One group; NO_SUCH_GROUP when the host has none of that number. */
  async group(number: number, scope: Scope = {}): Promise<GroupView> {
    const view = await this.#groupView(number)
    if (view !== undefined) return { ...view, devices: await this.#inScope(view.devices, scope) }
    throw new VfiodError(
      'NO_SUCH_GROUP',
      `Cannot find group ${number}: the host has no such group`,
      {
        resource: { type: 'group', name: String(number) },
      },
    )
  }

  /** Every device that is in a group, by name. */
  async devices(scope: Scope = {}): Promise<DeviceView[]> {
    const devices = (await this.groups(scope)).flatMap((group) => group.devices)
    return devices.sort((a, b) => (a.name < b.name ? -1 : 1))
  }

  /** One device; NO_SUCH_DEVICE when no group has one of that name. */
  async device(name: string, scope: Scope = {}): Promise<DeviceView> {
    const device = await this.#find(canonicalName(name))
    const view = device === undefined ? undefined : this.#deviceView(device)
    const [looked] = view === undefined ? [] : await this.#inScope([view], scope)
    if (looked !== undefined) return looked
    throw new VfiodError(
      'NO_SUCH_DEVICE',
      `Cannot find device "${name}": no IOMMU group has a device of that name`,
      { resource: { type: 'device', name } },
    )
  }

  /** Every group as it is, then each group again when it changes, until the signal. */
  async *watch(client: Client, signal: AbortSignal): AsyncGenerator<InventoryEvent, void> {
    const charge = this.#quotas.charge(client, { watches: 1n })
    const looks = new Mailbox<Look<GroupView>>()
    const leave = this.#looks.join((look) => looks.push(look, 'look'))
    const known = new Map<number, string>()
    try {
      yield* changesOf(known, await this.groups())
      yield { kind: 'present-sent' }
      for await (const look of looks.read(signal)) {
        if ('error' in look) throw look.error
        yield* changesOf(known, look.views)
      }
    } finally {
      leave()
      charge.release()
    }
  }

  /** Only the groups know the devices of buses other than PCI and mdev. */
  async #find(name: string): Promise<HostDevice | undefined> {
    if (busOf(name) !== 'other') return hostDevice(this.#kernel, name)
    for (const group of await groupNumbers(this.#kernel)) {
      const names = await groupDevices(this.#kernel, group)
      if (names?.includes(name)) return memberDevice(this.#kernel, group, name)
    }
    return undefined
  }

  async #groupView(group: number): Promise<GroupView | undefined> {
    const names = await groupDevices(this.#kernel, group)
    if (names === undefined) return undefined
    const found = await Promise.all(names.map((name) => memberDevice(this.#kernel, group, name)))
    const devices = found.filter((device) => device !== undefined)
    const [holders, name] = await Promise.all([
      this.#holdersOf(group, devices),
      groupName(this.#kernel, group),
    ])
    return {
      group,
      isNoIommu: isNoIommuGroup(name, devices),
      viability: viabilityOf(devices),
      blockers: [...blockersOf(devices), ...holders.map((holder) => heldBy(group, holder))],
      holders,
      devices: devices.map((device) => this.#deviceView(device)),
      spaceId: this.#state.userOfGroup(group)?.id,
    }
  }

  /** A group that the daemon has is open for no other process. */
  async #holdersOf(group: number, devices: readonly HostDevice[]): Promise<Holder[]> {
    const bound = devices.filter(isVfioDriver)
    if (bound.length === 0 || this.#state.member(group)?.isAttached) return []
    const names = bound.map(({ name }) => name)
    return this.#outside.of(await nodesOf(this.#kernel, group, names))
  }

  async #inScope(
    devices: readonly DeviceView[],
    { hostUses = false }: Scope,
  ): Promise<readonly DeviceView[]> {
    if (!hostUses) return devices
    const uses = await this.#hostUses.take()
    return devices.map((device) => ({ ...device, hostUses: uses.get(device.name) ?? [] }))
  }

  #deviceView(device: HostDevice): DeviceView {
    const open = this.#state.device(device.name)
    return {
      ...device,
      spaceId: open?.spaceId,
      conditions: open?.conditions ?? [],
      lastUser: this.#state.lastUserOf(device.name),
    }
  }
}

/** What is new against what is known, which is brought up to date. */
function* changesOf(
  known: Map<number, string>,
  views: readonly GroupView[],
): Generator<InventoryEvent, void> {
  const present = new Set(views.map((view) => view.group))
  for (const group of known.keys()) {
    if (present.has(group)) continue
    known.delete(group)
    yield { kind: 'removed', group }
  }
  for (const view of views) {
    const seen = JSON.stringify(view)
    if (known.get(view.group) === seen) continue
    known.set(view.group, seen)
    yield { kind: 'group', group: view }
  }
}

const heldBy = (group: number, holder: Holder): Blocker => ({
  subject: `group ${group}`,
  found: `open in ${holderText(holder)} by ${holder.path}`,
  fix: 'close it there',
})

/** Throw UNSUPPORTED for a device that VFIO may serve and vfiod does not. */
export function requireServedBus({ name, bus, busName }: HostDevice, act: string): void {
  if (bus !== 'other') return
  throw new VfiodError(
    'UNSUPPORTED',
    `Cannot ${act} ${name}: it is on the bus ${busName}, and vfiod serves PCI and mediated devices`,
    { resource: { type: 'device', name } },
  )
}
