/**
 * Moving PCI devices between drivers, as one transaction: every step is verified by reading back,
 * and when one fails every device gets its former driver and driver_override again.
 *
 * A device that has the wanted driver is left alone: rebinding it for nothing would reset it, and
 * can hang. driver_override is cleared on the way back, so that nothing of vfiod stays behind. What the
 * host itself uses is taken only by force.
 */

import { VfiodError } from '../../base/error.ts'
import { Lanes } from '../../base/lane.ts'
import { undo, undone } from '../../base/undo.ts'
import type { Kernel } from '../../kernel/port.ts'
import {
  driverOverride,
  type HostDevice,
  hasPciDriver,
  hostDevice,
  probeDriver,
  setDriverOverride,
  unbindDriver,
} from '../../kernel/sysfs.ts'
import type { CauseId } from '../../rules/causes/catalog.ts'
import { isBridge, isVfioDriver } from '../../rules/viability.ts'
import type { Client } from '../identity/clients.ts'
import { requireAllowed } from '../identity/permission.ts'
import type { EventLog } from '../state/events.ts'
import type { State } from '../state/state.ts'
import { type DeviceUsers, hostUses } from './device-users.ts'
import { type DeviceView, type Inventory, requireServedBus } from './inventory.ts'
import { notDone, patiently } from './patience.ts'

const DEFAULT_DRIVER = 'vfio-pci'

export interface BindRequest {
  readonly devices: readonly string[]
  /** `vfio-pci` when undefined. */
  readonly driver: string | undefined
  /** The other PCI devices of the groups too, bridges excepted. */
  readonly wholeGroup: boolean
  /** Also what the host uses: mounted disks, network interfaces, consoles. */
  readonly force?: boolean
}

type UnbindRequest = Omit<BindRequest, 'driver'>

/** A transaction under way, and what it is at. */
interface Transaction {
  step: string
}

/** A device before the transaction touched it. */
interface Former {
  readonly device: HostDevice
  readonly override: string | undefined
}

export class DriverBinding {
  readonly #kernel: Kernel
  readonly #inventory: Inventory
  readonly #state: State
  readonly #users: DeviceUsers
  readonly #log: EventLog
  readonly #patienceMs: number
  /** By group: a device that the kernel holds back holds up its group, and no other. */
  readonly #lanes = new Lanes<number>()
  /** Transactions whose caller has been answered although the kernel goes on, by device. */
  readonly #overdue = new Map<string, Transaction>()

  constructor(parts: {
    readonly kernel: Kernel
    readonly inventory: Inventory
    readonly state: State
    readonly users: DeviceUsers
    readonly log: EventLog
    /** How long a caller waits for the kernel. */
    readonly patienceMs: number
  }) {
    this.#kernel = parts.kernel
    this.#inventory = parts.inventory
    this.#state = parts.state
    this.#users = parts.users
    this.#log = parts.log
    this.#patienceMs = parts.patienceMs
  }

  /** Give the devices to a VFIO driver. */
  bind(client: Client, request: BindRequest): Promise<DeviceView[]> {
    const driver = request.driver || DEFAULT_DRIVER
    return this.#move(client, request, async (transaction, devices) => {
      await this.#requireVfioDriver(driver)
      const moves = devices.filter((device) => device.driver !== driver)
      await this.#requireSpared(transaction, client, moves, request)
      const move = (device: HostDevice) => this.#moveTo(transaction, device, driver)
      return this.#transact(moves, move, devices)
    })
  }

  /** Take the devices from their VFIO driver and let the kernel choose one. */
  unbind(client: Client, request: UnbindRequest): Promise<DeviceView[]> {
    return this.#move(client, request, async (transaction, devices) => {
      const reserved = await Promise.all(devices.map((device) => this.#isReserved(device)))
      const moves = devices.filter((_device, n) => reserved[n])
      await this.#requireSpared(transaction, client, moves, request)
      for (const device of moves) {
        const { devices: members } = await this.#inventory.group(device.group)
        await this.#users.requireGroupFree(device, members)
      }
      const move = (device: HostDevice) => this.#moveTo(transaction, device, undefined)
      return this.#transact(moves, move, devices)
    })
  }

  /** A VFIO driver has it, or is alone allowed to: so a bind that was cut off leaves a device. */
  async #isReserved(device: HostDevice): Promise<boolean> {
    if (isVfioDriver(device)) return true
    if (device.driver !== undefined) return false
    const driver = await driverOverride(this.#kernel, device.name)
    return driver !== undefined && isVfioDriver({ ...device, driver })
  }

  /** Nothing that the host uses is among them, or it is to be taken all the same. */
  async #requireSpared(
    transaction: Transaction,
    client: Client,
    devices: readonly HostDevice[],
    { force = false }: UnbindRequest,
  ): Promise<void> {
    transaction.step = 'finding out what the host uses'
    const used = await this.#users.usedByHost(devices)
    if (used.length === 0) return
    if (!force) throw hostUses(used)
    for (const { name, uses } of used)
      this.#log(
        'taken from the host',
        { client: client.id, device: name, uses: uses.map(({ found }) => found) },
        'warn',
      )
  }

  /** Runs in the lanes of the groups; the caller waits no longer than its patience. */
  async #move(
    client: Client,
    request: UnbindRequest,
    work: (transaction: Transaction, devices: readonly HostDevice[]) => Promise<DeviceView[]>,
  ): Promise<DeviceView[]> {
    const chosen = await this.#chosen(client, request)
    const act = `move ${chosen.map(({ name }) => name).join(' and ')} to another driver`
    for (const { name } of chosen) {
      const overdue = this.#overdue.get(name)
      if (overdue !== undefined) throw notDone(act, overdue.step, this.#patienceMs)
    }
    const transaction: Transaction = { step: 'another move in the same group' }
    const groups = chosen.map(({ group }) => group)
    const moved = this.#lanes.run(groups, async () => {
      // They may have been moved, or come into use, while this waited.
      const devices = await this.#chosen(client, request)
      for (const device of devices) await this.#users.requireUnused(device)
      return work(transaction, devices)
    })
    try {
      return await patiently(moved, this.#patienceMs, { act, step: () => transaction.step })
    } catch (error) {
      if (error instanceof VfiodError && error.reason === 'KERNEL_NOT_DONE') {
        this.#followOverdue(transaction, chosen, moved)
      }
      throw error
    }
  }

  /** Until the kernel has finished, later callers are refused at once, with the pending step. */
  #followOverdue(
    transaction: Transaction,
    devices: readonly HostDevice[],
    moved: Promise<unknown>,
  ): void {
    for (const { name } of devices) this.#overdue.set(name, transaction)
    const settled = moved.catch(() => undefined)
    void settled.then(() => {
      for (const { name } of devices) this.#overdue.delete(name)
    })
  }

  async #requireVfioDriver(driver: string): Promise<void> {
    if (!/^[\w-]+$/.test(driver) || !(await hasPciDriver(this.#kernel, driver))) {
      throw new VfiodError(
        'NO_SUCH_DRIVER',
        `Cannot bind to "${driver}": the kernel has no PCI driver of that name; load its module first`,
        { resource: { type: 'driver', name: driver } },
      )
    }
    if (isVfioDriver({ name: '', bus: 'pci', driver })) return
    throw new VfiodError(
      'BAD_ARGUMENT',
      `Cannot bind to "${driver}": it is not a VFIO driver; use vfio-pci or a variant of it`,
      { field: 'driver' },
    )
  }

  /** The devices a request is about, each free to be moved. */
  async #chosen(client: Client, request: UnbindRequest): Promise<HostDevice[]> {
    if (request.devices.length === 0) {
      throw new VfiodError('BAD_ARGUMENT', 'Cannot move devices: none is named', {
        field: 'devices',
      })
    }
    const chosen = new Map<string, HostDevice>()
    for (const name of request.devices) {
      const device = await this.#inventory.device(name)
      requireServedBus(device, 'move')
      if (device.bus !== 'pci') {
        throw new VfiodError(
          'BAD_ARGUMENT',
          `Cannot move ${name} between drivers: it is a mediated device, which keeps the driver that made it`,
          { field: 'devices' },
        )
      }
      if (isBridge(device)) {
        throw new VfiodError(
          'BAD_ARGUMENT',
          `Cannot move ${device.name} between drivers: it is a bridge, which carries the traffic of others and stays with the kernel; it blocks no group, leave it out`,
          { field: 'devices' },
        )
      }
      chosen.set(device.name, device)
      if (!request.wholeGroup) continue
      for (const member of (await this.#inventory.group(device.group)).devices) {
        if (member.bus === 'pci' && !isBridge(member)) chosen.set(member.name, member)
      }
    }
    for (const device of chosen.values()) {
      requireAllowed(client, device, `move ${device.name} to another driver`)
      this.#users.requireNoClient(device)
    }
    return [...chosen.values()]
  }

  /** Move devices, and answer how those that were asked for look afterwards; or undo it all. */
  async #transact(
    devices: readonly HostDevice[],
    move: (device: HostDevice) => Promise<void>,
    asked: readonly HostDevice[],
  ): Promise<DeviceView[]> {
    const touched: Former[] = []
    try {
      for (const device of devices) {
        touched.push({ device, override: await driverOverride(this.#kernel, device.name) })
        await move(device)
      }
      return await this.#views(asked)
    } catch (error) {
      throw undone(error, await this.#undo(touched))
    } finally {
      this.#state.apply({ kind: 'drivers-changed', devices: devices.map(({ name }) => name) })
    }
  }

  /** Give every touched device its former driver, the last one first; answers what did not work. */
  async #undo(touched: readonly Former[]): Promise<string[]> {
    const left = await undo(touched.toReversed(), ({ device, override }) =>
      this.#restore(device, override),
    )
    return left.map(({ done }) => done.device.name)
  }

  async #restore(former: HostDevice, override: string | undefined): Promise<void> {
    const { name, driver } = former
    const present = await hostDevice(this.#kernel, name)
    if (present?.driver !== driver) {
      if (present?.driver !== undefined) await unbindDriver(this.#kernel, name, present.driver)
      if (driver !== undefined) {
        await setDriverOverride(this.#kernel, name, driver)
        await probeDriver(this.#kernel, name)
      }
    }
    if ((await driverOverride(this.#kernel, name)) === override) return
    await setDriverOverride(this.#kernel, name, override)
  }

  async #moveTo(
    transaction: Transaction,
    device: HostDevice,
    driver: string | undefined,
  ): Promise<void> {
    const { name } = device
    transaction.step = `taking ${name} from ${device.driver ?? 'no driver'}`
    await setDriverOverride(this.#kernel, name, driver)
    if (device.driver !== undefined) await unbindDriver(this.#kernel, name, device.driver)
    transaction.step = `finding a driver for ${name}`
    // Probing a device that no driver wants is not a failure of the unbind.
    const probed = probeDriver(this.#kernel, name)
    if (driver === undefined) await probed.catch(() => undefined)
    else await probed
    await this.#verify(name, driver)
  }

  async #verify(name: string, driver: string | undefined): Promise<void> {
    const found = await hostDevice(this.#kernel, name)
    const isRight =
      driver === undefined ? found !== undefined && !isVfioDriver(found) : found?.driver === driver
    if (!isRight) throw misbound(name, driver, found)
  }

  #views(devices: readonly HostDevice[]): Promise<DeviceView[]> {
    return Promise.all(devices.map(({ name }) => this.#inventory.device(name)))
  }
}

/** The device has another driver than it was to have, although every write went well. */
function misbound(
  name: string,
  wanted: string | undefined,
  found: HostDevice | undefined,
): VfiodError {
  const act = `Cannot bind ${name} to ${wanted ?? 'its usual driver'}`
  const has = found?.driver
  const fail = (cause: CauseId, text: string): VfiodError =>
    new VfiodError('BIND_FAILED', `${act}: ${text}`, {
      op: 'drivers_probe',
      causes: [cause],
      resource: { type: 'device', name, ...(has === undefined ? {} : { owner: has }) },
    })
  if (found === undefined)
    return fail('sysfs-removed', 'it is not there any more; list the devices')
  if (has === undefined) {
    return fail(
      'driver-refuses',
      `no driver took it: ${wanted ?? 'each one'} refuses it; the kernel log says why`,
    )
  }
  // Without an override a VFIO driver takes what is in its list of ids, and that is empty at first.
  if (wanted === undefined) return fail('dynamic-id', dynamicId(found, has))
  return fail('other-driver-took', `${has} took it; see what binds it (udev, driverctl)`)
}

const dynamicId = ({ pci }: HostDevice, driver: string): string => {
  const digits = (id = 0) => id.toString(16).padStart(4, '0')
  const [vendor, device] = [digits(pci?.vendor), digits(pci?.device)]
  return `${driver} has the id ${vendor}:${device} in its list (new_id, or ids= of its module) and took the device back; write "${vendor} ${device}" to /sys/bus/pci/drivers/${driver}/remove_id, take it out of ids=, or bind the device to the driver that is to have it (driver_override)`
}
