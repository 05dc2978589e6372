/**
 * A device that a vfio driver has: what its open files share, whichever bus it is on. It is opened
 * once, by the first file, and closed with the last; unbinding it waits for that.
 */

import { VFIO_DEVICE_BIND_IOMMUFD } from '../../../abi/device.ts'
import { VFIO_DEVICE_FEATURE } from '../../../abi/feature.ts'
import { ERRNO } from '../../../base/errno.ts'
import type { IoctlArg, MapRequest } from '../../../kernel/port.ts'
import type { Range } from '../../../rules/range-map.ts'
import type { DeviceMemory } from '../core/mm.ts'
import { type Answer, type Caller, OpenFile } from '../file/open-file.ts'
import type { EmulatedDma, PinUser } from '../iommu/emulated-dma.ts'
import type { Binding } from '../iommufd/binding.ts'
import type { IommufdContext } from '../iommufd/context.ts'
import { bindEmulated } from '../iommufd/emulated-device.ts'
import { bindPhysical } from '../iommufd/physical-device.ts'
import { bindIommufd } from './cdev.ts'
import type { DmaLoggingOps } from './dma-logging.ts'
import { deviceFeature, type FeatureDevice } from './feature.ts'
import type { FeatureCall } from './feature-call.ts'
import type { GroupDevice, GroupFile, VfioGroup } from './group.ts'
import type { MigrationOps } from './migration-feature.ts'

export abstract class VfioDevice implements GroupDevice, FeatureDevice, PinUser {
  readonly group: VfioGroup
  /** The N of /dev/vfio/devices/vfioN. */
  readonly index: number
  /** What the name in VFIO_GROUP_GET_DEVICE_FD is compared with. */
  readonly name: string
  /** Present when the device can migrate. */
  readonly migration: MigrationOps | undefined = undefined
  /** Present when the device tracks its own writes. */
  readonly dmaLogging: DmaLoggingOps | undefined = undefined
  /** Invariant: the number of open files of the device, without cdevs that are not bound. */
  #openCount = 0
  /** Open files of the cdev, bound or not: the driver waits for those as well. */
  #cdevFiles = 0
  /** While it is bound to an iommufd, and to which. */
  binding: Binding | undefined
  iommufd: IommufdContext | undefined
  /** Whether that came through its cdev. */
  isCdevOpened = false
  /** False from when its driver begins to leave it: only files that are open still reach it. */
  isRegistered = true
  /** The hardware is gone, with its driver still there: nothing works but closing. */
  isLost = false
  /** The file that the group keeps open for as long as the device is. */
  #groupFile: GroupFile | undefined
  #whenClosed: (() => void)[] = []

  constructor(name: string, group: VfioGroup, index: number) {
    this.name = name
    this.group = group
    this.index = index
  }

  get isOpen(): boolean {
    return this.#openCount > 0 || this.#cdevFiles > 0
  }

  match(name: string): number {
    return name === this.name ? 1 : 0
  }

  protected abstract openDevice(): number
  protected abstract closeDevice(): void
  abstract ioctl(caller: Caller, request: number, arg: IoctlArg): Answer
  abstract read(into: Uint8Array, offset: bigint): Answer
  abstract write(from: Uint8Array, offset: bigint): Answer

  /** Most drivers have nothing to map. */
  map(_request: MapRequest): Promise<DeviceMemory | number> | number {
    return -ERRNO.EINVAL
  }

  /** Surprise removal. */
  lose(): void {
    this.isLost = true
    this.request()
  }

  /** An uncorrectable error was reported for it, and its user is told if it can be. */
  reportError(): void {}

  /** The driver asks its user to let go of the device. */
  request(): void {}

  /** A driver that pins pages lets go of those. */
  unmapped(_range: Range<bigint>): void {}

  /** Where the driver does the DMA of the device, while it is open. */
  protected get emulatedDma(): EmulatedDma | undefined {
    return this.binding ? this.binding.emulatedDma : this.group.container?.type1?.emulatedDma
  }

  /** A feature that only some drivers know. */
  feature(_call: FeatureCall): number {
    return -ERRNO.ENOTTY
  }

  openThroughGroup(file: GroupFile): DeviceFile | number {
    const { container, iommufd } = this.group
    if (container === undefined && iommufd === undefined) return -ERRNO.EINVAL
    if (this.#openCount === 0) {
      const opened = iommufd ? this.#openInIommufd(iommufd.context) : this.#openInContainer()
      if (opened < 0) return opened
      // A container keeps the group open for its devices; an iommufd does not.
      if (!iommufd) this.#groupFile = file.get()
    }
    this.#openCount += 1
    return new DeviceFile(this)
  }

  /** VFIO_DEVICE_BIND_IOMMUFD: the device is open from then on, for this one file. */
  openThroughCdev(context: IommufdContext): number {
    if (this.#openCount > 0) return -ERRNO.EINVAL
    const opened = this.#openBound(context)
    if (opened < 0) return opened
    this.#openCount = 1
    this.isCdevOpened = true
    return 0
  }

  closeOne(): void {
    this.#openCount -= 1
    if (this.#openCount > 0) return
    this.closeDevice()
    if (this.binding) this.#unbind()
    else {
      this.group.containerUsers -= 1
      this.group.container?.type1?.pinUsers.delete(this)
    }
    this.#groupFile?.put()
    this.#groupFile = undefined
    this.#tellIfClosed()
  }

  openCdev(): void {
    this.#cdevFiles += 1
  }

  closeCdev(): void {
    this.#cdevFiles -= 1
    this.#tellIfClosed()
  }

  #openInContainer(): number {
    const { container } = this.group
    if (!container?.hasBackend) return -ERRNO.EINVAL
    const opened = this.isLost ? -ERRNO.ENODEV : this.openDevice()
    if (opened < 0) return opened
    this.group.containerUsers += 1
    container.type1?.pinUsers.add(this)
    return 0
  }

  #openInIommufd(context: IommufdContext): number {
    const opened = this.#openBound(context)
    if (opened < 0) return opened
    const { vfioIoas } = context
    const attached = vfioIoas ? this.binding?.attach(vfioIoas.id) : -ERRNO.ENODEV
    if (attached !== undefined && attached >= 0) return 0
    this.closeDevice()
    this.#unbind()
    return attached ?? -ERRNO.ENODEV
  }

  #openBound(context: IommufdContext): number {
    const bound = this.group.isEmulated
      ? bindEmulated(context, this)
      : bindPhysical(context, this.group.iommuGroup)
    if (typeof bound === 'number') return bound
    this.binding = bound
    this.iommufd = context
    const opened = this.isLost ? -ERRNO.ENODEV : this.openDevice()
    if (opened < 0) this.#unbind()
    return opened
  }

  #unbind(): void {
    this.binding?.unbind()
    this.binding = undefined
    this.iommufd = undefined
    this.isCdevOpened = false
  }

  #tellIfClosed(): void {
    if (this.isOpen) return
    for (const resolve of this.#whenClosed.splice(0)) resolve()
  }

  /** Resolves once no file of the device is open. */
  whenClosed(): Promise<void> {
    if (!this.isOpen) return Promise.resolve()
    return new Promise((resolve) => this.#whenClosed.push(resolve))
  }
}

export class DeviceFile extends OpenFile {
  readonly device: VfioDevice
  /** read(2) and write(2) go on where the last one ended. */
  #position = 0n

  constructor(device: VfioDevice) {
    super()
    this.device = device
    this.deviceName = device.name
  }

  override ioctl(caller: Caller, request: number, arg: IoctlArg): Answer {
    if (this.device.isLost) return -ERRNO.ENODEV
    if (request === VFIO_DEVICE_BIND_IOMMUFD.number) return bindIommufd(arg)
    if (request === VFIO_DEVICE_FEATURE.number) return deviceFeature(this.device, caller, arg)
    return this.device.ioctl(caller, request, arg)
  }

  override pread(into: Uint8Array, offset: bigint): Answer {
    return this.device.isLost ? -ERRNO.EIO : this.device.read(into, offset)
  }

  override pwrite(from: Uint8Array, offset: bigint): Answer {
    return this.device.isLost ? -ERRNO.EIO : this.device.write(from, offset)
  }

  override mmap(request: MapRequest): Promise<DeviceMemory | number> | number {
    return this.device.isLost ? -ERRNO.ENODEV : this.device.map(request)
  }

  override read(into: Uint8Array): Answer {
    return this.#advance(this.pread(into, this.#position))
  }

  override write(from: Uint8Array): Answer {
    return this.#advance(this.pwrite(from, this.#position))
  }

  async #advance(answer: Answer): Promise<number> {
    const done = await answer
    if (done > 0) this.#position += BigInt(done)
    return done
  }

  protected override release(): void {
    this.device.closeOne()
  }
}
