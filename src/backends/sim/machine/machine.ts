/** A machine that runs: its groups, buses and drivers, built from its description. */

import { Pending } from '../core/pending.ts'
import type { Process } from '../file/process.ts'
import { firmwareRefusal, IommuGroup } from '../iommu/iommu-group.ts'
import type { IommufdParameters } from '../iommufd/context.ts'
import type { MachineSpec } from '../spec/machine-spec.ts'
import type { Type1Parameters } from '../type1/parameters.ts'
import { VfioRegistry } from '../vfio/vfio-registry.ts'
import { Virqfds } from '../vfio/virqfds.ts'
import { Hotplug } from './hotplug.ts'
import { MdevBus } from './mdev-bus.ts'
import { PciBus, type VfioPciParameters } from './pci-bus.ts'
import { PlatformBus } from './platform-bus.ts'

export class Machine {
  readonly spec: MachineSpec
  readonly pending: Pending
  readonly virqfds: Virqfds
  readonly groups: Map<number, IommuGroup>
  readonly vfio: VfioRegistry
  readonly type1: Type1Parameters
  readonly iommufd: IommufdParameters
  readonly vfioPci: VfioPciParameters
  /** Those that run. */
  readonly processes = new Set<Process>()
  readonly pci: PciBus
  readonly hotplug: Hotplug
  readonly platform: PlatformBus
  readonly mdev: MdevBus

  constructor(spec: MachineSpec, time: 'poked' | 'auto') {
    this.spec = spec
    this.pending = new Pending(time)
    this.virqfds = new Virqfds(this.pending)
    this.groups = new Map(
      spec.groups.map((group) => {
        const refusal = firmwareRefusal(group, spec.kernelVersion)
        const iommu = group.isNoIommu ? undefined : (group.iommu ?? spec.iommu)
        return [group.id, new IommuGroup(group, iommu, refusal)]
      }),
    )
    this.vfio = new VfioRegistry(this.pending, { enablesNoIommu: spec.enablesNoIommu ?? false })
    const { dmaEntryLimit, allowsUnsafeInterrupts = false } = spec
    this.type1 = { dmaEntryLimit, allowsUnsafeInterrupts }
    this.iommufd = { allowsUnsafeInterrupts }
    this.vfioPci = { enablesSriov: spec.enablesSriov ?? false }
    this.platform = new PlatformBus(spec.platformDevices ?? [], this.groups)
    this.pci = new PciBus(spec, this)
    this.hotplug = new Hotplug(spec.functions, this.pci)
    this.mdev = new MdevBus(spec, this)
  }
}
