/**
 * Who uses a device that is about to change its driver, or to go: clients of the daemon, processes outside it, and
 * the host itself. The first two are refused, for the kernel would wait for them; the host may be forced.
 */

import { type HolderDetail, VfiodError } from '../../base/error.ts'
import { holderDetail, holdersOf, holdersText } from '../../kernel/holders.ts'
import { hostFacts } from '../../kernel/host-facts.ts'
import type { Kernel } from '../../kernel/port.ts'
import { type HostDevice, hostDevice } from '../../kernel/sysfs.ts'
import { type HostFacts, type HostUse, useBlockers, usesOf } from '../../rules/host-use.ts'
import { isBridge, isVfioDriver } from '../../rules/viability.ts'
import { holderOf, ownerText } from '../state/owner.ts'
import type { State } from '../state/state.ts'
import { nodesOf } from './outside.ts'

/** What the host uses a device for, or a virtual function that goes with it. */
export interface UsedByHost {
  readonly name: string
  readonly uses: readonly HostUse[]
}

export class DeviceUsers {
  readonly #kernel: Kernel
  readonly #state: State

  constructor({ kernel, state }: { readonly kernel: Kernel; readonly state: State }) {
    this.#kernel = kernel
    this.#state = state
  }

  /** No address space of the daemon has the device open, or its group in the kernel. */
  requireNoClient(device: HostDevice, act: string = cannotMove(device)): void {
    const { name, group, driver } = device
    const opener = this.#state.userOfDevice(name)
    if (opener !== undefined) {
      const { holder, fix } = holderOf(this.#state, opener.owner, 'close it first')
      throw inUse(
        device,
        `${act}: it is open in address space "${opener.id}" of ${holder}; ${fix}`,
        ownerText(opener.owner),
        { client: opener.owner.id, space: opener.id },
      )
    }
    if (driver !== undefined)
      this.#requireDetached(group, (member) => `${act}: ${member}, which would lose its mappings`)
  }

  /** No process outside the daemon has it open either: the kernel would wait for it without end. */
  async requireUnused(device: HostDevice): Promise<void> {
    this.requireNoClient(device)
    await this.#requireNotHeld(device)
    await this.requireUnusedVfs(device)
  }

  /** The same of the virtual functions of a physical one, which go. */
  async requireUnusedVfs(pf: HostDevice, act: string = cannotMove(pf)): Promise<void> {
    for (const vf of await this.virtualFunctionsOf(pf)) await this.#requireUnusedVf(pf, vf, act)
  }

  /**
   * Neither a client nor a process has another device of the group open: as long as one has, the kernel gives no device of
   * the group to a driver of the host (iommu_device_use_default_domain), and it would be left without.
   */
  async requireGroupFree(device: HostDevice, members: readonly HostDevice[]): Promise<void> {
    const { name, group } = device
    const act = `Cannot give ${name} back to its usual driver`
    this.#requireDetached(
      group,
      (member) => `${act}: ${member}, and until then the kernel lets no driver of the host have it`,
    )
    const names = members.filter(isVfioDriver).map((member) => member.name)
    const nodes = await nodesOf(this.#kernel, group, names)
    const holders = await holdersOf(this.#kernel, nodes)
    if (holders.length === 0) return
    const who = holdersText(holders)
    const paths = holderDetail(holders).paths?.join(' and ')
    throw groupInUse(
      group,
      `${act}: ${who} has ${paths} open, a device of the same group ${group}, and until then the kernel lets no driver of the host have one of the group; close it there first`,
      who,
      holderDetail(holders),
    )
  }

  /** No address space has the group in the kernel; the refusal says of which it is a member. */
  #requireDetached(group: number, refusal: (member: string) => string): void {
    const user = this.#state.userOfGroup(group)
    if (user === undefined || !this.#state.member(group)?.isAttached) return
    const { holder, fix } = holderOf(this.#state, user.owner, 'remove the group there first')
    const member = `its group ${group} is a member of address space "${user.id}" of ${holder}`
    throw groupInUse(group, `${refusal(member)}; ${fix}`, ownerText(user.owner), {
      client: user.owner.id,
      space: user.id,
    })
  }

  /** What the host uses the devices for; those that it does not use are left out. */
  async usedByHost(devices: readonly HostDevice[]): Promise<UsedByHost[]> {
    const candidates = devices.filter(mayBeUsed)
    if (candidates.length === 0) return []
    const going = await Promise.all(
      candidates.map(async (device) => ({ device, vfs: await this.virtualFunctionsOf(device) })),
    )
    const facts = await hostFacts(
      this.#kernel,
      going.flatMap(({ device, vfs }) => [device, ...vfs]),
    )
    return going
      .map(({ device, vfs }) => ({
        name: device.name,
        uses: [
          ...(isHosts(device) ? usesOf(facts, device.name) : consoleUses(facts, device.name)),
          ...vfs.filter(isHosts).flatMap((vf) =>
            usesOf(facts, vf.name).map((use) => ({
              ...use,
              found: `${use.found}, on its virtual function ${vf.name}`,
            })),
          ),
        ],
      }))
      .filter(({ uses }) => uses.length > 0)
  }

  /** The driver of a PF takes its VFs with it, and waits for those that use them. */
  async virtualFunctionsOf(device: HostDevice): Promise<HostDevice[]> {
    if (device.driver === undefined) return []
    const vfs = await Promise.all(
      device.virtualFunctions.map((name) => hostDevice(this.#kernel, name)),
    )
    return vfs.filter((vf) => vf !== undefined)
  }

  async #requireUnusedVf(pf: HostDevice, vf: HostDevice, act: string): Promise<void> {
    try {
      this.requireNoClient(vf, act)
      await this.#requireNotHeld(vf, act)
    } catch (error) {
      if (!(error instanceof VfiodError)) throw error
      const owner = error.details.resource?.owner ?? ''
      const found = error.message.slice(error.message.indexOf(': ') + 2)
      throw inUse(
        pf,
        `${act}: its virtual function ${vf.name} would go with it, and ${found}`,
        owner,
        error.details.holder,
      )
    }
  }

  async #requireNotHeld(device: HostDevice, act: string = cannotMove(device)): Promise<void> {
    if (!isVfioDriver(device)) return
    const { name, group } = device
    const nodes = await nodesOf(this.#kernel, group, [name])
    const holders = await holdersOf(this.#kernel, nodes)
    if (holders.length === 0) return
    const who = holdersText(holders)
    throw inUse(
      device,
      `${act}: ${who} has ${nodes.join(' or ')} open, and the kernel would wait for that; close it there first`,
      who,
      holderDetail(holders),
    )
  }
}

const cannotMove = ({ name }: HostDevice): string => `Cannot move ${name} to another driver`

const DISPLAY = 0x03

/** A driver of the host has it. */
const isHosts = (device: HostDevice): boolean =>
  device.driver !== undefined && !isVfioDriver(device)

/** Bridges stay with the kernel, and only the boot display is in use without a driver. */
const mayBeUsed = (device: HostDevice): boolean =>
  device.bus === 'pci' &&
  !isBridge(device) &&
  (isHosts(device) ||
    device.virtualFunctions.length > 0 ||
    (device.driver === undefined && (device.pci?.class ?? 0) >> 16 === DISPLAY))

const consoleUses = (facts: HostFacts, name: string): HostUse[] =>
  usesOf(facts, name).filter(({ kind }) => kind === 'console')

/** The refusal to take from the host what it uses. */
export function hostUses(used: readonly UsedByHost[], refused?: string): VfiodError {
  const blockers = used.flatMap(({ name, uses }) => useBlockers(name, uses))
  const texts = blockers.map(({ subject, found, fix }) => `${subject} is ${found}; ${fix}`)
  const names = used.map(({ name }) => name)
  const [first = ''] = names
  const act = refused ?? `Cannot move ${names.join(' and ')} to another driver`
  return new VfiodError('HOST_USES_DEVICE', `${act}: ${texts.join('; ')}`, {
    blockers,
    resource: { type: 'device', name: first, owner: 'the host' },
  })
}

function inUse(
  { name }: HostDevice,
  message: string,
  owner: string,
  holder: HolderDetail | undefined,
): VfiodError {
  const resource = { type: 'device', name, owner }
  const details = holder === undefined ? { resource } : { resource, holder }
  return new VfiodError('DEVICE_IN_USE', message, details)
}

function groupInUse(
  group: number,
  message: string,
  owner: string,
  holder: HolderDetail,
): VfiodError {
  const resource = { type: 'group', name: String(group), owner }
  return new VfiodError('GROUP_IN_USE', message, { resource, holder })
}
