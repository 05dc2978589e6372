/** The devices that are open: opening, closing, regions, reset, the fd itself. */

import { VfiodError } from '../../base/error.ts'
import type { DeviceFd } from '../../base/units.ts'
import {
  CONFIG_REGION,
  disableIrqs,
  type Region,
  readRegion,
  writeRegion,
} from '../../kernel/device-calls.ts'
import { configOf, regionFacts } from '../../kernel/device-facts.ts'
import { explained, type Judge } from '../../kernel/diagnosis.ts'
import type { Kernel } from '../../kernel/port.ts'
import { refusal } from '../../kernel/refusal.ts'
import { sys } from '../../os/libc.ts'
import { judgeRegion } from '../../rules/causes/judge-device.ts'
import { decodingEnd } from '../../rules/decoding.ts'
import { canonicalName } from '../../rules/device-name.ts'
import { isVfToken } from '../../rules/vf-token.ts'
import { type DeviceView, type Inventory, requireServedBus } from '../host/inventory.ts'
import { patientlyIn, type Within } from '../host/patience.ts'
import type { Client } from '../identity/clients.ts'
import { requireAllowed } from '../identity/permission.ts'
import type { Quotas } from '../identity/quotas.ts'
import { requireNoFds, type Ticket, type Tickets } from '../identity/tickets.ts'
import type { DeviceToOpen } from '../iommu/backend.ts'
import type { GroupClaims } from '../iommu/group-claims.ts'
import type { RegionSource } from '../space/region-mapping.ts'
import type { AddressSpace } from '../space/space.ts'
import type { Change } from '../state/changes.ts'
import { holderOf, ownerText } from '../state/owner.ts'
import type { DeviceCondition, OpeningReset, OwnerRecord } from '../state/records.ts'
import type { State } from '../state/state.ts'
import { DEVICE_PRICE } from '../state/usage.ts'
import { DeviceConditions, lostError } from './conditions.ts'
import { notOpen, OpenDevice, reset, resetIfPossible } from './device.ts'
import { type HotReset, HotResets, requireReset } from './hot-resets.ts'
import { requireInRegion } from './region-access.ts'
import { RegionMappings } from './region-mappings.ts'

export class Devices {
  readonly #kernel: Kernel
  readonly #inventory: Inventory
  readonly #state: State
  readonly #tickets: Tickets
  readonly #quotas: Quotas
  readonly #spaceOf: (client: Client, id: string) => AddressSpace
  readonly #devices = new Map<string, OpenDevice>()
  readonly #conditions: DeviceConditions
  readonly #patienceMs: number
  readonly hotResets: HotResets
  readonly regionMappings: RegionMappings

  constructor(parts: {
    readonly kernel: Kernel
    readonly inventory: Inventory
    readonly state: State
    readonly tickets: Tickets
    readonly quotas: Quotas
    /** The caller's address space of that id, or the refusal. */
    readonly spaceOf: (client: Client, id: string) => AddressSpace
    /** Every address space of a client. */
    readonly spacesOf: (client: OwnerRecord) => readonly AddressSpace[]
    readonly claims: GroupClaims
    /** How long a caller waits for the reset of a bus, in milliseconds. */
    readonly patienceMs: number
  }) {
    this.#kernel = parts.kernel
    this.#inventory = parts.inventory
    this.#state = parts.state
    parts.state.listen((change) => this.#follow(change))
    this.#tickets = parts.tickets
    this.#quotas = parts.quotas
    this.#spaceOf = parts.spaceOf
    this.#patienceMs = parts.patienceMs
    const openDevice = (name: string) => this.#devices.get(name)
    const { kernel, state } = parts
    this.regionMappings = new RegionMappings({ kernel, state, openDevice })
    const { regionMappings } = this
    this.hotResets = new HotResets({ ...parts, openDevice, regionMappings })
    const take = (device: OpenDevice, why: string) => this.#take(device, why)
    this.#conditions = new DeviceConditions({ kernel: parts.kernel, state: parts.state, take })
  }

  /**
   * Open a device of a member group; with `mustReset`, not unless it is reset. A token is looked at only
   * where the device is not open yet.
   */
  async open(
    client: Client,
    spaceId: string,
    wanted: string,
    options: { readonly vfToken?: string | undefined; readonly mustReset?: boolean } = {},
  ): Promise<OpenDevice> {
    const space = this.#spaceOf(client, spaceId)
    const view = await this.#inventory.device(wanted)
    const { group, name } = view
    requireServedBus(view, 'open')
    requireAllowed(client, view, `open ${name}`)
    const { vfToken, mustReset = false } = options
    if (vfToken !== undefined) requireToken(view, vfToken)
    const act = `open ${name} in "${spaceId}"`
    const opening = (within: Within) =>
      space.lane.run(async () => {
        // It may have been destroyed while the call waited in the lane.
        this.#spaceOf(client, spaceId)
        const already = this.#devices.get(name)
        if (already?.space === space) return this.get(client, name)
        if (already !== undefined) throw inUse(this.#state, already)
        if (!space.has(group)) {
          throw new VfiodError(
            'SPACE_NOT_READY',
            `Cannot open ${name} in "${space.id}": its group ${group} is not a member; add the group first`,
            {
              blockers: [
                { subject: `group ${group}`, found: 'not a member', fix: 'add it with AddGroup' },
              ],
            },
          )
        }
        await space.reconcile()
        await space.requireReady(`open ${name} in`)
        const hasBridge = view.resets.byBus
        return this.#open(client, { name, group, space, vfToken, hasBridge, mustReset, within })
      })
    return patientlyIn(this.#patienceMs, act, opening)
  }

  /** The caller's open device, or DEVICE_NOT_OPEN, NOT_MM_OWNER, or DEVICE_GONE where it is lost. */
  get(client: Client, name: string): OpenDevice {
    const device = this.find(client, name)
    const record = this.#state.device(device.name)
    const lost = record && lostError(record)
    if (lost !== undefined) throw lost
    return device
  }

  /** The same, lost or not. */
  find(client: Client, name: string): OpenDevice {
    const device = this.#devices.get(canonicalName(name))
    if (device === undefined) throw notOpen(name)
    device.requireOwner(client)
    return device
  }

  /** What the host says of an open device. */
  conditionsOf({ name }: OpenDevice): readonly DeviceCondition[] {
    return this.#state.device(name)?.conditions ?? []
  }

  /** Reset where possible, and close; answers how many mappings of its regions were removed. */
  async close(client: Client, name: string): Promise<number> {
    const device = this.find(client, name)
    return device.space.lane.run(async () => {
      if (device.isClosed) return 0
      // It may have been handed over while the call waited in the lane.
      device.requireOwner(client)
      const removed = await this.regionMappings.remove(device, CLOSED)
      await this.#close(device)
      return removed
    })
  }

  /** Close every device of a space that is being closed; called from inside the lane of the space. */
  async closeAllOf(space: AddressSpace): Promise<void> {
    for (const name of space.devices) {
      const device = this.#devices.get(name)
      if (device === undefined) continue
      // What cannot be unmapped goes with the container, before its groups have another user.
      await this.regionMappings.remove(device).catch(() => undefined)
      await this.#close(device)
    }
  }

  /** A region of a device of the client, as the source of mappings into a space. */
  regionOf(
    client: Client,
    space: AddressSpace,
    at: { readonly device: string; readonly region: number },
  ): RegionSource {
    return this.regionMappings.source(client, space, this.get(client, at.device), at.region)
  }

  /** The open devices of a space. */
  of(space: AddressSpace): OpenDevice[] {
    return [...this.#devices.values()].filter((device) => device.space === space)
  }

  async read(
    client: Client,
    at: {
      readonly name: string
      readonly region: number
      readonly offset: bigint
      readonly length: number
    },
  ): Promise<Uint8Array> {
    const device = this.get(client, at.name)
    const region = device.region(at.region)
    requireInRegion('read', device, region, { offset: at.offset, length: at.length })
    return device.run(client, () => {
      const { offset, length } = at
      const read = readRegion(this.#kernel, device.fd, { region, offset, length })
      return explained(read, this.#judgeAccess(device, region))
    })
  }

  /** Answers how many mappings of its regions were removed, because the write ends their decoding. */
  async write(
    client: Client,
    at: {
      readonly name: string
      readonly region: number
      readonly offset: bigint
      readonly data: Uint8Array
    },
  ): Promise<number> {
    const device = this.get(client, at.name)
    const region = device.region(at.region)
    requireInRegion('write', device, region, { offset: at.offset, length: at.data.length })
    const { offset, data } = at
    const isConfig = device.flags.isPci && region.index === CONFIG_REGION
    const why = async () =>
      isConfig
        ? decodingEnd(await configOf(this.#kernel, device), { offset: Number(offset), data })
        : undefined
    return this.regionMappings.without(client, device, why, () => {
      const written = writeRegion(this.#kernel, device.fd, { region, offset, data })
      return explained(written, this.#judgeAccess(device, region))
    })
  }

  /** Reset the function; a data transfer session ends. Answers how many mappings of its regions were removed. */
  async reset(client: Client, name: string): Promise<number> {
    const device = this.get(client, name)
    // The kernel refuses to reset another one.
    const why = async () => (device.flags.canReset ? 'it is reset' : undefined)
    return this.regionMappings.without(client, device, why, async () => {
      await reset(this.#kernel, device)
      for (const { onReset } of device.hooks) await onReset?.()
    })
  }

  /** Reset the bus of the device, and with it every device there. */
  async hotReset(client: Client, name: string, withOpen: boolean): Promise<HotReset> {
    return this.hotResets.reset(client, this.get(client, name), withOpen)
  }

  /** A ticket for which the fd channel hands out the device's fd. */
  async exportFd(client: Client, name: string): Promise<Ticket> {
    const duplicate = (device: OpenDevice) => device.run(client, () => this.#duplicate(device))
    // Tried now, so that a device that cannot be exported is refused here and not on the channel.
    const probe = await duplicate(this.get(client, name))
    sys.closeSync(probe)
    return this.#tickets.issue(client, { act: 'export device', object: { name } }, async (fds) => {
      requireNoFds(fds)
      const device = this.get(client, name)
      const fd = await duplicate(device)
      const what = `${name} that was exported to ${ownerText(client)}`
      this.#state.apply({ kind: 'device-exported', group: device.group, what })
      return { reply: { name }, fds: [fd] }
    })
  }

  #judgeAccess(device: OpenDevice, { index }: Region): Judge {
    return async () => judgeRegion(await regionFacts(this.#kernel, device, index))
  }

  async #open(
    client: Client,
    at: DeviceToOpen & {
      readonly group: number
      readonly space: AddressSpace
      readonly hasBridge: boolean
      readonly mustReset: boolean
      readonly within: Within
    },
  ): Promise<OpenDevice> {
    const { name, group, space } = at
    const resetBus = async (fd: DeviceFd): Promise<OpeningReset> => {
      const reset = await this.hotResets.atOpening({ ...at, fd }, space, at.within)
      requireReset(client, name, { ...reset, isNeeded: at.mustReset })
      return reset
    }
    const charge = this.#quotas.charge(client, DEVICE_PRICE)
    try {
      const device = await OpenDevice.open(this.#kernel, at, resetBus)
      try {
        // The space may have been handed over while the device was opened.
        device.requireOwner(client)
      } catch (error) {
        device.signals.close()
        await this.#kernel.close(device.fd)
        throw error
      }
      this.#devices.set(name, device)
      const record = { name, group, spaceId: space.id, conditions: [], reset: device.reset }
      this.#state.apply({ kind: 'device-opened', device: record })
      this.#conditions.follow(device)
      return device
    } finally {
      charge.release()
    }
  }

  /** Streams of the former owner end when the space of a device is handed over. */
  #follow(change: Change): void {
    if (change.kind !== 'adopted') return
    for (const spaceId of change.spaceIds) {
      for (const { name } of this.#state.devicesOf(spaceId)) this.#devices.get(name)?.handOn()
    }
  }

  async #duplicate(device: OpenDevice): Promise<number> {
    const answer = await this.#kernel.exportFd(device.fd)
    if (answer >= 0) return answer
    throw refusal('exportFd', answer, `export the fd of ${device.name}`)
  }

  /** Close a device that its owner did not give back when the host wanted it. */
  async #take(device: OpenDevice, why: string): Promise<void> {
    await device.space.lane.run(async () => {
      const record = this.#state.device(device.name)
      if (device.isClosed || record === undefined) return
      const { owner } = device.space
      // Where that fails it stays open, for its peers still reach it: the host goes on waiting.
      const unmapped = this.regionMappings.remove(device, CLOSED).then(() => true)
      if (!(await unmapped.catch(() => false))) return
      await this.#close(device)
      this.#state.apply({ kind: 'device-taken', device: record, owner, why })
    })
  }

  /** Runs in the lane of the space; the mappings of its regions are gone by then. */
  async #close(device: OpenDevice): Promise<void> {
    device.closing.abort()
    let isReset = false
    await device.lane.run(async () => {
      for (const index of device.armed.indexes) {
        if (device.signals.has(index)) continue
        await disableIrqs(this.#kernel, device.fd, index).catch(() => undefined)
      }
      // The next user must find neither DMA under way nor a half-done migration.
      isReset = await resetIfPossible(this.#kernel, device).catch(() => false)
      for (const { onClosing } of device.hooks) await onClosing?.()
      device.hooks.clear()
      device.signals.close()
      await device.windows.close()
      await this.#kernel.close(device.fd)
    })
    this.#devices.delete(device.name)
    this.#state.apply({ kind: 'device-closed', name: device.name, isReset })
  }
}

/** Why mappings of the regions of a device are removed, to follow "because". */
const CLOSED = 'it is closed'

function requireToken({ name, bus }: DeviceView, token: string): void {
  const wrong = (found: string) =>
    new VfiodError('BAD_ARGUMENT', `Cannot open ${name}: ${found}`, { field: 'vf_token' })
  if (!isVfToken(token)) throw wrong('the VF token is not a UUID')
  if (bus !== 'pci') throw wrong('only PCI functions have VF tokens; leave it away')
}

const inUse = (state: State, device: OpenDevice): VfiodError => {
  const { owner, id } = device.space
  const { holder, fix } = holderOf(state, owner, 'close it there first')
  return new VfiodError(
    'DEVICE_IN_USE',
    `Cannot open ${device.name}: it is open in address space "${id}" of ${holder}; ${fix}`,
    {
      resource: { type: 'device', name: device.name, owner: ownerText(owner) },
      holder: { client: owner.id, space: id },
    },
  )
}
