/** The interrupts of an mtty device: INTx or MSI, one eventfd, and a mask for INTx. */

import {
  VFIO_IRQ_SET_ACTION_MASK,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_MSI_IRQ_INDEX,
} from '../../../../abi/device.ts'
import { ERRNO } from '../../../../base/errno.ts'
import { Eventfd } from '../../core/eventfd.ts'
import type { IrqData } from '../../vfio/irq-set.ts'

export class MttyIrqs {
  #enabled: { readonly index: number; readonly trigger: Eventfd } | null = null
  #isIntxMasked = false

  trigger(): void {
    if (this.#enabled === null) return
    if (this.#enabled.index === VFIO_PCI_INTX_IRQ_INDEX) {
      if (this.#isIntxMasked) return
      this.#isIntxMasked = true
    }
    this.#enabled.trigger.signal()
  }

  set(index: number, action: number, data: IrqData): number {
    if (index !== VFIO_PCI_INTX_IRQ_INDEX && index !== VFIO_PCI_MSI_IRQ_INDEX) return -ERRNO.ENOTTY
    switch (action) {
      case VFIO_IRQ_SET_ACTION_MASK:
      case VFIO_IRQ_SET_ACTION_UNMASK:
        if (index === VFIO_PCI_MSI_IRQ_INDEX) return -ERRNO.ENOTTY
        return this.#setMask(action === VFIO_IRQ_SET_ACTION_MASK, data)
      case VFIO_IRQ_SET_ACTION_TRIGGER:
        return this.#setTrigger(index, data)
      default:
        return 0
    }
  }

  disable(): void {
    this.#enabled?.trigger.put()
    this.#enabled = null
    this.#isIntxMasked = false
  }

  #setMask(isMasked: boolean, data: IrqData): number {
    if (this.#enabled?.index !== VFIO_PCI_INTX_IRQ_INDEX || data.start !== 0 || data.count !== 1)
      return -ERRNO.EINVAL
    if (data.kind === 'eventfd') return -ERRNO.ENOTTY
    if (data.fires(0)) this.#isIntxMasked = isMasked
    return 0
  }

  #setTrigger(index: number, data: IrqData): number {
    const isEnabled = this.#enabled?.index === index
    if (isEnabled && data.count === 0 && data.kind === 'none') {
      this.disable()
      return 0
    }
    if ((this.#enabled && !isEnabled) || data.start !== 0 || data.count !== 1) return -ERRNO.EINVAL
    if (data.kind === 'eventfd') {
      this.disable()
      const fd = data.fds[0] ?? -1
      if (fd < 0) return 0
      const trigger = Eventfd.of(fd)
      if (typeof trigger === 'number') return trigger
      this.#enabled = { index, trigger }
      return 0
    }
    if (!isEnabled) return -ERRNO.EINVAL
    if (data.fires(0)) this.trigger()
    return 0
  }
}
