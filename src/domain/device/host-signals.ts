/**
 * The two interrupts by which the host speaks to the user of a PCI device: REQ, it wants the device
 * back, and ERR, the device reported an uncorrectable error. The daemon arms both on every device that
 * has them, for as long as it is open.
 *
 * The kernel has room for one eventfd each, and that is the daemon's. A client that arms one of them is
 * signalled by the daemon, so arming and disarming it changes nothing of what the daemon hears.
 */

import type { DeviceFd } from '../../base/units.ts'
import { armIrqs, ERROR_IRQ, type IrqIndex, REQUEST_IRQ } from '../../kernel/device-calls.ts'
import type { Kernel } from '../../kernel/port.ts'
import { refusal, wasErrno } from '../../kernel/refusal.ts'
import { eventfdCreate, eventfdRead, eventfdSignal } from '../../os/eventfd.ts'
import { sys } from '../../os/libc.ts'
import { unwatch, watch } from '../../os/poller.ts'

export type HostSignal = 'requested' | 'error'

const SIGNALS: ReadonlyMap<number, HostSignal> = new Map([
  [REQUEST_IRQ, 'requested'],
  [ERROR_IRQ, 'error'],
])

interface Line {
  readonly signal: HostSignal
  /** What the kernel signals. */
  readonly eventfd: number
  /** What the daemon signals in its turn, for the client: a separate fd of the client's eventfd. */
  client: number | undefined
}

const signal = (client: number | undefined): void => {
  if (client !== undefined) eventfdSignal(client)
}

export class HostSignals {
  /** By IRQ index. */
  readonly #lines = new Map<number, Line>()

  private constructor() {}

  /** Arms what the device has; a driver that has the index and cannot arm it is left alone. */
  static async arm(
    kernel: Kernel,
    fd: DeviceFd,
    device: { readonly isPci: boolean; readonly irqs: readonly IrqIndex[] },
  ): Promise<HostSignals> {
    const signals = new HostSignals()
    if (!device.isPci) return signals
    try {
      for (const { index, count, hasEventfd } of device.irqs) {
        const signal = SIGNALS.get(index)
        if (signal === undefined || count === 0 || !hasEventfd) continue
        await signals.#arm(kernel, fd, index, signal)
      }
      return signals
    } catch (error) {
      signals.close()
      throw error
    }
  }

  /** Whether the daemon has the eventfd of this index. */
  has(index: number): boolean {
    return this.#lines.has(index)
  }

  /** Call back for each signal from now on, those that came since it was armed included. */
  follow(onSignal: (signal: HostSignal) => void): void {
    for (const line of this.#lines.values()) {
      watch(line.eventfd, () => {
        if (typeof eventfdRead(line.eventfd) !== 'bigint') return
        signal(line.client)
        onSignal(line.signal)
      })
    }
  }

  /** Signal this eventfd as well, in the place of the former one; the caller keeps its fd. */
  share(index: number, eventfd: number): void {
    const line = this.#require(index)
    const copy = sys.dup(eventfd)
    if (copy < 0) throw refusal('dup', copy, `arm IRQ index ${index}`)
    this.unshare(index)
    line.client = copy
  }

  /** The client wants to hear no more; the daemon does. */
  unshare(index: number): void {
    const line = this.#require(index)
    if (line.client !== undefined) sys.closeSync(line.client)
    line.client = undefined
  }

  /** What a client raises by software is heard by the client alone. */
  trigger(index: number): void {
    signal(this.#require(index).client)
  }

  /** The kernel disarms them as the device is closed. */
  close(): void {
    for (const [index, { eventfd }] of this.#lines) {
      this.unshare(index)
      unwatch(eventfd)
      sys.closeSync(eventfd)
    }
    this.#lines.clear()
  }

  async #arm(kernel: Kernel, fd: DeviceFd, index: number, signal: HostSignal): Promise<void> {
    const eventfd = eventfdCreate()
    if (eventfd < 0) throw refusal('eventfd', eventfd, `arm IRQ index ${index}`)
    this.#lines.set(index, { signal, eventfd, client: undefined })
    try {
      await armIrqs(kernel, fd, { index, start: 0, eventfds: [eventfd] })
    } catch (error) {
      this.#lines.delete(index)
      sys.closeSync(eventfd)
      if (!wasErrno(error, 'ENOTTY') && !wasErrno(error, 'EINVAL')) throw error
    }
  }

  #require(index: number): Line {
    const line = this.#lines.get(index)
    if (line === undefined) throw new Error(`IRQ index ${index} is not armed by the daemon`)
    return line
  }
}
