/**
 * Moving PCI devices between drivers, as one transaction: every step is verified by reading back,
 * and when one fails every device gets its former driver and driver_override again.
 *
 * A device that has the wanted driver is left alone: rebinding it for nothing would reset it, and
 * can hang. driver_override is cleared on the way back, so that nothing of vfiod stays behind.
 */

import { VfiodError } from '../../base/error.ts'
import { Lane } from '../../base/lane.ts'
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
import { isVfioDriver } from '../../rules/viability.ts'
import type { Client } from '../identity/clients.ts'
import { requireAllowed } from '../identity/permission.ts'
import { holderOf, ownerText } from '../state/owner.ts'
import type { State } from '../state/state.ts'
import type { DeviceView, Inventory } from './inventory.ts'

const DEFAULT_DRIVER = 'vfio-pci'
/** Base class and subclass of bridges: they carry the traffic of others and stay with the kernel. */
const BRIDGE_CLASS = 0x06

export interface BindRequest {
  readonly devices: readonly string[]
  /** `vfio-pci` when undefined. */
  readonly driver: string | undefined
  /** The other PCI devices of the groups too, bridges excepted. */
  readonly wholeGroup: boolean
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
  /** sysfs has one driver core: transactions do not interleave. */
  readonly #lane = new Lane()

  constructor(parts: {
    readonly kernel: Kernel
    readonly inventory: Inventory
    readonly state: State
  }) {
    this.#kernel = parts.kernel
    this.#inventory = parts.inventory
    this.#state = parts.state
  }

  /** Give the devices to a VFIO driver. */
  bind(client: Client, request: BindRequest): Promise<DeviceView[]> {
    return this.#lane.run(async () => {
      const driver = request.driver || DEFAULT_DRIVER
      const devices = await this.#chosen(client, request)
      if (!(await hasPciDriver(this.#kernel, driver))) {
        throw new VfiodError(
          'NO_SUCH_DRIVER',
          `Cannot bind to "${driver}": the kernel has no PCI driver of that name; load its module first`,
          { resource: { type: 'driver', name: driver } },
        )
      }
      if (!isVfioDriver({ name: '', bus: 'pci', driver })) {
        throw new VfiodError(
          'BAD_ARGUMENT',
          `Cannot bind to "${driver}": it is not a VFIO driver; use vfio-pci or a variant of it`,
          { field: 'driver' },
        )
      }
      const moves = devices.filter((device) => device.driver !== driver)
      return this.#transact(moves, (device) => this.#moveTo(device, driver), devices)
    })
  }

  /** Take the devices from their VFIO driver and let the kernel choose one. */
  unbind(client: Client, request: Omit<BindRequest, 'driver'>): Promise<DeviceView[]> {
    return this.#lane.run(async () => {
      const devices = await this.#chosen(client, request)
      const moves = devices.filter(isVfioDriver)
      return this.#transact(moves, (device) => this.#moveTo(device, undefined), devices)
    })
  }

  /** The devices a request is about, each free to be moved. */
  async #chosen(client: Client, request: Omit<BindRequest, 'driver'>): Promise<HostDevice[]> {
    if (request.devices.length === 0) {
      throw new VfiodError('BAD_ARGUMENT', 'Cannot move devices: none is named', {
        field: 'devices',
      })
    }
    const chosen = new Map<string, HostDevice>()
    for (const name of request.devices) {
      const device = await this.#inventory.device(name)
      if (device.bus !== 'pci') {
        throw new VfiodError(
          'BAD_ARGUMENT',
          `Cannot move ${name} between drivers: it is a mediated device, which keeps the driver that made it`,
          { field: 'devices' },
        )
      }
      chosen.set(name, device)
      if (!request.wholeGroup) continue
      for (const member of (await this.#inventory.group(device.group)).devices) {
        const isBridge = member.pci !== undefined && member.pci.class >> 16 === BRIDGE_CLASS
        const isPort = isBridge && member.driver === 'pcieport'
        if (member.bus === 'pci' && !isPort) chosen.set(member.name, member)
      }
    }
    for (const device of chosen.values()) {
      requireAllowed(client, device, `move ${device.name} to another driver`)
      this.#requireUnused(device.name)
    }
    return [...chosen.values()]
  }

  #requireUnused(name: string): void {
    const user = this.#state.userOfDevice(name)
    if (user === undefined) return
    const { holder, fix } = holderOf(this.#state, user.owner, 'close it first')
    throw new VfiodError(
      'DEVICE_IN_USE',
      `Cannot move ${name} to another driver: it is open in address space "${user.id}" of ${holder}; ${fix}`,
      { resource: { type: 'device', name, owner: ownerText(user.owner) } },
    )
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
      const left = await this.#undo(touched)
      if (error instanceof VfiodError && left.length > 0) {
        throw new VfiodError(
          error.reason,
          `${error.message}; could not be undone for ${left}`,
          error.details,
        )
      }
      throw error
    } finally {
      this.#state.apply({ kind: 'drivers-changed', devices: devices.map(({ name }) => name) })
    }
  }

  /** Give every touched device its former driver, the last one first; answers what did not work. */
  async #undo(touched: readonly Former[]): Promise<string[]> {
    const left: string[] = []
    for (const { device, override } of touched.toReversed()) {
      try {
        await this.#restore(device, override)
      } catch {
        left.push(device.name)
      }
    }
    return left
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
    await setDriverOverride(this.#kernel, name, override)
  }

  async #moveTo(device: HostDevice, driver: string | undefined): Promise<void> {
    const { name } = device
    await setDriverOverride(this.#kernel, name, driver)
    if (device.driver !== undefined) await unbindDriver(this.#kernel, name, device.driver)
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
    if (isRight) return
    throw new VfiodError(
      'BIND_FAILED',
      `Cannot bind ${name} to ${driver ?? 'its usual driver'}: afterwards it has ${found?.driver ?? 'no driver'}; the kernel log says why the driver refused it`,
      { op: 'drivers_probe', resource: { type: 'device', name } },
    )
  }

  #views(devices: readonly HostDevice[]): Promise<DeviceView[]> {
    return Promise.all(devices.map(({ name }) => this.#inventory.device(name)))
  }
}
