/**
 * Hot resets: of the bus of a device, and with it of every device there. One is made when its owner
 * asks for it, and when a device that cannot be reset by itself is opened by another client than the
 * one that used it last.
 *
 * Lanes are taken in one order: address spaces by id, then groups without a user (a claim, which waits
 * for nothing), then devices by name. With all of them held, nothing that is reset changes hands.
 */

import { type Blocker, VfiodError } from '../../base/error.ts'
import { runIfIdle, runInAll } from '../../base/lane.ts'
import type { DeviceFd } from '../../base/units.ts'
import { holdersOf, holdersText } from '../../kernel/holders.ts'
import { hotResetScope } from '../../kernel/hot-reset-calls.ts'
import type { Kernel } from '../../kernel/port.ts'
import { wasErrno } from '../../kernel/refusal.ts'
import { onBusOf } from '../../kernel/sysfs.ts'
import type { Inventory } from '../host/inventory.ts'
import { nodesOf } from '../host/outside.ts'
import { patientlyIn, type Within } from '../host/patience.ts'
import type { Client } from '../identity/clients.ts'
import { type BusGroups, resetBus } from '../iommu/bus-reset.ts'
import type { GroupClaims } from '../iommu/group-claims.ts'
import type { AddressSpace } from '../space/space.ts'
import { ownerText } from '../state/owner.ts'
import type { OpeningReset, OwnerRecord } from '../state/records.ts'
import type { State } from '../state/state.ts'
import { notOpen, type OpenDevice } from './device.ts'
import type { RegionMappings } from './region-mappings.ts'
import {
  type AffectedDevice,
  blockersOf,
  ResetScopes,
  type ResetWish,
  resetBlocked,
} from './reset-scope.ts'

/** What the reset of the bus of a device would hit, and what is in its way. */
export interface HotResetView {
  /** By name; none where no bridge is above the device. */
  readonly devices: readonly AffectedDevice[]
  /** None where it is possible, as far as can be seen without trying. */
  readonly blockers: readonly Blocker[]
}

/** A hot reset that was made. */
export interface HotReset {
  /** What was reset, by name. */
  readonly devices: readonly AffectedDevice[]
  /** How many mappings of their regions were removed for it. */
  readonly removed: number
}

interface Parts {
  readonly kernel: Kernel
  readonly inventory: Inventory
  readonly state: State
  readonly claims: GroupClaims
  readonly patienceMs: number
  readonly spacesOf: (client: OwnerRecord) => readonly AddressSpace[]
  /** The open device of a name, of any client. */
  readonly openDevice: (name: string) => OpenDevice | undefined
  readonly regionMappings: RegionMappings
}

/** A device whose fd is open, though perhaps in no record yet. */
interface Target {
  readonly name: string
  readonly fd: DeviceFd
}

export class HotResets {
  readonly #parts: Parts
  readonly #scopes: ResetScopes

  constructor(parts: Parts) {
    this.#parts = parts
    this.#scopes = new ResetScopes(parts)
  }

  /** What a hot reset would hit. Nothing is opened for that. */
  async look(client: Client, wanted: string, withOpen: boolean): Promise<HotResetView> {
    const { name, resets } = await this.#parts.inventory.device(wanted)
    const names = resets.byBus ? await onBusOf(this.#parts.kernel, name) : undefined
    if (names === undefined) return { devices: [], blockers: [onRootBus(name)] }
    const devices = await this.#scopes.look({ client, name, withOpen, needsAllowed: true }, names)
    return { devices, blockers: blockersOf(devices) }
  }

  /** Reset the bus of an open device of the client. */
  reset(client: Client, device: OpenDevice, withOpen: boolean): Promise<HotReset> {
    const { kernel, patienceMs } = this.#parts
    const { name } = device
    const act = resetAct(name)
    return patientlyIn(patienceMs, act, async (within) => {
      const names = await device.run(client, () => hotResetScope(kernel, device.fd))
      const wish = { client, name, withOpen, needsAllowed: true }
      const spaces = this.#spacesWith(client, await this.#scopes.look(wish, names), device.space)
      return runInAll(
        spaces.map(({ lane }) => lane),
        async () => {
          if (device.isClosed) throw notOpen(name)
          device.requireOwner(client)
          const devices = await this.#free(act, wish, device)
          return { devices, removed: await this.#reset(wish, device, { devices, spaces, within }) }
        },
      )
    })
  }

  /**
   * Reset the bus of a device that is being opened, where another client may have used it and it cannot be
   * reset by itself: if no other device of the bus is in use. Runs in the lane of the space.
   */
  async atOpening(
    target: Target & { readonly hasBridge: boolean },
    space: AddressSpace,
    within: Within,
  ): Promise<OpeningReset> {
    const { state, kernel } = this.#parts
    const { name, fd } = target
    const { client } = space
    const lastUser = state.lastUserOf(name)
    if (lastUser?.id === client.id) return unreset('it is as this client left it', [], lastUser)
    if (!target.hasBridge) return unreset(NO_WAY, [], lastUser)
    const act = resetAct(name)
    const wish = { client, name, withOpen: false, needsAllowed: false }
    try {
      const names = await hotResetScope(kernel, fd)
      const spaces = this.#spacesWith(client, await this.#scopes.look(wish, names), space)
      const others = spaces.filter((each) => each !== space).map(({ lane }) => lane)
      const work = runIfIdle(others, async () => {
        const devices = await this.#free(act, wish, target)
        await this.#reset(wish, target, { devices, spaces, within })
      })
      if (work === undefined) return unreset('another call works on its bus', [], lastUser)
      await work
      return { kind: 'hot', why: '', blockers: [] }
    } catch (error) {
      if (!(error instanceof VfiodError) || BROKEN.has(error.reason)) throw error
      const why = error.message.slice(error.message.indexOf(': ') + 2)
      return unreset(why, error.details.blockers ?? [], lastUser)
    }
  }

  /** The devices of the bus, or RESET_BLOCKED. */
  async #free(act: string, wish: ResetWish, { fd }: Target): Promise<AffectedDevice[]> {
    const devices = await this.#scopes.look(wish, await hotResetScope(this.#parts.kernel, fd))
    const blockers = blockersOf(devices)
    if (blockers.length > 0) throw resetBlocked(act, blockers, devices)
    return devices
  }

  /** The spaces of the client that have devices of the bus, and the one of the device, by id. */
  #spacesWith(
    client: OwnerRecord,
    devices: readonly AffectedDevice[],
    own: AddressSpace,
  ): AddressSpace[] {
    const ids = new Set([own.id, ...devices.map(({ space }) => space?.id)])
    return this.#parts
      .spacesOf(client)
      .filter(({ id }) => ids.has(id))
      .sort((a, b) => (a.id < b.id ? -1 : 1))
  }

  /** Answers how many mappings of regions were removed for it. Runs in the lanes of the spaces. */
  async #reset(
    { client, name }: ResetWish,
    target: Target,
    at: {
      readonly devices: readonly AffectedDevice[]
      readonly spaces: readonly AddressSpace[]
      readonly within: Within
    },
  ): Promise<number> {
    const { kernel, claims, openDevice, regionMappings } = this.#parts
    const { devices } = at
    const act = resetAct(name)
    // Nothing is awaited from here to the claim: what is free is what is claimed.
    const groups = this.#groupsOf(act, devices, at.spaces)
    const release = claims.take(groups.free, act)
    const open = devices.flatMap(({ name }) => openDevice(name) ?? [])
    let removed = 0
    try {
      for (const device of open) removed += await regionMappings.remove(device, 'its bus is reset')
      await runInAll(
        open.map(({ lane }) => lane),
        async () => {
          // They may have been handed over while this waited.
          for (const device of open) device.requireOwner(client)
          try {
            await at.within(act, resetBus(kernel, target.fd, groups))
          } catch (error) {
            if (hasHappened(error)) await tellHooks(open)
            throw await this.#explained(act, error, { devices, free: groups.free })
          }
          await tellHooks(open)
        },
      )
    } finally {
      release()
    }
    const names = devices.map(({ name }) => name)
    this.#parts.state.apply({ kind: 'devices-reset', devices: names })
    return removed
  }

  /** Who has each group of the bus; RESET_BLOCKED where one has come into use meanwhile. */
  #groupsOf(
    act: string,
    devices: readonly AffectedDevice[],
    spaces: readonly AddressSpace[],
  ): BusGroups {
    const { state, claims } = this.#parts
    const members: BusGroups['members'][number][] = []
    const free: number[] = []
    for (const group of new Set(devices.flatMap((device) => device.group ?? []))) {
      const member = state.member(group)
      const space = spaces.find(({ id, isClosed }) => id === member?.spaceId && !isClosed)
      const claim = claims.of(group)
      if (claim !== undefined || (member !== undefined && space === undefined)) {
        const subject = `group ${group}`
        const found =
          claim === undefined ? 'a member of an address space by now' : `in use for ${claim.what}`
        throw resetBlocked(act, [{ subject, found, fix: 'repeat the call' }], devices)
      }
      if (member?.isAttached && space !== undefined) members.push({ group, backend: space.iommu })
      else free.push(group)
    }
    return { members, free }
  }

  /** A group that is open elsewhere blocks the reset as well, although no look has shown it. */
  async #explained(
    act: string,
    error: unknown,
    at: { readonly devices: readonly AffectedDevice[]; readonly free: readonly number[] },
  ): Promise<unknown> {
    if (!wasErrno(error, 'EBUSY') || error.details.op !== 'open /dev/vfio/GROUP') return error
    const found = await Promise.all(at.free.map((group) => this.#opener(group, at.devices)))
    const known = found.filter((blocker) => blocker !== undefined)
    const unknown = { subject: 'a group of its bus', found: 'kept open by another process' }
    const blockers = known.length > 0 ? known : [{ ...unknown, fix: 'close it there first' }]
    return resetBlocked(act, blockers)
  }

  /** Who has a group open: a process that can be seen, or one that was given the fd of a device. */
  async #opener(group: number, devices: readonly AffectedDevice[]): Promise<Blocker | undefined> {
    const { kernel, state } = this.#parts
    const names = devices.filter((device) => device.group === group).map(({ name }) => name)
    // It is open all the same, also where it cannot be said by which process.
    const nodes = await nodesOf(kernel, group, names)
    const holders = await holdersOf(kernel, nodes).catch(() => [])
    const others = holders.filter(({ pid }) => pid !== process.pid)
    const exported = state.exportsOf(group)
    const by =
      others.length > 0
        ? holdersText(others)
        : exported.map((what) => `the fd of ${what}`).join(' and ')
    if (by === '') return undefined
    return { subject: `group ${group}`, found: `kept open by ${by}`, fix: 'close it there first' }
  }
}

/** Reasons with which a device is not fit to be opened. */
const BROKEN: ReadonlySet<string> = new Set(['DEVICE_GONE', 'DEVICE_ASLEEP'])

const NO_WAY = 'it cannot be reset by itself, and no bridge above it could reset its bus'

const resetAct = (name: string): string => `reset the bus of ${name}`

const unreset = (
  why: string,
  blockers: readonly Blocker[],
  lastUser: OwnerRecord | undefined,
): OpeningReset => ({
  ...{ kind: 'none', why, blockers },
  ...(lastUser === undefined ? {} : { lastUser }),
})

/** The bus was reset, although its devices are not there yet. */
const hasHappened = (error: unknown): boolean =>
  wasErrno(error, 'ENOTTY') || wasErrno(error, 'ETIMEDOUT')

async function tellHooks(devices: readonly OpenDevice[]): Promise<void> {
  for (const { hooks } of devices) for (const { onReset } of hooks) await onReset?.()
}

const onRootBus = (subject: string): Blocker => ({
  subject,
  found: 'on a bus that no bridge can reset',
  fix: 'do without',
})

/** Throw where a device has to be reset before another client has it, and was not. */
export function requireReset(
  client: Client,
  name: string,
  { kind, why, blockers, lastUser, isNeeded }: OpeningReset & { readonly isNeeded: boolean },
): void {
  if (kind !== 'none' || lastUser?.id === client.id) return
  if (!isNeeded && client.grant.opensUnreset !== false) return
  const since = lastUser === undefined ? 'by the daemon' : `since ${ownerText(lastUser)} used it`
  const message = `Cannot open ${name}: it has not been reset ${since}, and its bus cannot be: ${why}`
  throw new VfiodError(blockers.length > 0 ? 'RESET_BLOCKED' : 'UNSUPPORTED', message, {
    ...(blockers.length > 0 ? { blockers } : {}),
    resource: { type: 'device', name },
  })
}
