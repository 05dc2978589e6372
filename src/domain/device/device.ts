/**
 * One open device: its fd and what it has. Opened and closed by devices.ts, used by everything
 * that drives a device. After close its fd must not be used: check `isClosed` in the lane.
 */

import { VfiodError } from '../../base/error.ts'
import { Lane } from '../../base/lane.ts'
import type { DeviceFd } from '../../base/units.ts'
import {
  type DeviceFlags,
  deviceInfo,
  type IrqIndex,
  irqInfo,
  type Region,
  regionInfo,
  resetDevice,
} from '../../kernel/device-calls.ts'
import { explained } from '../../kernel/diagnosis.ts'
import type { Kernel } from '../../kernel/port.ts'
import { ruledOut } from '../../rules/causes/cause.ts'
import type { Client } from '../identity/clients.ts'
import type { DeviceToOpen } from '../iommu/backend.ts'
import type { AddressSpace } from '../space/space.ts'
import { requireOwner } from '../state/owner.ts'
import type { OpeningReset } from '../state/records.ts'
import { ArmedIrqs } from './armed-irqs.ts'
import { HostSignals } from './host-signals.ts'
import { RegionWindows } from './region-windows.ts'

/** Events of an open device, for higher rooms. Each is called in the lane of the device. */
export interface DeviceHooks {
  /** The device was reset by the client. */
  readonly onReset?: () => Promise<void>
  /** The device is quiet and about to be closed; its fd is still open. */
  readonly onClosing?: () => Promise<void>
}

export class OpenDevice {
  readonly name: string
  readonly group: number
  readonly space: AddressSpace
  readonly fd: DeviceFd
  readonly flags: DeviceFlags
  readonly regions: readonly Region[]
  readonly irqs: readonly IrqIndex[]
  /** How it was reset as it was opened. */
  readonly reset: OpeningReset
  /** Operations on the device run one after another. */
  readonly lane = new Lane()
  readonly armed: ArmedIrqs
  /** Its regions as they are mapped here, for mappings. */
  readonly windows: RegionWindows
  /** What the host says of it. */
  readonly signals: HostSignals
  /** The error to throw for one of a call: that the device is lost, where that is why. */
  explain: (error: unknown) => Promise<unknown> = async (error) => error
  /** Aborted when the device is closed: streams of it end. */
  readonly closing = new AbortController()
  /** Aborted when the device changes hands: streams of its former owner end. */
  handed = new AbortController()
  readonly hooks = new Set<DeviceHooks>()

  private constructor(
    kernel: Kernel,
    at: { readonly name: string; readonly group: number; readonly space: AddressSpace },
    found: Pick<OpenDevice, 'fd' | 'flags' | 'regions' | 'irqs' | 'reset' | 'signals'>,
  ) {
    this.name = at.name
    this.group = at.group
    this.space = at.space
    this.fd = found.fd
    this.flags = found.flags
    this.regions = found.regions
    this.irqs = found.irqs
    this.reset = found.reset
    this.signals = found.signals
    this.windows = new RegionWindows(kernel, found.fd)
    this.armed = new ArmedIrqs({ name: at.name, isPci: found.flags.isPci })
  }

  get isClosed(): boolean {
    return this.closing.signal.aborted
  }

  static async open(
    kernel: Kernel,
    at: DeviceToOpen & { readonly group: number; readonly space: AddressSpace },
    /** Another way to reset it, for a device that cannot be reset by itself. */
    otherwise: (fd: DeviceFd) => Promise<OpeningReset>,
  ): Promise<OpenDevice> {
    const fd = await at.space.openDevice(at.group, at)
    try {
      const flags = await deviceInfo(kernel, fd)
      // A driver may keep state from its last user, a half-done migration included.
      const isReset = await resetIfPossible(kernel, { fd, flags })
      const reset = isReset ? BY_ITSELF : await otherwise(fd)
      const regions = await Promise.all(
        Array.from({ length: flags.regions }, (_, index) => regionInfo(kernel, fd, index)),
      )
      const found = await Promise.all(
        Array.from({ length: flags.irqs }, (_, index) => irqInfo(kernel, fd, index)),
      )
      const irqs = found.filter((irq) => irq !== undefined)
      return new OpenDevice(kernel, at, {
        fd,
        flags,
        regions: regions.filter((region) => region !== undefined),
        irqs,
        reset,
        signals: await HostSignals.arm(kernel, fd, { isPci: flags.isPci, irqs }),
      })
    } catch (error) {
      await kernel.close(fd)
      throw error
    }
  }

  /** A region that the device has, or NO_SUCH_REGION. */
  region(index: number): Region {
    const region = this.regions.find((each) => each.index === index)
    if (region !== undefined && region.size > 0n) return region
    const present = this.regions.filter(({ size }) => size > 0n).map((each) => each.index)
    throw new VfiodError(
      'NO_SUCH_REGION',
      `Cannot use region ${index} of ${this.name}: it has regions ${present.join(', ')}`,
      { field: 'region' },
    )
  }

  /** An IRQ index that the device has, or NO_SUCH_IRQ. */
  irq(index: number): IrqIndex {
    const irq = this.irqs.find((each) => each.index === index)
    if (irq !== undefined && irq.count > 0) return irq
    const present = this.irqs.filter(({ count }) => count > 0).map((each) => each.index)
    throw new VfiodError(
      'NO_SUCH_IRQ',
      `Cannot use IRQ index ${index} of ${this.name}: it has indexes ${present.join(', ') || 'none'}`,
      { field: 'index' },
    )
  }

  /** Run in the device's lane, unless it was closed or handed over while waiting there. */
  run<T>(caller: Client, operation: () => Promise<T>): Promise<T> {
    return this.lane.run(async () => {
      if (this.isClosed) throw notOpen(this.name)
      this.requireOwner(caller)
      try {
        return await operation()
      } catch (error) {
        throw await this.explain(error)
      }
    })
  }

  requireOwner(caller: Client): void {
    requireOwner(caller, this.space.owner, { type: 'device', name: this.name })
  }

  /** Ends when the signal does, or the device is closed or handed over. */
  until(signal: AbortSignal): AbortSignal {
    return AbortSignal.any([signal, this.closing.signal, this.handed.signal])
  }

  /** Its space has a new owner. */
  handOn(): void {
    this.handed.abort()
    this.handed = new AbortController()
  }
}

export const notOpen = (name: string): VfiodError =>
  new VfiodError(
    'DEVICE_NOT_OPEN',
    `Cannot use device "${name}": it is not open; open it in an address space first`,
    {
      resource: { type: 'device', name },
    },
  )

const BY_ITSELF: OpeningReset = { kind: 'function', why: '', blockers: [] }

type Resettable = Pick<OpenDevice, 'fd' | 'flags'>

/** Reset: ENOTTY of a device that says it can is one that did not come back in time. */
export const reset = (kernel: Kernel, { fd, flags }: Resettable): Promise<void> =>
  explained(resetDevice(kernel, fd), async () =>
    ruledOut(flags.canReset ? 'no-reset' : 'reset-timed-out'),
  )

/** Reset, or do nothing where the device has no reset method; answers which. */
export async function resetIfPossible(kernel: Kernel, device: Resettable): Promise<boolean> {
  try {
    await reset(kernel, device)
    return true
  } catch (error) {
    if (error instanceof VfiodError && error.reason === 'UNSUPPORTED') return false
    throw error
  }
}
