/**
 * Devices that the host wants back, that are in error, or that are lost: each is recorded once, so
 * that its owner and administrators learn of it, and a device that its owner does not give back in
 * time is closed for it, where the policy says so. The kernel waits in unbind or remove until then.
 */

import { VfiodError } from '../../base/error.ts'
import { CONFIG_REGION, readRegion } from '../../kernel/device-calls.ts'
import type { Kernel } from '../../kernel/port.ts'
import { wasErrno } from '../../kernel/refusal.ts'
import { Deadline } from '../../os/deadline.ts'
import { DEFAULT_RELEASE_ASKED_MS } from '../../rules/policy.ts'
import type { ConditionKind, DeviceRecord } from '../state/records.ts'
import type { State } from '../state/state.ts'
import type { OpenDevice } from './device.ts'

/** Where PCI_COMMAND and PCI_STATUS lie in the configuration space, in one access. */
const COMMAND_AND_STATUS = { offset: 4n, length: 4 }

export class DeviceConditions {
  readonly #kernel: Kernel
  readonly #state: State
  readonly #take: (device: OpenDevice, why: string) => Promise<void>

  constructor(parts: {
    readonly kernel: Kernel
    readonly state: State
    /** Close a device that its owner did not give back. */
    readonly take: (device: OpenDevice, why: string) => Promise<void>
  }) {
    this.#kernel = parts.kernel
    this.#state = parts.state
    this.#take = parts.take
  }

  /** From here on, until the device is closed. Its record is there. */
  follow(device: OpenDevice): void {
    let deadline: Deadline | undefined
    device.hooks.add({
      onReset: async () => this.#clearError(device),
      onClosing: async () => deadline?.cancel(),
    })
    device.explain = (error) => this.#explain(device, error)
    device.signals.follow((signal) => {
      if (device.isClosed || this.#has(device, signal)) return
      const ms = signal === 'requested' ? patienceOf(device) : 0
      this.#set(device, signal, ms)
      if (ms > 0) deadline = new Deadline(ms, () => void this.#take(device, notGivenBack(ms)))
      if (signal === 'requested') void device.lane.run(() => this.#lookAt(device))
    })
  }

  #has({ name }: OpenDevice, kind: ConditionKind): boolean {
    return this.#state.device(name)?.conditions.some((each) => each.kind === kind) ?? false
  }

  #set(device: OpenDevice, kind: ConditionKind, closesInMs = 0): void {
    const record = this.#state.device(device.name)
    if (record === undefined) return
    const since = Date.now()
    const closes = closesInMs === 0 ? {} : { closesAt: since + closesInMs }
    const condition = { kind, since, ...closes }
    const { owner } = device.space
    this.#state.apply({ kind: 'condition-set', device: record, owner, condition })
  }

  /** A reset leads out of an error. */
  #clearError(device: OpenDevice): void {
    if (!this.#has(device, 'error')) return
    this.#state.apply({ kind: 'condition-cleared', name: device.name, condition: 'error' })
  }

  /** The error of a call, or that the device is lost where that is why. Runs in the lane of the device. */
  async #explain(device: OpenDevice, error: unknown): Promise<unknown> {
    if (!(error instanceof VfiodError) || !isOfLostDevice(error) || isThere(error)) return error
    await this.#lookAt(device)
    const record = this.#state.device(device.name)
    return (record && lostError(record)) ?? error
  }

  /** Find out whether it is there. Runs in the lane of the device. */
  async #lookAt(device: OpenDevice): Promise<void> {
    if (device.isClosed || this.#has(device, 'lost')) return
    if (await this.#isLost(device)) this.#set(device, 'lost')
  }

  /**
   * A function that is gone answers nothing, or all ones, where PCI_STATUS has bits that are always
   * zero. A function in error may answer so for as long as its recovery takes.
   */
  async #isLost(device: OpenDevice): Promise<boolean> {
    const region = device.regions.find(({ index }) => index === CONFIG_REGION)
    if (!device.flags.isPci || region === undefined || region.size === 0n) return false
    try {
      const bytes = await readRegion(this.#kernel, device.fd, { region, ...COMMAND_AND_STATUS })
      return bytes.every((byte) => byte === 0xff) && !this.#has(device, 'error')
    } catch (error) {
      return error instanceof VfiodError && isOfLostDevice(error)
    }
  }
}

const ERRNOS = ['ENODEV', 'EIO', 'ENXIO'] as const

const isOfLostDevice = (error: VfiodError): boolean => ERRNOS.some((name) => wasErrno(error, name))

/** Whether facts proved another cause of the errno: the device sleeps, or its decoding is off. */
const isThere = ({ details: { causes = [] } }: VfiodError): boolean =>
  causes.length === 1 && (causes[0] === 'device-asleep' || causes[0] === 'decoding-off')

/** How long the policy of the owner gives it, in milliseconds; 0 for ever. */
const patienceOf = ({ space }: OpenDevice): number =>
  space.client.grant.releaseAskedAfterMs ?? DEFAULT_RELEASE_ASKED_MS

const notGivenBack = (ms: number): string =>
  `the host wanted it back, and its owner did not close it within ${ms / 1000} s`

/** DEVICE_GONE, where a device is lost. */
export function lostError({ name, conditions }: DeviceRecord): VfiodError | undefined {
  const lost = conditions.find(({ kind }) => kind === 'lost')
  if (lost === undefined) return undefined
  const since = new Date(lost.since).toISOString()
  return new VfiodError(
    'DEVICE_GONE',
    `Cannot use ${name}: it has not answered since ${since} and is lost; close it`,
    { resource: { type: 'device', name } },
  )
}
