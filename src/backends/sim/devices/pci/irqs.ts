/**
 * The interrupts of a vfio-pci device: one of INTx, MSI or MSI-X at a time, each vector signalled
 * through an eventfd, and a request line to ask the user for the device. vfio.h: struct
 * vfio_irq_set.
 */

import {
  VFIO_IRQ_SET_ACTION_MASK,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_PCI_ERR_IRQ_INDEX,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_MSI_IRQ_INDEX,
  VFIO_PCI_MSIX_IRQ_INDEX,
  VFIO_PCI_REQ_IRQ_INDEX,
} from '../../../../abi/device.ts'
import { ERRNO } from '../../../../base/errno.ts'
import { Eventfd } from '../../core/eventfd.ts'
import type { FunctionSpec } from '../../spec/machine-spec.ts'
import type { IrqData } from '../../vfio/irq-set.ts'
import type { IntxLine } from './intx.ts'

export class PciIrqs {
  readonly #spec: FunctionSpec
  readonly intx: IntxLine
  /** Whether MSI-X vectors can be added while others are enabled. */
  readonly #hasDynamicMsix: boolean
  /** MSI or MSI-X vectors that are allocated, by number; null while neither is enabled. */
  #vectors: { readonly index: number; readonly triggers: (Eventfd | null)[] } | null = null
  /** ERR and REQ have one eventfd each. */
  readonly #singles = new Map<number, Eventfd>()

  constructor(
    spec: FunctionSpec,
    intx: IntxLine,
    { hasDynamicMsix }: { readonly hasDynamicMsix: boolean },
  ) {
    this.#spec = spec
    this.intx = intx
    this.#hasDynamicMsix = hasDynamicMsix
  }

  count(index: number): number {
    switch (index) {
      case VFIO_PCI_INTX_IRQ_INDEX:
        return this.#spec.hasIntx ? 1 : 0
      case VFIO_PCI_MSI_IRQ_INDEX:
        return this.#spec.msiVectors
      case VFIO_PCI_MSIX_IRQ_INDEX:
        return this.#spec.msixVectors
      case VFIO_PCI_ERR_IRQ_INDEX:
        return this.#spec.isPcie ? 1 : 0
      case VFIO_PCI_REQ_IRQ_INDEX:
        return 1
      default:
        return 0
    }
  }

  /** Whether the number of vectors stays what the first call made it. */
  isFixed(index: number): boolean {
    if (index !== VFIO_PCI_MSIX_IRQ_INDEX) return true
    return !this.#hasDynamicMsix || this.#spec.msixVectors === 0
  }

  get isMsiEnabled(): boolean {
    return this.#vectors?.index === VFIO_PCI_MSI_IRQ_INDEX
  }

  sendMsi(vector: number): void {
    if (this.isMsiEnabled) this.#vectors?.triggers[vector]?.signal()
  }

  set(index: number, action: number, data: IrqData): number {
    switch (index) {
      case VFIO_PCI_INTX_IRQ_INDEX:
        return this.#setIntx(action, data)
      case VFIO_PCI_MSI_IRQ_INDEX:
      case VFIO_PCI_MSIX_IRQ_INDEX:
        if (action !== VFIO_IRQ_SET_ACTION_TRIGGER) return -ERRNO.ENOTTY
        return this.#triggerMessage(index, data)
      case VFIO_PCI_ERR_IRQ_INDEX:
      case VFIO_PCI_REQ_IRQ_INDEX:
        if (action !== VFIO_IRQ_SET_ACTION_TRIGGER) return -ERRNO.ENOTTY
        if (index === VFIO_PCI_ERR_IRQ_INDEX && !this.#spec.isPcie) return -ERRNO.ENOTTY
        return this.#triggerSingle(index, data)
      default:
        return -ERRNO.ENOTTY
    }
  }

  /** Asks the user for the device; whether anyone listens. */
  request(): boolean {
    const listener = this.#singles.get(VFIO_PCI_REQ_IRQ_INDEX)
    listener?.signal()
    return listener !== undefined
  }

  /** AER: an uncorrectable error of the function. */
  reportError(): void {
    this.#singles.get(VFIO_PCI_ERR_IRQ_INDEX)?.signal()
  }

  /** The device is closed. */
  disable(): void {
    this.intx.disable()
    this.intx.setDisabled(false)
    this.#disableMessages()
    for (const single of this.#singles.values()) single.put()
    this.#singles.clear()
  }

  #setIntx(action: number, data: IrqData): number {
    switch (action) {
      case VFIO_IRQ_SET_ACTION_MASK:
        return this.intx.setMask(data)
      case VFIO_IRQ_SET_ACTION_UNMASK:
        return this.intx.setUnmask(data)
      case VFIO_IRQ_SET_ACTION_TRIGGER:
        return this.intx.setTrigger(data, this.#vectors === null)
      default:
        return -ERRNO.ENOTTY
    }
  }

  #triggerMessage(index: number, data: IrqData): number {
    const isEnabled = this.#vectors?.index === index
    if (isEnabled && data.count === 0 && data.kind === 'none') {
      this.#disableMessages()
      return 0
    }
    if (!isEnabled && (this.#vectors !== null || this.intx.isEnabled)) return -ERRNO.EINVAL
    if (data.kind === 'eventfd') return this.#enableMessages(index, data)
    if (!isEnabled) return -ERRNO.EINVAL
    for (let at = 0; at < data.count; at++)
      if (data.fires(at)) this.#vectors?.triggers[data.start + at]?.signal()
    return 0
  }

  /**
   * The first call allocates as many vectors as it names; later ones change some of those. A host that
   * has fewer says how many, and gives none (pci_alloc_irq_vectors).
   */
  #enableMessages(index: number, data: IrqData): number {
    const isNew = this.#vectors === null
    if (isNew && data.start + data.count === 0) return -ERRNO.ERANGE
    if (isNew && data.start + data.count > this.#hostVectors)
      return this.#hostVectors === 0 ? -ERRNO.ENOSPC : this.#hostVectors
    this.#vectors ??= { index, triggers: Array(data.start + data.count).fill(null) }
    const { triggers } = this.#vectors
    const answer = this.#setVectors(triggers, data, !this.isFixed(index))
    if (answer < 0 && isNew) this.#disableMessages()
    return answer
  }

  /** One that cannot be set takes down itself and those that this call had set before it. */
  #setVectors(triggers: (Eventfd | null)[], data: IrqData, mayGrow: boolean): number {
    for (let at = 0; at < data.count; at++) {
      const vector = data.start + at
      const fd = data.fds[at] ?? -1
      const answer = this.#setVector(triggers, { vector, fd, mayGrow })
      if (answer === 0) continue
      for (let undo = data.start; undo < vector; undo++) setVector(triggers, undo, -1)
      return answer
    }
    return 0
  }

  #setVector(
    triggers: (Eventfd | null)[],
    { vector, fd, mayGrow }: { vector: number; fd: number; mayGrow: boolean },
  ): number {
    if (mayGrow && fd >= 0 && triggers.length <= vector) {
      if (vector >= this.#hostVectors) return -ERRNO.ENOSPC
      while (triggers.length <= vector) triggers.push(null)
    }
    return setVector(triggers, vector, fd)
  }

  get #hostVectors(): number {
    return this.#spec.hostVectors ?? Number.POSITIVE_INFINITY
  }

  #disableMessages(): void {
    for (const trigger of this.#vectors?.triggers ?? []) trigger?.put()
    this.#vectors = null
  }

  /** ERR and REQ: DATA_NONE and DATA_BOOL signal the eventfd, so that a client can try it. */
  #triggerSingle(index: number, data: IrqData): number {
    const single = this.#singles.get(index)
    if (data.start !== 0 || data.count > 1) return -ERRNO.EINVAL
    if (data.kind === 'none') {
      if (single === undefined) return -ERRNO.EINVAL
      if (data.count > 0) single.signal()
      else this.#setSingle(index, null)
      return 0
    }
    if (data.count === 0) return -ERRNO.EINVAL
    if (data.kind === 'bool') {
      if (data.fires(0)) single?.signal()
      return 0
    }
    const fd = data.fds[0] ?? -1
    if (fd < -1) return -ERRNO.EINVAL
    const eventfd = fd < 0 ? null : Eventfd.of(fd)
    if (typeof eventfd === 'number') return eventfd
    this.#setSingle(index, eventfd)
    return 0
  }

  #setSingle(index: number, eventfd: Eventfd | null): void {
    this.#singles.get(index)?.put()
    if (eventfd) this.#singles.set(index, eventfd)
    else this.#singles.delete(index)
  }
}

/** The former eventfd is removed even when the new fd is not an eventfd. */
const setVector = (triggers: (Eventfd | null)[], vector: number, fd: number): number => {
  triggers[vector]?.put()
  if (vector < triggers.length) triggers[vector] = null
  if (fd < 0) return 0
  if (vector >= triggers.length) return -ERRNO.EINVAL
  const trigger = Eventfd.of(fd)
  if (typeof trigger === 'number') return trigger
  triggers[vector] = trigger
  return 0
}
