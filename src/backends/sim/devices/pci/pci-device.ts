/** A PCI function bound to vfio-pci: what its device fd answers. */

import {
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_IOEVENTFD,
  VFIO_DEVICE_PCI_HOT_RESET,
  VFIO_DEVICE_RESET,
  VFIO_DEVICE_SET_IRQS,
  VFIO_PCI_NUM_IRQS,
} from '../../../../abi/device.ts'
import { ERRNO } from '../../../../base/errno.ts'
import type { IoctlArg, MapRequest } from '../../../../kernel/port.ts'
import type { DeviceMemory } from '../../core/mm.ts'
import type { Caller } from '../../file/open-file.ts'
import type { DmaLoggingOps } from '../../vfio/dma-logging.ts'
import type { FeatureCall } from '../../vfio/feature-call.ts'
import type { VfioGroup } from '../../vfio/group.ts'
import { irqSet } from '../../vfio/irq-set.ts'
import type { MigrationOps } from '../../vfio/migration-feature.ts'
import { VfioDevice } from '../../vfio/vfio-device.ts'
import type { Virqfds } from '../../vfio/virqfds.ts'
import { pciFeature } from './features.ts'
import { hotReset, hotResetInfo } from './hot-reset.ts'
import { deviceInfo, irqInfo, regionInfo } from './info.ts'
import { Ioeventfds } from './ioeventfds.ts'
import type { PciFunction } from './pci-function.ts'
import { mapRegion, readRegion, writeRegion } from './regions.ts'
import { matchFunction, VfToken } from './vf-token.ts'

export class PciDevice extends VfioDevice {
  readonly pci: PciFunction
  readonly #ioeventfds: Ioeventfds
  /** Present for a physical function. */
  readonly vfToken: VfToken | undefined
  /** Of its physical function, where vfio-pci had that when it took this one. */
  readonly #physicalToken: VfToken | undefined
  override readonly migration: MigrationOps | undefined
  override readonly dmaLogging: DmaLoggingOps | undefined

  constructor(pci: PciFunction, virqfds: Virqfds, group: VfioGroup, index: number) {
    super(pci.name, group, index)
    this.pci = pci
    this.isLost = pci.isLost
    this.#ioeventfds = new Ioeventfds(pci, virqfds)
    this.migration = pci.vendor?.migration
    this.dmaLogging = pci.vendor?.dmaLog
    this.vfToken = pci.spec.sriov && new VfToken()
    this.#physicalToken = pci.physicalFunction?.vfio?.vfToken
  }

  /** Behind the name there may be a VF token. */
  override match(name: string): number {
    return matchFunction(this.name, name, { own: this.vfToken, ofPhysical: this.#physicalToken })
  }

  protected override openDevice(): number {
    this.pci.config.enable(this.pci.spec)
    this.pci.vendor?.open()
    if (this.#physicalToken) this.#physicalToken.users += 1
    return 0
  }

  protected override closeDevice(): void {
    if (this.#physicalToken) this.#physicalToken.users -= 1
    this.pci.config.restore()
    this.pci.config.setBusMaster(false)
    this.pci.irqs.disable()
    this.#ioeventfds.disable()
    this.pci.isLowPower = false
    this.pci.vendor?.close()
  }

  override lose(): void {
    super.lose()
    // Its sessions end with it, and it masters no bus any more.
    this.pci.vendor?.close()
    this.pci.config.setBusMaster(false)
  }

  override reportError(): void {
    this.pci.irqs.reportError()
  }

  override request(): void {
    this.pci.irqs.request()
  }

  override feature(call: FeatureCall): number {
    return pciFeature(this, call)
  }

  override ioctl(caller: Caller, request: number, arg: IoctlArg): number {
    switch (request) {
      case VFIO_DEVICE_GET_INFO.number:
        return deviceInfo(this.pci, arg)
      case VFIO_DEVICE_GET_REGION_INFO.number:
        return regionInfo(this.pci, arg)
      case VFIO_DEVICE_GET_IRQ_INFO.number:
        return irqInfo(this.pci, arg)
      case VFIO_DEVICE_SET_IRQS.number:
        return this.#setIrqs(arg)
      case VFIO_DEVICE_IOEVENTFD.number:
        return this.#ioeventfds.set(arg)
      case VFIO_DEVICE_RESET.number:
        return this.pci.reset()
      case VFIO_DEVICE_GET_PCI_HOT_RESET_INFO.number:
        return hotResetInfo(this.pci, arg)
      case VFIO_DEVICE_PCI_HOT_RESET.number:
        return hotReset(this.pci, caller, arg)
      default:
        return -ERRNO.ENOTTY
    }
  }

  override read(into: Uint8Array, offset: bigint): number {
    return readRegion(this.pci, into, offset)
  }

  override write(from: Uint8Array, offset: bigint): number {
    return writeRegion(this.pci, from, offset)
  }

  override map(request: MapRequest): Promise<DeviceMemory | number> {
    return mapRegion(this.pci, request)
  }

  #setIrqs(arg: IoctlArg): number {
    const { irqs } = this.pci
    const set = irqSet(arg, { indexes: VFIO_PCI_NUM_IRQS, vectors: (index) => irqs.count(index) })
    return typeof set === 'number' ? set : irqs.set(set.index, set.action, set.data)
  }
}
