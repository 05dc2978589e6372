/**
 * Making virtual functions of a physical one, and removing them. The driver of the physical function does
 * it, by its sriov_numvfs; removing waits for their users, so those are found first.
 */

import { VfiodError } from '../../base/error.ts'
import { Lanes } from '../../base/lane.ts'
import { explained } from '../../kernel/diagnosis.ts'
import type { Kernel } from '../../kernel/port.ts'
import { hostDevice, setVirtualFunctions, totalVirtualFunctions } from '../../kernel/sysfs.ts'
import { judgeSriov } from '../../rules/causes/judge-device.ts'
import type { Client } from '../identity/clients.ts'
import { requireAllowed } from '../identity/permission.ts'
import type { State } from '../state/state.ts'
import { type DeviceUsers, hostUses } from './device-users.ts'
import { type DeviceView, type Inventory, requireServedBus } from './inventory.ts'
import { patiently } from './patience.ts'

export class VirtualFunctions {
  readonly #kernel: Kernel
  readonly #inventory: Inventory
  readonly #state: State
  readonly #users: DeviceUsers
  readonly #patienceMs: number
  readonly #lanes = new Lanes<string>()

  constructor(parts: {
    readonly kernel: Kernel
    readonly inventory: Inventory
    readonly state: State
    readonly users: DeviceUsers
    /** How long a caller waits for the kernel. */
    readonly patienceMs: number
  }) {
    this.#kernel = parts.kernel
    this.#inventory = parts.inventory
    this.#state = parts.state
    this.#users = parts.users
    this.#patienceMs = parts.patienceMs
  }

  /** Have the physical function `count` virtual ones; answers it as it is then. */
  async set(
    client: Client,
    { name: wanted, count }: { readonly name: string; readonly count: number },
  ): Promise<DeviceView> {
    const { name } = await this.#physical(client, wanted, count)
    let step = 'another change of the same device'
    const changed = this.#lanes.run([name], async () => {
      const physical = await this.#physical(client, name, count)
      if (physical.virtualFunctions.length === count) return
      if (count === 0) await this.#requireUnused(physical)
      else requireNone(physical, count)
      step = `the driver of ${name}`
      await this.#write(name, count)
    })
    await patiently(changed, this.#patienceMs, {
      act: `set the virtual functions of ${name} to ${count}`,
      step: () => step,
    })
    return this.#inventory.device(name)
  }

  /** The device that may have so many, or the refusal. */
  async #physical(client: Client, wanted: string, count: number): Promise<DeviceView> {
    const device = await this.#inventory.device(wanted)
    const { name } = device
    requireServedBus(device, 'make virtual functions of')
    requireAllowed(client, device, `set the virtual functions of ${name}`)
    const total = await totalVirtualFunctions(this.#kernel, name)
    const act = actOf(name, count)
    if (total === undefined)
      throw new VfiodError('UNSUPPORTED', `${act}: it does not have SR-IOV; do without`)
    if (count <= total) return device
    throw new VfiodError('BAD_ARGUMENT', `${act}: it can have ${total} at most`, { field: 'count' })
  }

  /** No client, no process outside and not the host itself uses one that would go. */
  async #requireUnused(physical: DeviceView): Promise<void> {
    const act = actOf(physical.name, 0)
    await this.#users.requireUnusedVfs(physical, act)
    const going = await this.#users.virtualFunctionsOf(physical)
    const used = await this.#users.usedByHost(going)
    if (used.length > 0) throw hostUses(used, act)
  }

  async #write(name: string, count: number): Promise<void> {
    const before = (await hostDevice(this.#kernel, name))?.virtualFunctions ?? []
    try {
      await explained(setVirtualFunctions(this.#kernel, name, count), async () =>
        judgeSriov(name, await hostDevice(this.#kernel, name)),
      )
    } finally {
      const after = (await hostDevice(this.#kernel, name))?.virtualFunctions ?? []
      this.#state.apply({ kind: 'drivers-changed', devices: [name, ...before, ...after] })
    }
  }
}

const actOf = (name: string, count: number): string =>
  `Cannot set the virtual functions of ${name} to ${count}`

/** The kernel changes the number by way of 0 only. */
function requireNone({ name, virtualFunctions }: DeviceView, count: number): void {
  const [first, ...more] = virtualFunctions
  if (first === undefined) return
  const others = more.length === 0 ? '' : ` and ${more.length} more`
  throw new VfiodError(
    'DEVICE_IN_USE',
    `${actOf(name, count)}: it has ${virtualFunctions.length} (${first}${others}), and the number changes by way of 0 only; set 0 first, which removes them`,
    { resource: { type: 'device', name } },
  )
}
