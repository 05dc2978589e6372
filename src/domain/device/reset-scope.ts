/**
 * What the reset of a bus would hit: every device of the bus, who has it, and whether that keeps the
 * bus from being reset. A device of another client always does.
 */

import { type Blocker, type HolderDetail, VfiodError } from '../../base/error.ts'
import { holderDetail, holdersText } from '../../kernel/holders.ts'
import type { Holder } from '../../kernel/host-looks.ts'
import { allowsDevice } from '../../rules/policy.ts'
import { isBridge, isVfioDriver } from '../../rules/viability.ts'
import type { DeviceView, Inventory } from '../host/inventory.ts'
import type { Client } from '../identity/clients.ts'
import { holderOf } from '../state/owner.ts'
import type { SpaceRecord } from '../state/records.ts'
import type { State } from '../state/state.ts'

export interface AffectedDevice {
  readonly name: string
  /** Undefined for a device that is in no IOMMU group. */
  readonly group: number | undefined
  readonly driver: string | undefined
  readonly isBridge: boolean
  /** The address space that has its group. */
  readonly space: SpaceRecord | undefined
  readonly isOpen: boolean
  /** Processes outside the daemon that have its group or a device of it open. */
  readonly holders: readonly Holder[]
  /** What keeps it from being reset. */
  readonly blocker: Blocker | undefined
}

/** For whom a bus is to be reset. */
export interface ResetWish {
  readonly client: Client
  /** The device that it is about. */
  readonly name: string
  /** Whether devices that the client has open besides are reset with it. */
  readonly withOpen: boolean
  /** Whether the policy has to allow the client every device of the bus. */
  readonly needsAllowed: boolean
}

export class ResetScopes {
  readonly #inventory: Inventory
  readonly #state: State

  constructor(parts: { readonly inventory: Inventory; readonly state: State }) {
    this.#inventory = parts.inventory
    this.#state = parts.state
  }

  /** The devices of these names, by name. */
  async look(wish: ResetWish, names: readonly string[]): Promise<AffectedDevice[]> {
    return Promise.all(names.toSorted().map((name) => this.#affected(wish, name)))
  }

  async #affected(wish: ResetWish, name: string): Promise<AffectedDevice> {
    const view = await this.#find(name)
    if (view === undefined) return inNoGroup(name)
    const { group, driver } = view
    const { holders } = await this.#inventory.group(group)
    const space = this.#state.userOfGroup(group)
    const isOpen = this.#state.device(name) !== undefined
    const found = { name, group, driver, isBridge: isBridge(view), space, isOpen, holders }
    return { ...found, blocker: this.#blocker(wish, found, view) }
  }

  async #find(name: string): Promise<DeviceView | undefined> {
    try {
      return await this.#inventory.device(name)
    } catch (error) {
      if (error instanceof VfiodError && error.reason === 'NO_SUCH_DEVICE') return undefined
      throw error
    }
  }

  #blocker(
    wish: ResetWish,
    device: Omit<AffectedDevice, 'blocker'>,
    view: DeviceView,
  ): Blocker | undefined {
    const { name: subject, driver, space, isOpen, holders } = device
    const blocked = (found: string, fix: string): Blocker => ({ subject, found, fix })
    if (device.isBridge) return blocked('a bridge, which stays with the kernel', 'do without')
    if (!isVfioDriver(view)) {
      const found = driver === undefined ? 'without a driver' : `bound to ${driver}`
      return blocked(found, 'bind it to vfio-pci')
    }
    if (space !== undefined && space.owner.id !== wish.client.id) {
      const act = isOpen ? 'close it there first' : 'remove its group there first'
      const { holder, fix } = holderOf(this.#state, space.owner, act)
      const found = isOpen ? 'open' : `in group ${device.group}, which is a member`
      return blocked(`${found} in address space "${space.id}" of ${holder}`, fix)
    }
    if (holders.length > 0)
      return blocked(`kept open by ${holdersText(holders)}`, 'close it there first')
    if (isOpen && subject !== wish.name && !wish.withOpen) {
      const found = `open in address space "${space?.id}" of the caller itself`
      return blocked(found, 'close it, or ask for a reset of the open ones too')
    }
    if (!wish.needsAllowed || allowsDevice(wish.client.grant, view)) return undefined
    return blocked('not allowed to the caller by the policy', 'ask an administrator for a rule')
  }
}

const inNoGroup = (name: string): AffectedDevice => ({
  ...{ name, group: undefined, driver: undefined, isBridge: false },
  ...{ space: undefined, isOpen: false, holders: [] },
  blocker: { subject: name, found: 'in no IOMMU group', fix: 'do without' },
})

export const blockersOf = (devices: readonly AffectedDevice[]): Blocker[] =>
  devices.flatMap(({ blocker }) => blocker ?? [])

const blockersText = (blockers: readonly Blocker[]): string =>
  blockers.map(({ subject, found, fix }) => `${subject} is ${found}; ${fix}`).join('. ')

/** RESET_BLOCKED; it names the holder where one has a device. */
export function resetBlocked(
  act: string,
  blockers: readonly Blocker[],
  devices: readonly AffectedDevice[] = [],
): VfiodError {
  const holder = holderIn(devices)
  return new VfiodError('RESET_BLOCKED', `Cannot ${act}: ${blockersText(blockers)}`, {
    blockers,
    ...(holder === undefined ? {} : { holder }),
  })
}

function holderIn(devices: readonly AffectedDevice[]): HolderDetail | undefined {
  const held = devices.find(
    ({ blocker, space, holders }) => blocker !== undefined && (space ?? holders[0]) !== undefined,
  )
  if (held === undefined) return undefined
  const { space, holders } = held
  return space === undefined ? holderDetail(holders) : { client: space.owner.id, space: space.id }
}
