/** A PCI function: its configuration space, what is behind its BARs, and who drives it. */

import { ERRNO } from '../../../../base/errno.ts'
import type { MemoryPiece } from '../../../../os/pieces.ts'
import type { Pending } from '../../core/pending.ts'
import type { GroupMember, IommuGroup } from '../../iommu/iommu-group.ts'
import { managesDma } from '../../spec/drivers.ts'
import { type FunctionSpec, VENDOR_KINDS } from '../../spec/machine-spec.ts'
import type { VfioGroup } from '../../vfio/group.ts'
import type { Virqfds } from '../../vfio/virqfds.ts'
import { Edu } from '../edu.ts'
import { VendorDevice } from '../profiles/vendor-device.ts'
import type { RegisterBus, Registers } from '../registers.ts'
import { BarMemory } from './bar-memory.ts'
import { ConfigSpace } from './config-space.ts'
import { IntxLine } from './intx.ts'
import { PciIrqs } from './irqs.ts'
import type { VfToken } from './vf-token.ts'

/** What the bus needs to know of the device that vfio-pci makes of a function. */
interface DeviceInUse {
  readonly group: VfioGroup
  /** The id of its object, and the iommufd that it is bound to. */
  readonly binding: { readonly id: number } | undefined
  readonly iommufd: object | undefined
  readonly isCdevOpened: boolean
  readonly vfToken: VfToken | undefined
}

export class PciFunction implements GroupMember, RegisterBus {
  readonly spec: FunctionSpec
  readonly iommuGroup: IommuGroup
  readonly sysfsPath: string
  readonly #pending: Pending
  readonly #others: () => Iterable<PciFunction>
  readonly irqs: PciIrqs
  config: ConfigSpace
  /** What a function of a vendor-like kind has besides registers. */
  readonly vendor: VendorDevice | undefined
  /** What is behind the BARs of a function that is nothing else. */
  readonly #memory: BarMemory
  registers: Registers
  /** Who has it: until the driver has left it, though sysfs shows none as soon as it begins to. */
  driver: string | undefined
  /** Its driver begins to leave it, or is about to have left. */
  isUnbinding = false
  /** While it changes: what else would change it waits for that. */
  busy: Promise<void> | undefined
  /** Its virtual functions, by number. */
  readonly virtualFunctions: PciFunction[] = []
  /** Of a virtual function: what it is a function of. */
  readonly physicalFunction: PciFunction | undefined
  /** The hardware is gone by surprise. */
  isLost = false
  /** It is being taken from the bus. */
  isLeaving = false
  driverOverride: string | undefined
  /** While vfio-pci has it. */
  vfio: DeviceInUse | undefined
  isLowPower = false

  constructor(
    spec: FunctionSpec,
    iommuGroup: IommuGroup,
    machine: {
      readonly pending: Pending
      readonly virqfds: Virqfds
      readonly hasDynamicMsix: boolean
      /** The directory in sysfs of what is above: a host bridge, or a bridge. */
      readonly above: string
      readonly physicalFunction?: PciFunction | undefined
      functions(): Iterable<PciFunction>
    },
  ) {
    this.spec = spec
    this.iommuGroup = iommuGroup
    this.#pending = machine.pending
    this.#others = () => machine.functions()
    this.physicalFunction = machine.physicalFunction
    this.sysfsPath = `${machine.above}/${spec.address}`
    this.driver = spec.boundDriver
    this.config = new ConfigSpace(spec)
    const kind = VENDOR_KINDS.find((name) => name === spec.kind)
    if (kind) this.vendor = new VendorDevice(spec, kind, { bus: this, pending: machine.pending })
    this.#memory = new BarMemory(spec.bars)
    this.registers = this.#makeRegisters()
    const intx = new IntxLine(machine.virqfds, spec.hasIntx)
    this.irqs = new PciIrqs(spec, intx, machine)
  }

  get name(): string {
    return this.spec.address
  }

  /** The driver that sysfs shows. */
  get shownDriver(): string | undefined {
    return this.isUnbinding ? undefined : this.driver
  }

  get usesDefaultDomain(): boolean {
    return this.driver !== undefined && !managesDma(this.driver)
  }

  /** `0000:01:00.1` in numbers. */
  get place(): { readonly segment: number; readonly bus: number; readonly devfn: number } {
    const [segment = 0, bus = 0, slot = 0, fn = 0] = this.name
      .split(/[:.]/)
      .map((part) => Number.parseInt(part, 16))
    // The field of the uAPI has 16 bits; a domain has more (those of VMD begin at 0x10000).
    return { segment: segment & 0xffff, bus, devfn: (slot << 3) | fn }
  }

  /** The BAR with the MSI-X table: here always the last of those in memory. */
  get msixBar(): number | undefined {
    if (this.spec.msixVectors === 0) return undefined
    return this.spec.bars.findLast(({ kind }) => kind !== 'io')?.index
  }

  /**
   * The functions that a bus reset hits, those behind bridges on the bus among them; undefined where no
   * bridge can reset the bus.
   */
  siblings(): PciFunction[] | undefined {
    const { parent } = this.spec
    if (parent === undefined) return undefined
    const functions = [...this.#others()]
    const isBelow = ({ spec }: PciFunction): boolean =>
      spec.parent === parent ||
      functions.some((above) => above.name === spec.parent && isBelow(above))
    return functions.filter(isBelow)
  }

  /** VFIO_DEVICE_RESET. */
  reset(): number {
    if (!this.spec.hasReset) return -ERRNO.EINVAL
    this.resetFunction()
    return 0
  }

  /** The registers are as after power on; the kernel restores the configuration space. */
  resetFunction(): void {
    this.vendor?.reset()
    this.#memory.reset()
    this.registers.stop?.()
    this.registers = this.#makeRegisters()
    this.irqs.intx.setLevel(false)
  }

  writeConfig(offset: number, from: Uint8Array): number {
    const answer = this.config.write(offset, from)
    this.irqs.intx.setDisabled(this.config.isIntxDisabled)
    return answer
  }

  setIntx(isRaised: boolean): void {
    this.irqs.intx.setLevel(isRaised)
  }

  /** A message is a write to memory, which only a master of the bus makes. */
  sendMsi(vector: number): void {
    if (this.config.isBusMaster) this.irqs.sendMsi(vector)
  }

  get isMsiEnabled(): boolean {
    return this.irqs.isMsiEnabled
  }

  later(action: () => void): void {
    this.#pending.add(action)
  }

  dmaRead(iova: bigint, into: Uint8Array): boolean {
    const pieces = this.#reach(iova, into.length, 'read')
    let at = 0
    const isDone = pieces?.every((piece) => {
      const part = into.subarray(at, at + piece.length)
      at += piece.length
      return piece.read(part)
    })
    if (isDone) return true
    into.fill(0)
    return false
  }

  dmaWrite(iova: bigint, from: Uint8Array): boolean {
    const pieces = this.#reach(iova, from.length, 'write')
    let at = 0
    const isDone = pieces?.every((piece) => {
      const part = from.subarray(at, at + piece.length)
      at += piece.length
      return piece.write(part)
    })
    // What stopped at a page that is gone may have written the pages before it.
    if (pieces !== undefined) this.vendor?.dmaLog?.note(iova, from.length)
    return isDone ?? false
  }

  #reach(iova: bigint, length: number, access: 'read' | 'write'): MemoryPiece[] | undefined {
    if (!this.config.isBusMaster) return undefined
    const translation = this.iommuGroup.translation ?? this.vfio?.group.container?.type1
    return translation?.reach(iova, length, access)
  }

  #makeRegisters(): Registers {
    if (this.vendor) return this.vendor.engine
    return this.spec.kind === 'edu' ? new Edu(this) : this.#memory
  }
}
