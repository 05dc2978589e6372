/**
 * INTx of a vfio-pci device: a level. When it rises the eventfd is signalled once and the interrupt
 * masked; unmasking signals again while the device still holds the level up.
 */

import { ERRNO } from '../../../../base/errno.ts'
import { Eventfd } from '../../core/eventfd.ts'
import type { IrqData } from '../../vfio/irq-set.ts'
import type { Virqfds } from '../../vfio/virqfds.ts'

export class IntxLine {
  readonly #virqfds: Virqfds
  readonly #isPresent: boolean
  #isRaised = false
  #isMasked = false
  /** The client set PCI_COMMAND_INTX_DISABLE: no interrupt is signalled. */
  #isDisabled = false
  /** Null trigger: enabled, but without an eventfd to signal. */
  #enabled: { trigger: Eventfd | null } | null = null
  /** Stops waiting for the eventfd that unmasks. */
  #stopUnmask: (() => void) | null = null

  constructor(virqfds: Virqfds, isPresent: boolean) {
    this.#virqfds = virqfds
    this.#isPresent = isPresent
  }

  get isEnabled(): boolean {
    return this.#enabled !== null
  }

  setLevel(isRaised: boolean): void {
    this.#isRaised = isRaised
    this.#deliver()
  }

  setDisabled(isDisabled: boolean): void {
    if (isDisabled === this.#isDisabled) return
    this.#isDisabled = isDisabled
    if (isDisabled) this.#isMasked = true
    else this.#unmask()
  }

  setMask(data: IrqData): number {
    if (!this.#isOne(data)) return -ERRNO.EINVAL
    if (data.kind === 'eventfd') return -ERRNO.ENOTTY
    if (data.fires(0)) this.#isMasked = true
    return 0
  }

  setUnmask(data: IrqData): number {
    if (!this.#isOne(data)) return -ERRNO.EINVAL
    if (data.kind === 'eventfd') return this.#setUnmaskEventfd(data.fds[0] ?? -1)
    if (data.fires(0)) this.#unmask()
    return 0
  }

  /** `isAlone`: neither MSI nor MSI-X is enabled. */
  setTrigger(data: IrqData, isAlone: boolean): number {
    if (this.#enabled && data.count === 0 && data.kind === 'none') {
      this.disable()
      return 0
    }
    if (!isAlone || data.start !== 0 || data.count !== 1) return -ERRNO.EINVAL
    if (data.kind === 'eventfd') return this.#setTriggerEventfd(data.fds[0] ?? -1)
    if (!this.#enabled) return -ERRNO.EINVAL
    if (data.fires(0) && !this.#isDisabled) this.#enabled.trigger?.signal()
    return 0
  }

  disable(): void {
    this.#enabled?.trigger?.put()
    this.#enabled = null
    this.#dropUnmask()
    this.#isMasked = false
  }

  #isOne({ start, count }: IrqData): boolean {
    return this.#enabled !== null && start === 0 && count === 1
  }

  #setTriggerEventfd(fd: number): number {
    const trigger = fd >= 0 ? Eventfd.of(fd) : null
    if (typeof trigger === 'number') return trigger
    if (!this.#isPresent) return -ERRNO.ENODEV
    if (this.#enabled === null) this.#isMasked = this.#isDisabled
    this.#enabled?.trigger?.put()
    this.#enabled = { trigger }
    this.#deliver()
    return 0
  }

  #setUnmaskEventfd(fd: number): number {
    if (fd < 0) {
      this.#dropUnmask()
      return 0
    }
    const checked = Eventfd.check(fd)
    if (checked < 0) return checked
    if (this.#stopUnmask) return -ERRNO.EBUSY
    const watched = this.#virqfds.watch(fd, () => this.#unmask())
    if (typeof watched === 'number') return watched
    this.#stopUnmask = watched
    return 0
  }

  #dropUnmask(): void {
    this.#stopUnmask?.()
    this.#stopUnmask = null
  }

  #unmask(): void {
    if (this.#isDisabled) return
    this.#isMasked = false
    this.#deliver()
  }

  #deliver(): void {
    if (!this.#isRaised || this.#isMasked || !this.#enabled) return
    this.#isMasked = true
    this.#enabled.trigger?.signal()
  }
}
